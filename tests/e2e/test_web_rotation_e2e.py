"""A real Prometheus scrapes over mutual TLS while certificates and authorities are renewed."""

from __future__ import annotations

import datetime
from pathlib import Path

import trustme
import yaml

from e2e.engines import Engine, running
from serving import serving
from waiting import wait_until
from wattledger.model.web import WebStatus
from wattledger_exporters.certificate import not_after_ns

WEB = """
tls_server_config:
  cert_file: tls.crt
  key_file: tls.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus]
"""
UP = 'up{job="wattledger"}'
TOOK = 'scrape_duration_seconds{job="wattledger"}'
TIMEOUT_S = 1.0


class Volume:
    """A secret as Kubernetes mounts it: links by way of `..data`, swapped in one step."""

    def __init__(self, home: Path, authority: trustme.CA) -> None:
        self._home = home
        self._authority = authority
        self._number = 0
        self.publish(authority)
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (home / name).symlink_to(f"..data/{name}")

    def publish(self, *clients: trustme.CA) -> int:
        """Another certificate, and who signs clients'; when it ends, Unix time in ns."""
        self._number += 1
        folder = self._home / f"..{self._number}"
        folder.mkdir()
        end = datetime.datetime(2090, 1, self._number, tzinfo=datetime.UTC)  # tells them apart
        made = self._authority.issue_cert("localhost", not_after=end)
        pem = made.cert_chain_pems[0].bytes()
        (folder / "tls.crt").write_bytes(pem)
        (folder / "tls.key").write_bytes(made.private_key_pem.bytes())
        (folder / "ca.crt").write_bytes(b"".join(one.cert_pem.bytes() for one in clients))
        (self._home / "..new").symlink_to(folder.name)
        (self._home / "..new").rename(self._home / "..data")
        return not_after_ns(pem)


def configure(home: Path, port: str, authority: trustme.CA, client: trustme.CA) -> None:
    shown = client.issue_cert("prometheus")
    shown.private_key_pem.write_to_path(home / "client.key")
    shown.cert_chain_pems[0].write_to_path(home / "client.crt")
    authority.cert_pem.write_to_path(home / "server-ca.crt")
    job = {
        "job_name": "wattledger",
        "scheme": "https",
        "tls_config": {
            "ca_file": "server-ca.crt",
            "cert_file": "client.crt",
            "key_file": "client.key",
            "server_name": "localhost",
        },
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }
    every = {"scrape_interval": "1s", "scrape_timeout": f"{TIMEOUT_S:.0f}s"}
    (home / "prometheus.yml").write_text(yaml.safe_dump({"global": every, "scrape_configs": [job]}))


def refused(engine: Engine) -> list[str]:
    """When scrapes failed though there was time: a machine that is busy elsewhere is no fault."""

    def samples(query: str) -> dict[str, float]:
        (series,) = engine.ask("query", query=f"{query}[1h]")["result"]
        return {at: float(value) for at, value in series["values"]}

    ups = samples(UP)
    took_s = samples(TOOK)  # written together with `up`, and asked later: each has its own
    return [at for at, up in ups.items() if not up and took_s[at] < TIMEOUT_S]


def test_prometheus_misses_no_scrape(tmp_path: Path) -> None:
    authority, next_authority = trustme.CA(), trustme.CA()
    secret, home = tmp_path / "secret", tmp_path / "prometheus"
    secret.mkdir()
    home.mkdir()
    volume = Volume(secret, authority)
    (secret / "web.yml").write_text(WEB)
    with serving(web_config=secret / "web.yml") as it:
        port = it.server.address.rpartition(":")[2]
        configure(home, port, authority, authority)
        engine = Engine(home)
        listen = f"--web.listen-address={engine.url.removeprefix('http://')}"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", listen]

        def scrapes() -> float:
            return engine.value(f"sum_over_time({UP}[1h])") or 0.0

        def more(than: float) -> None:
            wait_until(lambda: scrapes() >= than + 3, 30, "Prometheus scrapes on")

        with running(command, home):
            wait_until(lambda: engine.value(UP) == 1, 30, "Prometheus scrapes")
            for clients in ((authority, next_authority), (authority,)):
                until_ns = volume.publish(*clients)
                wait_until(
                    lambda until_ns=until_ns: (
                        it.server.web_status == WebStatus(until_ns, asks_who=True)
                    ),  # type: ignore[misc]
                    30,
                    "the new certificate is in force",
                )
                more(scrapes())
            assert refused(engine) == []
            # Now its own certificate is nobody's any more, though its connection is open.
            volume.publish(next_authority)
            wait_until(lambda: refused(engine), 30, "Prometheus is kept out")
            configure(home, port, authority, next_authority)  # it reads its certificate each time
            wait_until(lambda: engine.value(UP) == 1, 30, "Prometheus is let in again")
