"""The ServiceMonitor's labels, by a real Prometheus: a replaced pod goes on in the same series."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.kustomized import kustomized
from e2e.daemon import Daemon, free_port
from e2e.scraping import Scraper
from waiting import wait_until

COMPONENT = Path(__file__).parents[2] / "deploy/kubernetes/components/prometheus-operator"
CONFIG = 'sampling = { interval = "0.2s", commit_interval = "0.4s", allow_fine_grained = true }\n'


def scrape_config(monitor: dict[str, Any], targets: list[tuple[str, str]]) -> dict[str, Any]:
    """As the Prometheus operator makes it of a ServiceMonitor.

    Its own relabelings come first and set these target labels (prometheus-operator,
    pkg/prometheus/promcfg.go, generateServiceMonitorConfig); here they are there from the start.
    """
    (endpoint,) = monitor["spec"]["endpoints"]
    return {
        "job_name": "wattledger",
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        "relabel_configs": [
            {
                {"sourceLabels": "source_labels", "targetLabel": "target_label"}.get(
                    key, key
                ): value
                for key, value in rule.items()
            }
            for rule in endpoint["relabelings"]
        ],
        "static_configs": [
            {
                "targets": [address],
                "labels": {
                    "__meta_kubernetes_pod_node_name": "gpu01",
                    "namespace": "wattledger",
                    "service": "wattledger",
                    "pod": pod,
                    "container": "wattledger",
                    "endpoint": "http",
                },
            }
            for address, pod in targets
        ],
    }


def test_a_replaced_pod_goes_on_in_the_same_series(
    tmp_path: Path, need: Callable[..., None], as_root: None
) -> None:
    need("prometheus", "promtool")
    (monitor,) = [one for one in kustomized(COMPONENT) if one["kind"] == "ServiceMonitor"]
    with Daemon(tmp_path / "d", CONFIG + "meters.other.watts = 100\n") as daemon:
        daemon.start()
        old, new = f"127.0.0.1:{daemon.port}", f"127.0.0.1:{free_port()}"
        server = Scraper("prometheus", tmp_path / "prometheus", [(old, {})])
        file = tmp_path / "prometheus" / "scrape.yml"
        whole = json.loads(file.read_text())
        whole["scrape_configs"] = [
            scrape_config(monitor, [(old, "wattledger-old"), (new, "wattledger-new")])
        ]
        # Its rules are Prometheus' own.
        (rule,) = [one for one in kustomized(COMPONENT) if one["kind"] == "PrometheusRule"]
        (tmp_path / "rules.yml").write_text(json.dumps(rule["spec"]))
        whole["rule_files"] = [str(tmp_path / "rules.yml")]
        file.write_text(json.dumps(whole))
        checked = subprocess.run(
            ["promtool", "check", "config", str(file)], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with server:
            energy = 'wattledger_energy_joules_total{device="other"}'
            first = wait_until(lambda: server.query(energy), 20, "it is scraped")
            daemon.terminate()
            daemon.port = int(new.rpartition(":")[2])  # the new pod has another address
            daemon.start()
            before = float(first[0]["value"][1])
            wait_until(
                lambda: any(float(s["value"][1]) > before + 50 for s in server.query(energy)),
                20,
                "the new pod is scraped",
            )
            (series,) = server.query(f"count by (instance) (last_over_time({energy}[5m]))")
            assert series["value"][1] == "1"
            (labels,) = [one["metric"] for one in server.query(f"last_over_time({energy}[5m])")]
            assert labels == {
                "__name__": "wattledger_energy_joules_total",
                "instance": "gpu01",
                "job": "wattledger",
                "device": "other",
                "kind": "other",
            } or labels == {
                "instance": "gpu01",
                "job": "wattledger",
                "device": "other",
                "kind": "other",
            }
