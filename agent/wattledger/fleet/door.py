"""One question to a Prometheus-compatible API: bounded in time, size and trust.

Under it are the grid's sockets (`wattledger.grid.wire`): total deadline, bounded body, no
redirects, no compression, no proxy of the environment. Unlike a grid source, what is asked here
was typed by whoever runs the command: plain http is allowed, but takes no password along.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from wattledger import __version__
from wattledger.errors import ConfigError, GridError, WattledgerError
from wattledger.fleet.reply import parsed, read_refusal, read_reply
from wattledger.grid.address import Url, check_url
from wattledger.grid.outcome import Outcome
from wattledger.grid.secret import Secret, read_token

if TYPE_CHECKING:
    from wattledger.grid.wire import Line

DEADLINE_S = 120.0
MAX_BYTES = 32 * 1024 * 1024
_REFUSAL_BYTES = 4096
_TENANT_CHARS = 150  # Mimir's limit

_HINTS = {
    Outcome.TIMEOUT: "ask for less (--since, a filter), or for longer with --deadline",
    Outcome.CONNECT_ERROR: "check the address and that it is up; no proxy is used",
    Outcome.TLS_ERROR: "name the authority of its certificate with --ca-file",
    Outcome.BLOCKED: "write the address itself, or localhost for this machine",
    Outcome.TOO_LARGE: "ask for less: --since, --manager, --match",
    Outcome.BAD_JSON: "check the address: it must be that of the API, with its path "
    "(such as https://host/prometheus)",
    Outcome.BAD_ENCODING: "check the address and any proxy on the way",
}


class Endpoint(NamedTuple):
    """Where to ask, and as whom.

    Attributes:
        url: the base, to which `/api/v1/query` is appended; without a slash at its end.
        where: the same, checked.
        secret_headers: names and values that nothing may show.
        headers: others, such as the tenant.
        ca_file: trust these certificates instead of the system's.
    """

    url: str
    where: Url
    secret_headers: Mapping[str, Secret]
    headers: Mapping[str, str]
    ca_file: Path | None


def endpoint(
    url: str,
    *,
    tenant: str = "",
    token_file: Path | None = None,
    basic_auth_file: Path | None = None,
    ca_file: Path | None = None,
) -> Endpoint:
    """Check what was typed.

    Args:
        url: http:// or https://, with a path where the API has one.
        tenant: of Mimir, Cortex or a Thanos receiver; empty: none.
        token_file: holds a bearer token.
        basic_auth_file: holds `user:password`.
        ca_file: certificates, PEM.

    Raises:
        ConfigError: it cannot be asked so; says why.
    """
    where = _checked(url)
    if token_file is not None and basic_auth_file is not None:
        raise ConfigError([("--basic-auth-file", "and --token-file exclude each other")])
    secrets: dict[str, Secret] = {}
    if token_file is not None:
        token = read_token(token_file, key="--token-file")
        secrets["Authorization"] = Secret(f"Bearer {token.reveal()}")
    if basic_auth_file is not None:
        pair = read_token(basic_auth_file, key="--basic-auth-file").reveal()
        if ":" not in pair:
            text = f"{basic_auth_file} does not hold user:password"
            raise ConfigError([("--basic-auth-file", text)])
        encoded = base64.b64encode(pair.encode()).decode()
        secrets["Authorization"] = Secret(f"Basic {encoded}")
    if secrets and where.scheme == "http" and not where.loopback:
        text = "plain http would show the password to the network: use https://"
        raise ConfigError([("--from", text)])
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError([("--ca-file", f"{ca_file} is not a file")])
    headers: dict[str, str] = {}
    if tenant:
        if len(tenant) > _TENANT_CHARS or not all(0x21 <= ord(char) <= 0x7E for char in tenant):
            raise ConfigError([("--tenant", "is not a tenant: printable ASCII without spaces")])
        headers["X-Scope-OrgID"] = tenant
    return Endpoint(url.rstrip("/"), where, secrets, headers, ca_file)


def _checked(text: str) -> Url:
    """As a grid source's, but plain http may go anywhere."""
    plain = text.lower().startswith("http://")
    try:
        if "?" in text or "#" in text:
            raise ValueError("write the address of the API without a query (?…)")
        url = check_url("https" + text[4:] if plain else text)
        port = urlsplit(text).port
    except ValueError as error:
        raise ConfigError([("--from", str(error))]) from None
    if not plain:
        return url
    return url._replace(scheme="http", port=80 if port is None else port)


