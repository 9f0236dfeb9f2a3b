"""A fixed snapshot: four GPUs (one gone), two CPUs, DRAM, an estimated `other`, a grid fallback."""

from __future__ import annotations

from dataclasses import replace

from wattledger.model import (
    Amounts,
    Basis,
    Books,
    DeviceInfo,
    DeviceRecord,
    FallbackLevel,
    GridChoice,
    GridSignal,
    Kind,
    LedgerStatus,
    MeterStatus,
    PayeeKind,
    Quality,
    SiteFactors,
    Snapshot,
    SourceStatus,
    Total,
    TotalKey,
    TotalsRow,
)
from wattledger.model.embodied import Embodied, rates_of
from wattledger.model.exporting import Backlog, ExporterStatus
from wattledger.model.jobbooks import Cell, JobBooks, PastRuns, RunBook, UserKey
from wattledger.model.jobs import Held, Holding, JobKey, JobRun, KindBasis, job_payee
from wattledger.model.market import Contract, Market
from wattledger.model.sums import NODE_NOTE, Sums, Weighed, write_node
from wattledger.model.web import WebStatus
from wattledger.units import NS_PER_S, UJ_PER_KWH

NOW_NS = 1_800_000_000 * NS_PER_S  # 2027-01-15T08:00:00Z
EPOCH_NS = NOW_NS - 86_400 * NS_PER_S
GPU = "GPU-0000000{}-1111-2222-3333-444444444444"
MODEL = "NVIDIA H100 80GB HBM3"


def device(name: str, kind: Kind, meter: str, index: int = 0, **more: object) -> DeviceInfo:
    return replace(DeviceInfo(name, kind, meter, str(index)), **more)  # type: ignore[arg-type]


def devices(gpus: int = 4, gone: int = 3) -> list[DeviceInfo]:
    """`gpus` GPUs of which number `gone` has left, two CPUs with DRAM, and `other`."""
    return [
        *(
            device(
                GPU.format(i) if i < 10 else f"GPU-{i}",
                Kind.GPU,
                "nvml",
                i,
                model=MODEL,
                pci=f"00000000:{i:02X}:00.0",
                present=i != gone,
            )
            for i in range(gpus)
        ),
        *(device(f"cpu{i}", Kind.CPU, "rapl", i, model="package-0") for i in range(2)),
        *(device(f"dram{i}", Kind.DRAM, "rapl", i) for i in range(2)),
        device("other", Kind.OTHER, "constant"),
    ]


def amounts(energy_uj: int) -> Amounts:
    """Amounts at PUE 1.56, 400 g/kWh, WUE 0.36 and EWIF 3.1 L/kWh."""
    return Amounts(
        energy_uj,
        energy_uj * 156 * 400 * 1_000_000 // (100 * UJ_PER_KWH),
        energy_uj * 360_000 // UJ_PER_KWH,
        energy_uj * 156 * 3_100_000 // (100 * UJ_PER_KWH),
    )


