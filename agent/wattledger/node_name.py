"""What this node is called where figures of many nodes lie side by side."""

from __future__ import annotations

import os
import socket

VARIABLE = "NODE_NAME"
"""Set by the DaemonSet: in a pod the host's name is the pod's, another one after each restart."""


def node_name() -> str:
    """`$NODE_NAME`, else the host's name."""
    return os.environ.get(VARIABLE) or socket.gethostname()
