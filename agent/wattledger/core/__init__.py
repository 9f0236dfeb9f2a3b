"""The arithmetic of the books: readings to intervals, intervals to payees, energy to footprints.

Nothing here reads a clock, a file or a log; everything takes and returns records of the model.
"""
