"""The web configuration file that Prometheus exporters share: TLS, client certificates, passwords.

Format and meaning follow the Prometheus exporter-toolkit's `docs/web-configuration.md`. Every
fault is reported at once, each with the file and its key's path; what OpenSSL through Python
cannot do is refused with a sentence, never ignored (`exporters/TLS.md` lists each key). Files are
looked at again at most once a second, so that renewed certificates and changed passwords need no
restart.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from wattledger.errors import ConfigError
from wattledger.model.web import WebConcern, WebStatus
from wattledger.units import NS_PER_S
from wattledger_exporters.tls import TlsSettings, read_tls
from wattledger_exporters.tls_context import make_context
from wattledger_exporters.watched import Watched
from wattledger_exporters.web_concerns import concerns_of
from wattledger_exporters.web_users import read_users
from wattledger_exporters.web_yaml import Faults, Scalar, flag, mapping, parse, text

log = logging.getLogger(__name__)

_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, section 5.5
_CHECK_S = 1.0
_DECIMAL = re.compile("0|[1-9][0-9]{0,8}")
# https://pkg.go.dev/time#ParseDuration
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([nuµμm]s|[smh])")
_DURATION = re.compile(f"(?:{_PART.pattern})+")


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says.

    Attributes:
        tls: None: plain HTTP.
        context: made from `tls`.
        certificate_until_ns: Unix time at which the server's certificate ends; 0: unknown.
        users: name → bcrypt hash; empty: no password is asked for.
        headers: to add to every answer.
        rate_interval_ns: requests are let in at most this often; 0: no limit.
        rate_burst: so many at once.
        concerns: what should be mended all the same.
    """

    tls: TlsSettings | None = None
    context: ssl.SSLContext | None = None
    certificate_until_ns: int = 0
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    rate_interval_ns: int = 0
    rate_burst: int = 0
    concerns: tuple[WebConcern, ...] = ()

    @property
    def asks_who(self) -> bool:
        """Nobody is let in without a password or a certificate of a known authority."""
        certified = self.context is not None and self.context.verify_mode is ssl.CERT_REQUIRED
        return certified or bool(self.users)


def load_web_config(path: Path, files: Watched | None = None) -> WebConfig:
    """Read and check the file, and load the certificates it names.

    Args:
        path: the file.
        files: reads it and what it names, and remembers them.

    Raises:
        ConfigError: all faults, each with the file, its key's path and the remedy.
    """
    files = files or Watched()
    try:
        raw = files.read(path)
    except OSError as error:
        who = "the daemon's user has to be able to, and who checks it (root)"
        fault = f"{path} cannot be read: {error.strerror}; {who}"
        raise ConfigError([("http.web_config", fault)], str(path)) from error
    document = parse(raw, path)
    faults: Faults = []
    known = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    sections = mapping(document, "", known, faults)
    http2, headers = _read_http(sections.get("http_server_config"), faults)
    tls = read_tls(sections.get("tls_server_config"), path.parent, http2=http2, faults=faults)
    users = read_users(sections.get("basic_auth_users"), faults)
    interval_ns, burst = _read_rate(sections.get("rate_limit"), faults)
    made = make_context(tls, files, faults) if tls is not None and not faults else None
    if faults:
        # The daemon's own configuration has keys too: whoever reads the line must know which file.
        named = [(f"{path}: {key}" if key else str(path), fault) for key, fault in faults]
        raise ConfigError(named, str(path))
    context, until_ns = made or (None, 0)
    concerns = tuple(concerns_of(path, tls, users.values()))
    return WebConfig(tls, context, until_ns, users, headers, interval_ns, burst, concerns)


def _read_http(value: object, faults: Faults) -> tuple[bool, tuple[tuple[str, str], ...]]:
    at = "http_server_config"
    section = mapping(value, at, ("http2", "headers"), faults)
    http2 = flag(section, "http2", at, faults, default=True)
    at = f"{at}.headers"
    headers = mapping(section.get("headers"), at, tuple(_HEADERS), faults)
    result = []
    for name in headers:
        allowed = _HEADERS.get(name)
        if allowed is None:
            continue
        given = text(headers, name, at, faults)
        # As Go writes them: a block of text in YAML ends in a line's end.
        line = given.replace("\r", " ").replace("\n", " ").strip(" \t")
        if _CONTROL.search(line):
            faults.append((f"{at}.{name}", "must not hold control characters"))
        elif allowed and given not in allowed:
            faults.append((f"{at}.{name}", f"must be one of: {', '.join(allowed)}"))
        elif line:
            # HTTP's headers are bytes; ASGI's texts are of Latin-1.
            result.append((str(name).lower(), line.encode().decode("latin-1")))
    return http2, tuple(result)


def _read_rate(value: object, faults: Faults) -> tuple[int, int]:
    at = "rate_limit"
    section = mapping(value, at, ("interval", "burst"), faults)
    interval_ns = _interval_ns(section.get("interval"), faults)
    number = section.get("burst")
    if number is None:
        burst = 0
    elif isinstance(number, Scalar) and number.kind == "int" and _DECIMAL.fullmatch(number):
        burst = int(number)
    else:
        faults.append((f"{at}.burst", "must be a whole number in decimal digits, 0 or more"))
        return interval_ns, 0
    if interval_ns and burst < 1:
        faults.append((f"{at}.burst", "must be 1 or more, else no request is ever let in"))
    return interval_ns, burst


def _interval_ns(value: object, faults: Faults) -> int:
    """A duration as Go writes them; a number without a unit would be nanoseconds there."""
    if value is None or value == "0":
        return 0
    if not isinstance(value, Scalar) or not _DURATION.fullmatch(value):
        said = 'must be a duration with its unit, such as "500ms" or "1m30s"; 0: no limit'
        faults.append(("rate_limit.interval", said))
        return 0
    parts = _PART.findall(value)
    return int(sum(Fraction(f"0{number}") * _UNITS_NS[unit] for number, unit in parts))


class LiveWebConfig:
    """The web configuration as it is now; follows its files. Used from one thread.

    Attributes:
        status: what is told of it; to be read from any thread.
    """

    def __init__(
        self,
        path: Path,
        now_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Load it.

        Raises:
            ConfigError: it has faults.
        """
        self._path = path
        self._now_s = now_s
        self._wall_ns = wall_ns
        self._files = Watched()
        self._config = load_web_config(path, self._files)
        self._checked_s = now_s()
        self.status = _status(self._config)

    @property
    def current(self) -> WebConfig:
        """The last good one; files are looked at again if that was over a second ago."""
        now_s = self._now_s()
        if now_s - self._checked_s >= _CHECK_S:
            self._checked_s = now_s
            self._follow()
        return self._config

    def _follow(self) -> None:
        now = self._files.look()
        if now == self._files.seen or not self._files.settled(now, self._wall_ns()):
            return
        files = Watched()
        try:
            config = load_web_config(self._path, files)
        except ConfigError as error:
            if files.look() != files.seen:
                return  # they are being replaced this very moment
            self.status = _status(self._config, error.message)
            log.warning(
                "The web configuration has faults, the one read before stays in force: %s",
                error.message,
            )
        else:
            self._config = config
            self.status = _status(config)
            log.info("%s or a certificate has changed and is in force now", self._path)
        self._files = files


def _status(config: WebConfig, fault: str = "") -> WebStatus:
    until_ns = config.certificate_until_ns
    return WebStatus(until_ns, fault, config.concerns, config.asks_who)