class Door:
    """Asks one API. All its questions together end by one deadline.

    What the API says to be incomplete is kept in `warnings`, for whoever shows the answer.

    Args:
        endpoint: where and as whom.
        deadline_s: for all questions together.
        max_bytes: the largest reply taken.
        monotonic: the clock of the deadline, in seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        deadline_s: float = DEADLINE_S,
        max_bytes: int = MAX_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._deadline_s = deadline_s
        self._end_s = monotonic() + deadline_s
        self._line: Line | None = None  # kept from question to question; ends with the process
        self.warnings: dict[str, None] = {}  # each once, in the order they came

    @property
    def url(self) -> str:
        """The base that is asked; it holds no secret."""
        return self._endpoint.url

    def query(self, query: str, at_s: float | None = None) -> Any:
        """The `data` of an instant query.

        Args:
            query: PromQL.
            at_s: Unix seconds; None: the server's now.

        Raises:
            WattledgerError: there is no whole answer; says why and what to do.
        """
        # `nocache`: VictoriaMetrics else holds back the newest 30 s; others ignore it.
        asked = {"query": query, "nocache": "1"}
        return self._ask("query", asked if at_s is None else {**asked, "time": f"{at_s:.3f}"})

    def query_range(self, query: str, start_s: int, end_s: int, step_s: int) -> Any:
        """The `data` of a range query; see `query`."""
        asked = {"query": query, "start": str(start_s), "end": str(end_s), "nocache": "1"}
        return self._ask("query_range", {**asked, "step": str(step_s)})

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()

    def _ask(self, path: str, asked: Mapping[str, str]) -> Any:
        base = self._endpoint
        target = f"{base.where.target.rstrip('/')}/api/v1/{path}?{urlencode(asked)}"
        try:
            status, body = self._get(base.where._replace(target=target))
            if status != 200:
                raise read_refusal(base.where.origin, status, body)
            found = read_reply(parsed(body))
        except GridError as error:
            raise self._told(error) from None
        self.warnings |= dict.fromkeys(found.warnings)
        return found.data

    def _get(self, url: Url) -> tuple[int, bytes]:
        """Over the connection of the question before.

        One that is kept may be closed at any time, which is no failure of the API (RFC 9112,
        section 9.3.1): then it is asked once more.
        """
        from wattledger.grid import wire  # imports httpx and ssl

        base = self._endpoint
        kept = self._line is not None
        if self._line is None:
            self._line = wire.Line(
                base.where,
                max_bytes=self._max_bytes,
                private=True,
                resolve=None,
                ca_file=base.ca_file,
                proxy="",
                refusal_bytes=_REFUSAL_BYTES,
            )
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"wattledger/{__version__}",
            **base.headers,
            **{name: secret.reveal() for name, secret in base.secret_headers.items()},
        }
        while True:
            left_s = self._end_s - self._monotonic()
            if left_s <= 0:
                raise self._timeout()
            try:
                reply = self._line.get(url, headers, left_s)
            except GridError as error:
                if not kept or error.outcome != Outcome.CONNECT_ERROR:
                    raise
                kept = False
            else:
                return reply.status_code, reply.content

    def _timeout(self) -> WattledgerError:
        return WattledgerError(
            f"{self._endpoint.where.origin} did not answer in full within {self._deadline_s:g} s",
            _HINTS[Outcome.TIMEOUT],
        )

    def _told(self, error: GridError) -> WattledgerError:
        """What the sockets say, with the remedy of whoever typed the address."""
        if error.outcome == Outcome.TIMEOUT:
            return self._timeout()
        message = error.message.replace("which a grid source must not be at", "which is not asked")
        hint = _HINTS.get(Outcome(error.outcome), "") if error.outcome else ""
        return WattledgerError(message, hint or error.hint)
