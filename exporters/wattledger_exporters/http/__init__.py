"""The HTTP floor: a server that floods, slow clients and hostile requests do not move.

`Server` runs uvicorn's HTTP/1.1 protocol on its own loop in its own thread. `HttpServer` is the
daemon's: requests are answered from bytes rendered before, so that no scrape reaches a meter.
"""

from wattledger_exporters.http.listeners import inherited_sockets
from wattledger_exporters.http.pages import PageStore
from wattledger_exporters.http.server import HttpServer, Server

__all__ = ["HttpServer", "PageStore", "Server", "inherited_sockets"]
