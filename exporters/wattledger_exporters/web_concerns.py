"""What in a web configuration serves, and should be mended all the same."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from wattledger.model.web import WebConcern
from wattledger_exporters.tls import TlsSettings

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


def _open_to_all(path: Path) -> bool:
    """Whether others than owner and group may read a file, and come as far as it."""
    try:
        real = path.resolve()
        if not real.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
    except OSError:
        return False
