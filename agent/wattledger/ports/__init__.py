"""The seams: what the sampler asks of the edges, and what the exporters ask of the agent.

Each is one small protocol; tests pass a fake of the same shape (`tests/fakes.py`).
"""

from wattledger.ports.of_daemon import Daemon as Daemon
from wattledger.ports.of_daemon import TotalsReader as TotalsReader
from wattledger.ports.of_exporters import Exporter as Exporter
from wattledger.ports.of_exporters import ExporterPlugin as ExporterPlugin
from wattledger.ports.of_exporters import ExporterTools as ExporterTools
from wattledger.ports.of_exporters import RunOutbox as RunOutbox
from wattledger.ports.of_node import Clock as Clock
from wattledger.ports.of_node import Grid as Grid
from wattledger.ports.of_node import Jobs as Jobs
from wattledger.ports.of_node import Ledger as Ledger
from wattledger.ports.of_node import Meter as Meter
from wattledger.ports.of_node import MeterFeed as MeterFeed
from wattledger.ports.of_node import Site as Site
