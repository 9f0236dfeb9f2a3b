"""Jobs that span nodes, asked of a Prometheus-compatible API that scrapes the nodes.

    door (one HTTP request) ── reply (what it answered) ── promql (how to ask)
    books (whose ledger a series is, and its sums) ── epochs (of ledgers begun anew)
    presence (when a job ran) ── power (what it drew) ── labels, targets (how it is called)
    jobs · job · waste (the answers) ── amounts (their figures) ── arguments, asking (the options)

Nothing is extrapolated: every total is the last sample of a counter of a ledger's epoch, and the
sum of such samples. What was not scraped, or is not in the metrics, is named.
"""
