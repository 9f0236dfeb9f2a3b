"""Prints the document."""

import sys

from wattledger_exporters.metrics import markdown

sys.stdout.write(markdown())