def books(infos: list[DeviceInfo]) -> Books:
    totals: dict[TotalKey, Total] = {}
    records: dict[str, DeviceRecord] = {}
    for i, info in enumerate(infos):
        quality = Quality.ESTIMATED if info.kind is Kind.OTHER else Quality.METERED
        base_uj = (i + 1) * 3_600_000_123_457
        for payee, share in ((PayeeKind.IDLE, 7), (PayeeKind.UNATTRIBUTED, 2)):
            key = TotalKey(info.name, payee, quality, Basis.LIFECYCLE)
            totals[key] = Total(amounts(base_uj * share // 9), EPOCH_NS + i * NS_PER_S)
        if i == 0:  # recovered after a restart, while another source was in force
            key = TotalKey(info.name, PayeeKind.UNATTRIBUTED, Quality.RECOVERED, Basis.DIRECT)
            totals[key] = Total(amounts(1_000_001), EPOCH_NS + 60 * NS_PER_S)
        records[info.name] = DeviceRecord(info, unobserved_ms=1500 * i, resets=i % 2)
    return Books(
        epoch="6f1c0f0e-0000-4000-8000-000000000001",
        epoch_start_ns=EPOCH_NS,
        totals=totals,
        devices=records,
        signals=(),
        notes={NODE_NOTE: write_node(node_sums())},
        books_ns=NOW_NS - 2 * NS_PER_S,
        commits=17_280,
    )


def node_sums() -> dict[Kind, Sums]:
    """Two currencies, contracts, and hardware of which something is known."""
    gpu = Sums(
        {
            "EUR": Weighed(3 * UJ_PER_KWH * 1_560_000 * 250_000, 3 * UJ_PER_KWH),
            "CHF": Weighed(UJ_PER_KWH * 1_560_000 * 300_000, UJ_PER_KWH),
        },
        Weighed(4 * UJ_PER_KWH * 1_560_000 * 240_000_000, 4 * UJ_PER_KWH),
        embodied_fg=123_456_789_000_000_000,
    )
    cpu = Sums({"EUR": Weighed(UJ_PER_KWH * 1_560_000 * 250_000, UJ_PER_KWH)})
    return {Kind.GPU: gpu, Kind.CPU: cpu, Kind.OTHER: Sums(embodied_fg=10**17)}


JOB_LABELS = ("name", "user", "account")


def job_books() -> JobBooks:
    """A job of two runs, one that ended, one of somebody else, and one without a series."""
    gpu, cpu = KindBasis(Kind.GPU, Basis.LIFECYCLE), KindBasis(Kind.CPU, Basis.DIRECT)
    runs = {}
    for number, (job_id, uid, end_s) in enumerate(
        [("4711", 1001, 0), ("4712", 1002, NOW_NS // NS_PER_S - 60), ("4713", 1003, 0)]
    ):
        start_ns = EPOCH_NS + number * 3600 * NS_PER_S
        run = JobRun(
            job_payee("slurm", job_id, start_ns),
            uid=uid,
            labels={"user": f"user{uid}", "account": "physics", "name": 'a "job"\n\\ of mine'},
            holdings=() if end_s else (Holding(GPU.format(number), 500_000, exact=False),),
            last_seen_ns=NOW_NS,
            end_ns=end_s * NS_PER_S,
        )
        cells = {
            gpu: Cell(amounts((number + 1) * UJ_PER_KWH), Held(7_200_000, 1_800_000, 12_345_678)),
            cpu: Cell(amounts((number + 1) * 360_000_000_001)),
        }
        runs[run.payee] = RunBook(run, cells, start_ns + NS_PER_S)
    past = PastRuns({gpu: Cell(amounts(1_000_000))}, EPOCH_NS)
    return JobBooks(
        runs=runs,
        past={JobKey("slurm", "4711"): past},
        unlisted=frozenset([JobKey("slurm", "4713")]),
        unlisted_total=runs[max(runs)].cells,
        unlisted_count=1,
        users={
            UserKey("slurm", "user1001", "physics"): amounts(UJ_PER_KWH),
            UserKey("slurm", "user1001", "maths"): amounts(2 * UJ_PER_KWH),
        },
    )


def with_jobs(**changes: object) -> Snapshot:
    """The same node with jobs on it."""
    whole = snapshot()
    power = {JobKey("slurm", "4711"): 350_000_000}
    whole = replace(whole, books=replace(whole.books, jobs=job_books()), job_power_uw=power)
    return replace(whole, **changes)  # type: ignore[arg-type]


def snapshot(infos: list[DeviceInfo] | None = None, **changes: object) -> Snapshot:
    infos = devices() if infos is None else infos
    signal = GridSignal(
        intensity_ug_per_kwh=400_500_000,
        zone="GB",
        source="neso",
        basis=Basis.LIFECYCLE,
        valid_from_ns=NOW_NS - 7_200 * NS_PER_S,
        valid_to_ns=NOW_NS - 5_400 * NS_PER_S,
        estimated=False,
        fetched_at_ns=NOW_NS - 7_000 * NS_PER_S,
        cadence_ns=1_800 * NS_PER_S,
    )
    whole = Snapshot(
        at_ns=NOW_NS,
        books=books(infos),
        power_uw={info.name: (i + 1) * 61_500_000 for i, info in enumerate(infos) if info.present},
        quality={
            info.name: Quality.ESTIMATED if info.kind is Kind.OTHER else Quality.METERED
            for info in infos
            if info.present
        },
        counter_power_ratio={
            info.name: 1.0 + i / 1000
            for i, info in enumerate(infos)
            if info.kind is Kind.GPU and info.present
        },
        meters=(
            MeterStatus("nvml", True, NOW_NS - NS_PER_S, {"gpu_is_lost": 1}, missed_ticks=2),
            MeterStatus("cpu", True, NOW_NS - NS_PER_S, {}),
            MeterStatus(
                "hwmon",
                False,
                0,
                {"permission": 3},
                message="/sys/class/hwmon/hwmon3/power1_average may not be read",
                hint="run it as root, or grant CAP_DAC_READ_SEARCH",
            ),
        ),
        grid=GridChoice(signal, FallbackLevel.LAST_GOOD, estimated=True),
        sources=(
            SourceStatus(
                "neso",
                {"ok": 40, "timeout": 3},
                last_success_ns=NOW_NS - 7_000 * NS_PER_S,
                last_signal=signal,
                message="api.carbonintensity.org.uk did not answer within 10 s",
                hint="check the network, or set grid.proxy",
            ),
        ),
        site=SiteFactors(
            *(1_560_000, "default", 360_000, "default", 3_100_000, "table"),
            price_per_kwh=0.25,
            market=Market((Contract("wind", 400_000, 11_000_000),)),
            water_stress_factor=1.8,
        ),
        embodied=rates_of(Embodied(), infos),
        ledger=LedgerStatus(
            storage="disk",
            path="/var/lib/wattledger/ledger.sqlite",
            errors=1,
            last_commit_ns=NOW_NS - NS_PER_S,
            last_commit_duration_ns=1_750_000,
            pending_entries=4,
            size_bytes=1_048_576,
        ),
        version="0.1.0",
        started_ns=NOW_NS - 3_600 * NS_PER_S,
        exporters=(
            ExporterStatus("prometheus", True, NOW_NS - 5 * NS_PER_S),
            ExporterStatus(
                "otlp",
                False,
                NOW_NS - 600 * NS_PER_S,
                {"unreachable": 12},
                message="https://collector:4318/v1/logs does not answer: timed out",
                hint="look whether the receiver runs, and whether this machine may reach it",
                delivered_runs=41,
                backlog=Backlog(3, 1),
            ),
        ),
        web=WebStatus(NOW_NS + 30 * 86_400 * NS_PER_S),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def rows() -> list[TotalsRow]:
    """What a daemon's `totals` answers."""
    sums = node_sums()[Kind.GPU]
    one = sums._replace(costs={"EUR": sums.costs["EUR"]})
    return [
        # 2^53 + 1: no float64
        TotalsRow(
            "cpu",
            amounts(9_007_199_254_740_993),
            0,
            (),
            13_511_000_000_000_001,
            settled_facility_uj=13_511_000_000_000_001,
            sums=one,
        ),
        TotalsRow("gpu", amounts(3_600_000_000_000), 1_800_000_000_000, (), 5_400_000_000_000),
    ]


def record() -> None:
    """Record the golden pages anew, after a change that is meant."""
    from pathlib import Path

    from wattledger_exporters.prometheus import Renderer

    golden = Path(__file__).parent / "golden"
    page = Renderer().render(snapshot(), 1, process=False)
    (golden / "metrics.txt").write_bytes(page.text)
    (golden / "metrics.openmetrics.txt").write_bytes(page.openmetrics)
    jobs = Renderer().render(with_jobs(), 1, process=False, labels=JOB_LABELS)
    (golden / "metrics.jobs.txt").write_bytes(jobs.text)
    created = Renderer().render(snapshot(), 1, process=False, created=True)
    (golden / "metrics.created.openmetrics.txt").write_bytes(created.openmetrics)


if __name__ == "__main__":
    record()
