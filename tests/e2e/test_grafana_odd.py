"""The dashboards of a fleet that is not as one wishes (`odd_fleet`), asked of a real Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.request import urlopen

import pytest

import dashboards
from dashboards import NAMES
from e2e.daemon import free_port
from e2e.engines import running
from e2e.fleet_nodes import BEGIN_S, GPU_IDLE_W
from e2e.grafana_values import values_of
from e2e.history import Prometheus, PrometheusApi
from e2e.odd_fleet import ANN, BEN, BRIEF, END_S, LENGTH_S, PLACES, Place, serve
from waiting import wait_until

pytestmark = pytest.mark.timeout(300)
ALPHA, BARE, BETA, IDLE = PLACES
Chosen = Mapping[str, Sequence[str]]
Row = tuple[dict[str, str], float]


@pytest.fixture(scope="module")
def odd_fleet(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[tuple[Prometheus, Mapping[Place, float]]]:
    need("prometheus", "promtool")
    rules = sorted((dashboards.GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
    prometheus, watts = serve(tmp_path_factory.mktemp("odd"), rules, dashboards.recorded())
    yield prometheus, watts
    prometheus.stop()


@pytest.fixture(scope="module")
def odd(odd_fleet: tuple[Prometheus, Mapping[Place, float]]) -> Prometheus:
    return odd_fleet[0]


@pytest.fixture(scope="module")
def watts(odd_fleet: tuple[Prometheus, Mapping[Place, float]]) -> Mapping[Place, float]:
    return odd_fleet[1]


def rows(odd: Prometheus, name: str, panel: str, ref: str = "A", **chosen: str) -> list[Row]:
    """What a query of a panel shows at the end."""
    board = dashboards.load(name)
    choices = {key: (value,) for key, value in chosen.items()}
    given = values_of(board, odd, choices)
    (found,) = [t for t in dashboards.targets(board) if (t.panel, t.ref) == (panel, ref)]
    return odd.at(dashboards.filled(found.expr, given, range_s=LENGTH_S), END_S)


def value(odd: Prometheus, name: str, panel: str, ref: str = "A", **chosen: str) -> float:
    """The one value that a query shows."""
    ((_, found),) = rows(odd, name, panel, ref, **chosen)
    return found


# ── the wall ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("chosen", "compared", "nodes"),
    [
        ({"cluster": "alpha"}, (ALPHA,), 1 / 2),
        ({"cluster": "beta"}, (BETA,), 1),
        ({"cluster": "idle"}, (IDLE,), 1),
        ({}, (ALPHA, BETA, IDLE), 3 / 4),
    ],
    ids=["half of the nodes", "a name that two clusters have", "IPv6", "all"],
)
@pytest.mark.parametrize("name", ["fleet", "node"])
def test_the_wall_is_compared_with_the_books_of_its_own_nodes(
    name: str,
    chosen: dict[str, str],
    compared: Sequence[Place],
    nodes: float,
    odd: Prometheus,
    watts: Mapping[Place, float],
) -> None:
    books = sum(watts[place] for place in compared)
    wall = books * 1.06 + 70 * len(compared)
    residual = value(odd, name, "Residual of the wall", **chosen)
    assert residual == pytest.approx(1 - books / wall, abs=0.004)
    assert value(odd, name, "Compared", **chosen) == pytest.approx(nodes)
    panel = "Books against the wall"
    stack = rows(odd, name, panel, "A", **chosen)
    assert {labels["payee"] for labels, _ in stack} == {"jobs", "idle", "system", "unattributed"}
    node = value(odd, name, panel, "B", **chosen)
    assert node == pytest.approx(books, rel=0.01)
    assert sum(watt for _, watt in stack) == pytest.approx(node)
    bmc = value(odd, name, panel, "C", **chosen)
    assert value(odd, name, panel, "D", **chosen) == pytest.approx(bmc - node)


@pytest.mark.parametrize("name", ["fleet", "node"])
def test_without_another_meter_the_books_stand_alone(
    name: str, odd: Prometheus, watts: Mapping[Place, float]
) -> None:
    chosen = {"cluster": "alpha", "instance": "gpu02:19400"}
    panel = "Books against the wall"
    stack = rows(odd, name, panel, "A", **chosen)
    assert sum(watt for _, watt in stack) == pytest.approx(watts[BARE], rel=1e-6)
    assert value(odd, name, panel, "B", **chosen) == pytest.approx(watts[BARE], rel=1e-6)
    assert rows(odd, name, panel, "C", **chosen) == rows(odd, name, panel, "D", **chosen) == []
    assert value(odd, name, "Compared", "A", **chosen) == 0
    assert value(odd, name, "Compared", "B", **chosen) == 0


def test_gpus_are_compared_with_dcgm_s_of_the_same_gpus(odd: Prometheus) -> None:
    """Only beta has dcgm-exporter, whose values lie within a percent of the books."""
    alone = value(odd, "fleet", "GPU power: books less DCGM", cluster="beta")
    assert abs(alone) < 0.011
    assert value(odd, "fleet", "GPU power: books less DCGM") == pytest.approx(alone)
    assert rows(odd, "fleet", "GPU power: books less DCGM", cluster="alpha") == []
    assert value(odd, "fleet", "Compared", "B") == pytest.approx(4 / 16)
    panel = "GPUs: books beside DCGM"
    books, dcgm, residual = (value(odd, "node", panel, ref) for ref in "ABC")
    assert (books, dcgm) == (pytest.approx(4 * GPU_IDLE_W), pytest.approx(books, rel=0.011))
    assert residual == pytest.approx(books - dcgm)
    assert value(odd, "node", panel, "A", cluster="idle") == pytest.approx(4 * GPU_IDLE_W)


# ── two clusters that are alike ─────────────────────────────────────────────────────────────────

BOTH = {("alpha", "slurm", "7"), ("beta", "slurm", "7"), ("beta", "slurm", "8")}
JOB_PANELS = [
    ("fleet", "Jobs", "A"),
    ("fleet", "Jobs", "B"),
    ("fleet", "Jobs", "C"),
    ("fleet", "Jobs", "D"),
    ("fleet", "Jobs", "E"),
    ("users", "Held idle by job", "A"),
    ("job", "Nodes of the job", "A"),
]


@pytest.mark.parametrize(("name", "panel", "ref"), JOB_PANELS)
def test_jobs_of_two_clusters_are_not_mixed(
    name: str, panel: str, ref: str, odd: Prometheus
) -> None:
    found = [labels for labels, _ in rows(odd, name, panel, ref)]
    keys = [(one.get("cluster"), one["manager"], one["job_id"]) for one in found]
    assert (len(keys), set(keys)) == (3, BOTH)


def test_each_cluster_s_job_has_its_own_figures(odd: Prometheus) -> None:
    found = {
        (labels.get("cluster"), labels["job_id"]): kwh for labels, kwh in rows(odd, "fleet", "Jobs")
    }
    for cluster in ("alpha", "beta"):
        alone = value(odd, "job", "IT energy", cluster=cluster, job_id="7")
        assert found[cluster, "7"] == pytest.approx(alone)
    assert found["alpha", "7"] > 3 * found["beta", "7"]
    assert value(odd, "fleet", "Jobs running") == 2


def test_nodes_of_two_clusters_are_not_mixed(odd: Prometheus, watts: Mapping[Place, float]) -> None:
    found = {
        (labels.get("cluster"), labels["instance"]): watt
        for labels, watt in rows(odd, "fleet", "Nodes that draw the most")
    }
    assert found == {
        (place.cluster, place.instance): pytest.approx(watts[place]) for place in PLACES
    }
    devices = rows(odd, "node", "Devices", "A", instance="gpu01")
    assert len({tuple(labels.items()) for labels, _ in devices}) == len(devices) == 9


# ── a label that comes late ─────────────────────────────────────────────────────────────────────


def test_a_job_whose_user_was_learnt_late_is_one_job_of_its_user(odd: Prometheus) -> None:
    shown = rows(odd, "fleet", "Jobs", "E", cluster="alpha")
    assert [(labels.get("user"), labels.get("name")) for labels, _ in shown] == [("ann", "dock")]
    for ref in "CD":
        users = {labels.get("user") for labels, _ in rows(odd, "users", "Users", ref)}
        assert users == {"ann", "ben"}
    idle_kwh = {labels["user"]: kwh for labels, kwh in rows(odd, "users", "Users", "C")}
    idle_s = LENGTH_S - BEN.busy_until_s
    assert idle_kwh["ben"] == pytest.approx(2 * GPU_IDLE_W * idle_s / 3.6e6, rel=0.1)


# ── nobody does anything ────────────────────────────────────────────────────────────────────────

WITHOUT_JOBS = {
    "fleet": {"Jobs", "GPU power: books less DCGM"},
    "node": {"Jobs", "Power by job", "GPU power: books less DCGM", "GPUs: books beside DCGM"},
    "users": {
        "Energy of all users",
        "CO2e of all users",
        "Held idle of all jobs' energy",
        "Energy by user",
        "CO2e by account",
        "Held idle by job",
        "Held idle power",
        "Energy by manager",
        "Users",
    },
    "footprint": set[str](),
    "health": set[str](),
}
"""What has nothing to show where there is no job, and no DCGM. Everything else has."""


@pytest.mark.parametrize("name", WITHOUT_JOBS)
def test_an_idle_fleet_is_shown_as_idle(name: str, odd: Prometheus) -> None:
    board = dashboards.load(name)
    given = {"cluster": "idle", "job": ".+", "instance": ".+", "manager": ".+", "user": ".*"}
    empty = set()
    for found in dashboards.targets(board):
        series = odd.at(dashboards.filled(found.expr, given, range_s=LENGTH_S), END_S)
        assert all(math.isfinite(one) for _, one in series), found
        if not series:
            empty.add(found.panel)
    assert empty - {"Devices"} == WITHOUT_JOBS[name]  # of the devices, what is held is empty


@pytest.mark.parametrize(
    ("name", "panel", "shown"),
    [
        ("fleet", "GPUs held by jobs", 0),
        ("fleet", "Jobs running", 0),
        ("fleet", "Held idle now", 0),
        ("fleet", "Energy for jobs", 0),
        ("node", "Jobs on the node", 0),
        ("node", "GPUs that nobody holds", 4),
    ],
)
def test_nothing_is_zero_where_daemons_answer(
    name: str, panel: str, shown: float, odd: Prometheus
) -> None:
    assert value(odd, name, panel, cluster="idle") == shown


def test_a_node_that_holds_nothing_is_shown(odd: Prometheus) -> None:
    found = {
        (labels.get("cluster"), labels["instance"]): share
        for labels, share in rows(odd, "users", "GPUs held, by node")
    }
    shares = {ALPHA: 1, BARE: 0, BETA: 0.5, IDLE: 0}
    assert found == {(place.cluster, place.instance): shares[place] for place in PLACES}


@pytest.mark.parametrize("name", ["fleet", "node", "users"])
def test_what_is_not_known_is_not_zero(name: str, odd: Prometheus) -> None:
    """An hour later no daemon answers: no figure says that there is nothing."""
    given = dict.fromkeys(("cluster", "job", "instance", "manager", "user"), ".*")
    for found in dashboards.targets(dashboards.load(name)):
        expr = dashboards.filled(found.expr, given, range_s=60)
        assert odd.at(expr, END_S + 3600) == [], (found.panel, found.ref)


# ── another engine ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def victoria(
    odd: Prometheus, need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusApi]:
    """A VictoriaMetrics that holds the same samples."""
    need("victoria-metrics")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["victoria-metrics", "-storageDataPath=data", "-retentionPeriod=100y",
               f"-httpListenAddr={url.removeprefix('http://')}", "-memory.allowedBytes=64MiB",
               "-search.latencyOffset=1ms", "-search.maxStalenessInterval=5m"]  # fmt: skip
    with running(command, tmp_path_factory.mktemp("victoria")):
        api = PrometheusApi(url)
        wait_until(lambda: answers(url), 30, "VictoriaMetrics answers")
        lines = (odd.home.parent / "fleet.openmetrics").read_text().splitlines()
        samples = "".join(f"{line}000\n" for line in lines if line[0] != "#")  # milliseconds
        with urlopen(f"{url}/api/v1/import/prometheus", samples.encode(), timeout=30):
            pass
        with urlopen(f"{url}/internal/force_flush", timeout=30):
            yield api


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("cluster", ["alpha", "beta", "idle", ".*"])
@pytest.mark.parametrize("name", NAMES)
def test_victoriametrics_shows_the_same_series(
    name: str, cluster: str, odd: Prometheus, victoria: PrometheusApi
) -> None:
    given = dict.fromkeys(("job", "instance", "manager", "job_id", "user"), ".*")
    for target in dashboards.targets(dashboards.load(name)):
        if any(recorded in target.expr for recorded in dashboards.recorded()):
            continue  # nothing recorded here
        expr = dashboards.filled(target.expr, {**given, "cluster": cluster}, range_s=LENGTH_S)
        ours, theirs = (
            sorted(sorted(labels.items()) for labels, _ in engine.at(expr, END_S))
            for engine in (odd, victoria)
        )
        assert theirs == ours, f"{target.panel} {target.ref}: {expr}"


# ── marks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["node", "job"])
def test_a_missed_scrape_marks_no_job(name: str, odd: Prometheus) -> None:
    board = dashboards.load(name)
    given = values_of(board, odd, {})
    found = {}
    for event in board["annotations"]["list"]:
        asked = {"query": dashboards.filled(event["expr"], given), "step": 60}
        data = odd.ask("query_range", {**asked, "start": BEGIN_S, "end": END_S})
        found[event["name"]] = {
            (row["metric"].get("cluster"), row["metric"]["job_id"], at - BEGIN_S)
            for row in data["result"]
            for at, _ in row["values"]
        }
    begun = (("alpha", ANN), ("beta", BEN), ("beta", BRIEF))
    assert found["Job starts"] == {(cluster, plan.job_id, plan.begin_s) for cluster, plan in begun}
    # Of a file of samples Prometheus looks back five minutes; a scrape says that a series ended.
    ((cluster, job_id, at_s),) = found["Job ends"]
    assert (cluster, job_id) == ("beta", "8")
    assert BRIEF.end_s is not None
    assert 0 <= at_s - BRIEF.end_s <= 420
