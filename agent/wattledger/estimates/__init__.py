"""`wattledger estimate`: footprints without a meter, and published ones computed again.

`files` finds and reads the cases, `showing` prints them, `page` is `configs/estimates/README.md`.
"""
