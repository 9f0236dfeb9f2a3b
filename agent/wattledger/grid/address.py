"""Which URLs and addresses may be asked.

A URL in the configuration, a name server or a provider's reply must not turn the daemon against
its own network: the cloud's metadata service hands out credentials, and loopback holds services
that trust whoever reaches them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from wattledger.grid.outcome import Outcome, failure

_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122: never a destination
_SHARED = IPv4Network("100.64.0.0/10")  # RFC 6598: carriers' and overlay networks
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
# Metadata and platform services outside the link-local range: AWS (IPv6), Alibaba, Azure, Oracle.
_METADATA = frozenset(
    ip_address(text)
    for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)


class Url(NamedTuple):
    """A URL that passed the checks.

    Attributes:
        scheme: `https`, or `http` to loopback.
        host: lower case, without brackets.
        port: explicit or the scheme's own.
        target: path and query.
        loopback: the host is `localhost` or a literal loopback address.
    """

    scheme: str
    host: str
    port: int
    target: str
    loopback: bool

    @property
    def origin(self) -> str:
        """Scheme, host and port: what an error may show (a query may hold more than it should)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def check_url(text: str) -> Url:
    """Take a URL apart and refuse what must not be asked.

    Raises:
        ValueError: a sentence that says what is wrong; it never repeats a password.
    """
    if not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("a url must be printable ASCII without spaces")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise ValueError("this is not a url; write one such as https://host/path") from error
    if "@" in parts.netloc:
        raise ValueError("a url must not hold a user name or a password; use token_file")
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError("a url must begin with https:// and a host name")
    if parts.fragment:
        raise ValueError("a url of a source has no #fragment")
    loopback = _is_loopback_name(host)
    if parts.scheme == "http" and not loopback:
        raise ValueError("plain http is allowed to loopback only (localhost, 127.0.0.1, [::1])")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    default_port = 443 if parts.scheme == "https" else 80
    return Url(parts.scheme, host, default_port if port is None else port, target, loopback)


def check_base_url(text: str) -> Url:
    """A source's base URL, to which paths are appended: it has no query of its own.

    Raises:
        ValueError: a sentence.
    """
    url = check_url(text)
    if "?" in text:
        raise ValueError("the url of a source must not hold a query (?…)")
    return url


def _is_loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return _unwrapped(ip_address(host)).is_loopback
    except ValueError:
        return False


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), else itself."""
    if isinstance(address, IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return inner
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def check_address(text: str, url: Url, *, private: bool) -> None:
    """Refuse an address that a host name must not lead to.

    Link-local, metadata, multicast and reserved addresses are refused always; loopback unless the
    URL itself says so, and then anything else is; private ones unless `private`.

    Args:
        text: an address as the resolver gave it, perhaps with a `%scope`.
        url: what is being asked.
        private: the host is the operator's own choice and may be inside the site.

    Raises:
        GridError: outcome `blocked`.
    """
    address = _unwrapped(ip_address(text.partition("%")[0]))
    if address.is_loopback:
        allowed = url.loopback
    elif url.loopback or address in _METADATA or _never_a_host(address):
        allowed = False
    else:
        inside = address.is_private or (isinstance(address, IPv4Address) and address in _SHARED)
        allowed = address.is_global or (private and inside)
    if not allowed:
        raise failure(
            Outcome.BLOCKED,
            f"{url.host} resolves to {address}, which a grid source must not be at",
        )


def _never_a_host(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or (isinstance(address, IPv4Address) and address in _THIS_NETWORK)
    )
