"""`wattledger jobs`, `job` and `waste`: from the running daemon, or from its ledger."""
