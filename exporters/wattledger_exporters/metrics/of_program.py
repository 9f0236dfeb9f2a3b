"""Metrics of the grid, the site, the meters, the ledger and the program itself."""

from __future__ import annotations

from wattledger_exporters.metrics.spec import MetricSpec, section

PROGRAM: list[MetricSpec] = [
    *section(
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
            "CO2e in grams by prices published and restated since less that booked, of the epoch.",
        ),
        (
            "co2e_settlement_by_basis_grams",
            "gauge",
            ("basis",),
            "The same by what it counts; what the table priced may move to its source's basis.",
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
    *section(
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
    *section(
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
            "ledger_epoch_start_timestamp_seconds",
            "gauge",
            (),
            "Unix time at which this epoch of the ledger began: its counters were 0 then.",
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
    *section(
        "Door",
        (
            "web_certificate_expiry_timestamp_seconds",
            "gauge",
            (),
            "Unix time at which the server's TLS certificate ends; absent: there is no TLS.",
        ),
        (
            "web_config_current",
            "gauge",
            (),
            "0 while http.web_config or a file it names has faults and the last good is in force.",
        ),
    ),
    *section(
        "Exporters",
        (
            "exporter_up",
            "gauge",
            ("exporter",),
            "1 while the exporter's turns succeed, 0 while they fail or hang; the log says why.",
        ),
        (
            "exporter_last_success_timestamp_seconds",
            "gauge",
            ("exporter",),
            "Unix time of the exporter's last turn that succeeded; absent: there was none.",
        ),
        (
            "exporter_errors_total",
            "counter",
            ("exporter", "reason"),
            "Turns of the exporter that failed, by reason, since the start of the process.",
        ),
        (
            "exporter_runs_delivered_total",
            "counter",
            ("exporter",),
            "Ended runs whose record its receiver acknowledged, since the start of the process.",
        ),
        (
            "exporter_runs_waiting",
            "gauge",
            ("exporter",),
            "Ended runs whose record waits in the ledger to be delivered.",
        ),
        (
            "exporter_runs_refused",
            "gauge",
            ("exporter",),
            "Ended runs whose record its receiver refused; they are kept and tried again daily.",
        ),
    ),
]
