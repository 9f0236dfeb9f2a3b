"""The web configuration file that Prometheus exporters share: TLS, client certificates, passwords.

Format and meaning follow the Prometheus exporter-toolkit's `docs/web-configuration.md`. Every
fault is reported at once, each with the file and its key's path; what OpenSSL through Python
cannot do is refused with a sentence, never ignored. Files are looked at again at most once a
second, so that renewed certificates and changed passwords need no restart.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattledger.errors import ConfigError
from wattledger.units import parse_duration_ns
from wattledger_exporters.tls import TlsSettings, make_context, read_tls

log = logging.getLogger(__name__)

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_CHECK_S = 1.0

Faults = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says.

    Attributes:
        tls: None: plain HTTP.
        context: made from `tls`.
        users: name → bcrypt hash; empty: no password is asked for.
        headers: to add to every answer.
        rate_interval_ns: requests are let in at most this often; 0: no limit.
        rate_burst: so many at once.
        files: everything that was read, to be watched.
    """

    tls: TlsSettings | None = None
    context: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    rate_interval_ns: int = 0
    rate_burst: int = 0
    files: tuple[Path, ...] = ()


def load_web_config(path: Path) -> WebConfig:
    """Read and check the file, and load the certificates it names.

    Raises:
        ConfigError: all faults, each with the file, its key's path and the remedy.
    """
    document = _read_yaml(path)
    faults: Faults = []
    known = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    sections = mapping(document, "", known, faults)
    tls = None
    if sections.get("tls_server_config") is not None:
        tls = read_tls(sections["tls_server_config"], path.parent, faults)
    headers = _read_http(sections.get("http_server_config"), faults)
    users = _read_users(sections.get("basic_auth_users"), faults)
    interval_ns, burst = _read_rate(sections.get("rate_limit"), faults)
    context = make_context(tls, faults) if tls is not None and not faults else None
    if faults:
        # The daemon's own configuration has keys too: whoever reads the line must know which file.
        named = [(f"{path}: {key}" if key else str(path), fault) for key, fault in faults]
        raise ConfigError(named, str(path))
    files = (path, *(tls.files if tls else ()))
    return WebConfig(tls, context, users, headers, interval_ns, burst, files)


def mapping(value: object, at: str, known: tuple[str, ...], faults: Faults) -> dict[str, Any]:
    """The mapping at a key's path ("": the file); what is not one, and unknown keys, are faults."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append((at, "must be a mapping of keys to values"))
        return {}
    prefix = f"{at}." if at else ""
    for key in value:
        if key not in known:
            faults.append((f"{prefix}{key}", f"is not known; known here: {', '.join(known)}"))
    return value


def _read_yaml(path: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fault = f"{path} cannot be read: {error.strerror}; name a file that this user may read"
    except UnicodeDecodeError:
        fault = f"{path} is not UTF-8 text"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        # The parser's own message may quote the line, and with it a secret.
        fault = f"{path} is not YAML: {getattr(error, 'problem', None) or 'a fault'}{where}"
    except RecursionError:
        fault = f"{path} is nested too deeply"
    raise ConfigError([("http.web_config", fault)], str(path))


def _read_http(value: object, faults: Faults) -> tuple[tuple[str, str], ...]:
    at = "http_server_config"
    section = mapping(value, at, ("http2", "headers"), faults)
    if not isinstance(section.get("http2", True), bool):
        faults.append((f"{at}.http2", "must be true or false (HTTP/1.1 is served in either case)"))
    headers = mapping(section.get("headers"), f"{at}.headers", tuple(_HEADERS), faults)
    result = []
    for name, text in headers.items():
        allowed = _HEADERS.get(name)
        if allowed is None:
            continue
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            faults.append((f"{at}.headers.{name}", "must be one line of ASCII text"))
        elif allowed and text not in allowed:
            faults.append((f"{at}.headers.{name}", f"must be one of: {', '.join(allowed)}"))
        elif text:
            result.append((name.lower(), text))
    return tuple(result)


def _read_users(value: object, faults: Faults) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append(("basic_auth_users", "must be a mapping of names to bcrypt hashes"))
        return {}
    for name, hashed in value.items():
        if not isinstance(name, str) or ":" in name:
            faults.append((f"basic_auth_users.{name}", "a name is text without a colon; quote it"))
        elif not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
            faults.append(
                (
                    f"basic_auth_users.{name}",
                    "is not a bcrypt hash; `htpasswd -nBC 10 \"\" | tr -d ':\\n'` makes one",
                )
            )
    return value


def _read_rate(value: object, faults: Faults) -> tuple[int, int]:
    at = "rate_limit"
    section = mapping(value, at, ("interval", "burst"), faults)
    interval_ns, burst = 0, section.get("burst", 0)
    text = str(section.get("interval", "0s"))
    try:
        interval_ns = 0 if text == "0" else parse_duration_ns(text)
    except ValueError as error:
        faults.append((f"{at}.interval", str(error)))
    if isinstance(burst, bool) or not isinstance(burst, int) or burst < 0:
        faults.append((f"{at}.burst", "must be a whole number, 0 or more"))
    elif interval_ns and burst < 1:
        faults.append((f"{at}.burst", "must be 1 or more, else no request is ever let in"))
    return interval_ns, burst


class LiveWebConfig:
    """The web configuration as it is now; follows its files. Used from one thread."""

    def __init__(self, path: Path, now_s: Callable[[], float] = time.monotonic) -> None:
        """Load it.

        Raises:
            ConfigError: it has faults.
        """
        self._path = path
        self._now_s = now_s
        self._config = load_web_config(path)
        self._seen = self._look()
        self._checked_s = now_s()

    @property
    def current(self) -> WebConfig:
        """The last good one; files are looked at again if that was over a second ago."""
        now_s = self._now_s()
        if now_s - self._checked_s >= _CHECK_S:
            self._checked_s = now_s
            self._follow()
        return self._config

    def _follow(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._config = load_web_config(self._path)
        except ConfigError as error:
            log.warning(
                "The web configuration has faults, the one read before stays in force: %s",
                error.message,
            )
        else:
            log.info("%s or a certificate has changed and is in force now", self._path)

    def _look(self) -> tuple[object, ...]:
        looks: list[object] = []
        for path in self._config.files:
            try:
                stat = path.stat()
            except OSError as error:
                looks.append(error.errno)
            else:
                looks.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(looks)
