"""Metrics of the node, its jobs and its devices."""

from __future__ import annotations

from wattledger_exporters.metrics.spec import MetricSpec, section

NODE: list[MetricSpec] = [
    *section(
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
    *section(
        "Money, contracts and hardware",
        (
            "energy_cost_total",
            "counter",
            ("currency",),
            "Cost of facility energy (IT energy x PUE), each part at the price it was booked at.",
        ),
        (
            "market_co2e_grams_total",
            "counter",
            ("kind",),
            "CO2e in grams of facility energy by the site's contracts, beside co2e_grams_total.",
        ),
        (
            "market_carbon_intensity_grams_per_kwh",
            "gauge",
            (),
            "Carbon intensity by the site's contracts, in gCO2e per kWh of facility energy.",
        ),
        (
            "embodied_co2e_grams_total",
            "counter",
            ("kind",),
            "CO2e in grams of making the hardware, by the time it was there; no energy is in it.",
        ),
    ),
    *section(
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
            "job_held_seconds_total",
            "counter",
            ("manager", "job_id"),
            "Time in seconds that the job held a GPU, times the share held.",
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
            "user_water_liters_total",
            "counter",
            ("manager", "user", "account", "origin"),
            "Water in liters of all jobs of the user, as job_water_liters_total; likewise.",
        ),
        (
            "jobs_over_limit_total",
            "counter",
            (),
            'Jobs without a series of their own (jobs.max_series): in job_id="(other)".',
        ),
    ),
    *section(
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
]
