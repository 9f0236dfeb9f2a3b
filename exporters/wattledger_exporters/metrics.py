"""The catalogue: every metric of the page, in one table.

`prometheus.py` takes names, types and labels from here and can export nothing else; the document
`exporters/METRICS.md` is printed from here (`python -m wattledger_exporters.metrics`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "wattledger_"
DOCS = "exporters/METRICS.md"

MetricType = Literal["counter", "gauge", "info"]


class MetricSpec(NamedTuple):
    """One metric family.

    Attributes:
        name: as a sample carries it, without the prefix (a counter's ends in `_total`).
        type: `info` is OpenMetrics' name for a gauge that is always 1 and carries labels.
        help: what is inside, for people; the page adds the link to the document.
        labels: in the order in which values are given.
        section: heading of the document.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...]
    section: str

    @property
    def family(self) -> str:
        """The family's full name: a counter's without `_total`, an info's without `_info`."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.type, "")
        return PREFIX + self.name.removesuffix(suffix)

    @property
    def sample(self) -> str:
        """The full name of its samples."""
        return PREFIX + self.name


def _section(section: str, *rows: tuple[str, MetricType, tuple[str, ...], str]) -> list[MetricSpec]:
    return [MetricSpec(name, type_, text, labels, section) for name, type_, labels, text in rows]


_CATALOGUE: list[MetricSpec] = [
    *_section(
        "Energy, carbon and water of the node",
        (
            "energy_kwh_total",
            "counter",
            ("device", "kind"),
            "IT energy in kWh, without PUE, committed to the ledger.",
        ),
        (
            "energy_joules_total",
            "counter",
            ("device", "kind"),
            "IT energy in joules, without PUE: the same books as energy_kwh_total.",
        ),
        (
            "co2e_grams_total",
            "counter",
            ("device", "kind", "basis"),
            "CO2e in grams of facility energy (IT energy x PUE) at the grid intensity of its time.",
        ),
        (
            "water_liters_total",
            "counter",
            ("device", "kind", "origin"),
            "Water in liters: onsite = IT energy x WUE, grid = facility energy (with PUE) x EWIF.",
        ),
        (
            "power_watts",
            "gauge",
            ("device", "kind"),
            "IT power in watts, mean of the last commit window; absent while unobserved.",
        ),
        (
            "payee_energy_joules_total",
            "counter",
            ("kind", "payee"),
            "IT energy in joules by whom it was used for; over all payees it equals the devices'.",
        ),
        (
            "energy_quality_joules_total",
            "counter",
            ("kind", "quality"),
            "IT energy in joules by how it was found: metered, integrated, estimated, recovered.",
        ),
        (
            "unobserved_seconds_total",
            "counter",
            ("device",),
            "Time in seconds in which nothing measured the device; no energy is booked for it.",
        ),
        (
            "books_timestamp_seconds",
            "gauge",
            (),
            "Unix time up to which the counters are complete, but for devices silent for a minute.",
        ),
    ),
    *_section(
        "Jobs and users",
        (
            "job_energy_kwh_total",
            "counter",
            ("manager", "job_id", "kind"),
            "IT energy of the job in kWh, all its runs, without PUE; goes when it has lingered.",
        ),
        (
            "job_co2e_grams_total",
            "counter",
            ("manager", "job_id", "basis"),
            "CO2e of the job in grams of facility energy (IT energy x PUE).",
        ),
        (
            "job_water_liters_total",
            "counter",
            ("manager", "job_id", "origin"),
            "Water of the job in liters: onsite = IT energy x WUE, grid = facility energy x EWIF.",
        ),
        (
            "job_held_idle_joules_total",
            "counter",
            ("manager", "job_id"),
            "IT energy in joules of GPUs that the job held and did not use.",
        ),
        (
            "job_held_idle_seconds_total",
            "counter",
            ("manager", "job_id"),
            "Time in seconds that the job held a GPU and did not use it, times the share held.",
        ),
        (
            "job_power_watts",
            "gauge",
            ("manager", "job_id"),
            "IT power of the job in watts, mean of the last commit window.",
        ),
        (
            "job_device_info",
            "gauge",
            ("manager", "job_id", "device"),
            "The share of the device that the job holds now, 0 to 1.",
        ),
        (
            "job_info",
            "info",
            ("manager", "job_id"),
            "A job that runs or ended a short while ago, with the labels chosen by jobs.labels.",
        ),
        (
            "user_energy_kwh_total",
            "counter",
            ("manager", "user", "account"),
            "IT energy in kWh of all jobs of the user; only where user is among jobs.labels.",
        ),
        (
            "user_co2e_grams_total",
            "counter",
            ("manager", "user", "account"),
            "CO2e in grams of facility energy of all jobs of the user; likewise.",
        ),
        (
            "jobs_over_limit_total",
            "counter",
            (),
            'Jobs without a series of their own (jobs.max_series): in job_id="(other)".',
        ),
    ),
    *_section(
        "Devices",
        (
            "device_info",
            "info",
            ("device", "kind", "index", "model", "pci", "meter"),
            "A metered device: its stable name, what it is, and which meter reads it.",
        ),
        (
            "device_present",
            "gauge",
            ("device",),
            "1 while the device is there, 0 once it has left; its counters stay.",
        ),
        (
            "counter_resets_total",
            "counter",
            ("device",),
            "Resets of the device's hardware energy counter (driver reload, GPU reset).",
        ),
        (
            "gpu_counter_power_ratio",
            "gauge",
            ("device",),
            "IT energy by the hardware counter over energy by the power sensor; 1 when they agree.",
        ),
    ),
    *_section(
        "Grid and site",
        (
            "grid_carbon_intensity_grams_per_kwh",
            "gauge",
            ("grid_zone", "source", "basis", "estimated"),
            "Carbon intensity that facility energy is priced with now, in gCO2e per kWh.",
        ),
        (
            "grid_signal_timestamp_seconds",
            "gauge",
            ("grid_zone", "source", "basis", "estimated"),
            "Unix time from which the carbon intensity in use is valid: its age is time() less it.",
        ),
        (
            "grid_fallback_level",
            "gauge",
            (),
            "Where the carbon intensity comes from: 0 live, 1 last good signal, 2 country table.",
        ),
        (
            "co2e_settlement_grams",
            "gauge",
            (),
            "CO2e in grams of facility energy by published prices less that booked, of the epoch.",
        ),
        (
            "grid_requests_total",
            "counter",
            ("source", "outcome"),
            "Requests for grid signals, weather and PUE by outcome, since the process started.",
        ),
        (
            "grid_basis_fallbacks_total",
            "counter",
            ("source",),
            "Times that the basis of the preferred source of grid signals gave way to another.",
        ),
        (
            "pue_ratio",
            "gauge",
            ("source",),
            "PUE in force: facility energy over IT energy; source says who set it.",
        ),
        (
            "wue_liters_per_kwh",
            "gauge",
            ("source",),
            "WUE in force: onsite water in liters per kWh of IT energy.",
        ),
        (
            "ewif_liters_per_kwh",
            "gauge",
            ("source",),
            "EWIF in force: water of electricity generation in liters per kWh of facility energy.",
        ),
        (
            "water_stress_factor",
            "gauge",
            (),
            "Scarcity of the site's water (AWARE, world mean 1); absent: it is not configured.",
        ),
        (
            "uncertainty_ratio",
            "gauge",
            ("quantity", "bound"),
            "True over said of what is being booked now, by published ranges: a judgement.",
        ),
    ),
    *_section(
        "Meters",
        (
            "meter_up",
            "gauge",
            ("meter",),
            "1 while the meter answers, 0 while it does not; /api/v1/status says why.",
        ),
        (
            "meter_last_success_timestamp_seconds",
            "gauge",
            ("meter",),
            "Unix time of the meter's last turn that brought readings; absent: there was none.",
        ),
        (
            "meter_errors_total",
            "counter",
            ("meter", "reason"),
            "What the meter could not read, by reason, since the start of the process.",
        ),
        (
            "meter_missed_ticks_total",
            "counter",
            ("meter",),
            "Turns of the meter that could not be held at their time, since the process started.",
        ),
    ),
    *_section(
        "Ledger and program",
        (
            "build_info",
            "info",
            ("version", "simulated"),
            "The program's version; simulated names the scenario when the GPUs are not real.",
        ),
        (
            "ledger_info",
            "info",
            ("epoch", "storage"),
            "The ledger: another epoch means that all counters began again at 0.",
        ),
        (
            "ledger_commits_total",
            "counter",
            (),
            "Commits in this epoch of the ledger.",
        ),
        (
            "ledger_commit_errors_total",
            "counter",
            (),
            "Commits that failed since the start of the process; their energy is kept and retried.",
        ),
        (
            "ledger_last_commit_timestamp_seconds",
            "gauge",
            (),
            "Unix time of the last commit; absent: this process has made none.",
        ),
        (
            "ledger_commit_duration_seconds",
            "gauge",
            (),
            "How long the last commit took; absent: this process has made none.",
        ),
        (
            "ledger_pending_entries",
            "gauge",
            (),
            "Bookings kept in memory that no commit has written yet.",
        ),
        (
            "ledger_size_bytes",
            "gauge",
            (),
            "Size of the ledger's file.",
        ),
    ),
]

CATALOGUE: dict[str, MetricSpec] = {spec.name: spec for spec in _CATALOGUE}


def help_text(spec: MetricSpec) -> str:
    """HELP as the page carries it: the sentence and where to read more."""
    return f"{spec.help} (docs: {DOCS})"


def markdown() -> str:
    """The document `METRICS.md`."""
    lines = [
        "# Metrics",
        "",
        "Generated by `python -m wattledger_exporters.metrics`; a test holds it equal to the code.",
        "",
        "Every name begins with `wattledger_`. IT energy is what the devices drew; facility energy",
        "is IT energy times PUE. Counters are the ledger's: they survive restarts and fall only",
        "when `ledger_info` shows a new epoch. What is unknown is absent, never 0.",
    ]
    section = ""
    for spec in CATALOGUE.values():
        if spec.section != section:
            section = spec.section
            lines += ["", f"## {section}", "", "| name | type | labels | what it is |"]
            lines += ["| --- | --- | --- | --- |"]
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        type_ = "gauge 1" if spec.type == "info" else spec.type
        lines.append(f"| `{spec.name}` | {type_} | {labels} | {spec.help} |")
    lines += [
        "",
        "Besides these the page carries the `process_*` metrics of every Prometheus client",
        "(CPU time, memory, file descriptors, start time) for the daemon itself.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
