"""`wattledger grid serve`: what grid sources say, passed on to any number of nodes.

    sources ── feed (a thread for each zone) ── latest ───┐
            └─ worker (one for each source) ── forecast ──┴── HTTP ─► nodes with kind = "wattledger"
                                               history

A client never causes a request for what is new: that is asked for once in each cadence of the
source, by the same feed as the daemon's. Forecasts and the past are fetched when somebody wants
them, once for all who want them, and kept.
"""
