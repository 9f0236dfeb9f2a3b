"""The HTTP floor: a server that floods, slow clients and hostile requests do not move.

`HttpServer` runs uvicorn's HTTP/1.1 protocol on its own loop in its own thread; requests are
answered from bytes rendered before, so that no scrape reaches a meter.
"""

from wattledger_exporters.http.pages import PageStore
from wattledger_exporters.http.server import HttpServer

__all__ = ["HttpServer", "PageStore"]
