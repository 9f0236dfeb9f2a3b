"""What in a web configuration serves, and should be mended all the same."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger.model.web import WebConcern

if TYPE_CHECKING:
    from wattledger_exporters.tls import TlsSettings

OF_A_NODE = "this node's energy and devices"
"""What a stranger reads at a daemon's port."""
# Some seconds of a core, as long as Prometheus waits for a scrape at most; each step doubles it.
_MOST_COST = 14


def concerns_of(path: Path, tls: TlsSettings | None, hashes: Iterable[str]) -> Iterator[WebConcern]:
    """Each of them.

    Args:
        path: the file itself.
        tls: what it says of TLS.
        hashes: of its users, as `web_users` writes them.
    """
    if tls is not None and _open_to_all(key := tls.key.path or path):
        yield WebConcern(
            f"every user of this machine may read the private key in {key}",
            f"chmod o= {key} (of a Kubernetes Secret: defaultMode: 0400)",
        )
    cost = max((int(each.split("$")[2]) for each in hashes), default=0)
    if cost > _MOST_COST:
        yield WebConcern(
            f"a hash in basic_auth_users is of cost {cost}: until it is computed, which takes "
            "seconds to hours of a core after each start, its user gets 429",
            f'hash the password anew, with a cost of {_MOST_COST} at most: htpasswd -nBC 10 ""',
        )


def beyond_loopback(host: str) -> bool:
    """Whether others than this machine reach what listens at an address of IPv4 or IPv6."""
    return not ipaddress.ip_address(host).is_loopback


def open_port(host: str, port: int, shows: str, path: Path | None) -> WebConcern:
    """Of a port that others reach, and where nobody is asked who comes.

    Args:
        host: the address.
        port: likewise.
        shows: what a stranger reads there.
        path: the web configuration, which asks nobody; None: there is none.
    """
    certificates = "required client certificates (client_auth_type, client_ca_file)"
    return WebConcern(
        f"{host} port {port} is open to the network: whoever reaches it reads {shows} without "
        "a password or a certificate",
        f"http.web_config adds TLS and users or {certificates}"
        if path is None
        else f"{path} has neither: add a user to basic_auth_users, or {certificates}",
    )


def _open_to_all(path: Path) -> bool:
    """Whether others than owner and group may read a file, and come as far as it."""
    try:
        real = path.resolve()
        if not real.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
    except OSError:
        return False
