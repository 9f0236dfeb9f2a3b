"""The settings of the exporter `otlp`, and what they may not say."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from wattledger.setting import DurationNs, FilePath, Url, s_ns, setting
from wattledger.units import NS_PER_S

NEEDS = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
MOST_TIMEOUT_NS = 30 * NS_PER_S
INSTALL = "pip install 'wattledger[otlp]'; of the package: make deb EXTRAS=otlp,parquet"


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Push by OTLP, OpenTelemetry's protocol: metrics, and each ended run as one log record."""

    endpoint: Url = setting(
        Url(""),
        "Base address of the receiver; /v1/metrics and /v1/logs are added. Plain http only to "
        "loopback: a collector on the node.",
        '"https://collector.example.org:4318"',
    )
    protocol: Literal["http/protobuf"] = setting(
        "http/protobuf", "OTLP's transport and encoding; there is this one."
    )
    metrics: bool = setting(True, "Push the metrics of the page.")
    interval: DurationNs = setting(s_ns(60), "How often the metrics are pushed.")
    runs: bool = setting(
        True,
        "Push each run that has ended, as one record. It waits in the ledger until the receiver "
        "has acknowledged it, over restarts and outages of any length.",
    )
    timeout: DurationNs = setting(
        s_ns(10), "How long a request may take, its tries again included: from 0.1s to 30s."
    )
    compression: Literal["gzip", "none"] = setting("gzip", "How requests are packed.")
    headers_file: FilePath = setting(
        FilePath(""),
        "A file of headers for each request, `Name: value` on each line; readable by the "
        "daemon's user only, read anew each time. `%d/NAME` is a credential of systemd's.",
        '"%d/otlp-headers"',
    )
    ca_file: FilePath = setting(
        FilePath(""),
        "Certificates (PEM) that the receiver's is checked by. Not set: those that the package "
        "certifi brings.",
        '"/etc/ssl/certs/ca-certificates.crt"',
    )
    client_certificate_file: FilePath = setting(
        FilePath(""), "The node's own certificate (PEM), where the receiver asks for one.", '""'
    )
    client_key_file: FilePath = setting(FilePath(""), "Its key (PEM).", '""')
    proxy: Url = setting(
        Url(""),
        "The HTTP proxy to ask through. Not set: none, whatever the environment says.",
        '"http://proxy.example.org:3128"',
    )
    instance_id: str = setting(
        "",
        "`service.instance.id` of the node. Not set: `$NODE_NAME`, else the host name.",
        '"rack7-node03"',
    )


def settings_faults(
    settings: OtlpSettings, find: Callable[[str], Any] = find_spec
) -> Sequence[tuple[str, str]]:
    """What the settings may not say, and what they need.

    Args:
        settings: of the table.
        find: tells whether a module is installed.
    """
    found: list[tuple[str, str]] = []
    missing = [name for name in NEEDS if not _is_there(name, find)]
    if missing:
        found.append(("", f"needs {' and '.join(missing)}, not installed here; {INSTALL}"))
    if not settings.endpoint:
        found.append(("endpoint", 'is missing; write one such as "https://collector:4318"'))
    elif settings.endpoint.startswith("http:") and not is_loopback(settings.endpoint):
        found.append(("endpoint", "is plain http to another machine; write https, or a loopback"))
    if not NS_PER_S <= settings.interval <= 3600 * NS_PER_S:
        found.append(("interval", 'is not from "1s" to "1h"'))
    if not NS_PER_S // 10 <= settings.timeout <= MOST_TIMEOUT_NS:
        found.append(("timeout", 'is not from "100ms" to "30s"'))
    if not settings.metrics and not settings.runs:
        found.append(
            ("metrics", "is off, as runs is: nothing would be pushed; leave the table out")
        )
    if bool(settings.client_key_file) != bool(settings.client_certificate_file):
        found.append(("client_key_file", "and client_certificate_file are given both or neither"))
    for key in ("ca_file", "client_certificate_file"):
        file = getattr(settings, key)
        if file and not Path(file).is_file():
            found.append((key, f"{file} is no file"))
    return found


def _is_there(name: str, find: Callable[[str], Any]) -> bool:
    try:
        return find(name) is not None
    except (ImportError, ValueError):  # one of its parents is not there
        return False


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine's loopback, by its own text."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
