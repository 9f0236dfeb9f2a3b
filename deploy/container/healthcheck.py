"""Ends with 0 while the daemon's books are kept: asks /readyz, or the path that is given."""

import http.client
import os
import socket
import sys

SOCKET = os.environ.get("RUNTIME_DIRECTORY", "/run/wattledger") + "/wattledger.sock"


def is_well(path: str, asked: str, timeout_s: float = 4.0) -> bool:
    """Whether the daemon that listens at a Unix socket answers with 200."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(timeout_s)
    try:
        connection.sock.connect(path)
        connection.request("GET", asked)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_well(SOCKET, *(sys.argv[1:2] or ["/readyz"])) else 1)
