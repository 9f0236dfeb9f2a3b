"""The daemons themselves: do they measure, do they write, what do they cost."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import TARGET, gained, increase, metric, or_zero, rate, summed

KEYS = shared.NODE_KEYS


def _figures() -> tuple[Any, ...]:
    lag = f"max(time() - {metric('books_timestamp_seconds')})"
    return (
        kit.figure(
            "Nodes answering",
            "Share of the nodes that Prometheus could scrape the last time it tried.",
            kit.SHARE,
            kit.now(f"avg({shared.up()})"),
            limits=((None, kit.RED), (0.9, kit.YELLOW), (1, kit.GREEN)),
        ),
        kit.figure(
            "Meters down",
            "Meters that do not answer. `/api/v1/status` and `wattledger doctor` on the node say "
            "why and what to do.",
            kit.COUNT,
            kit.now(shared.meters_down()),
            limits=((None, kit.GREEN), (1, kit.RED)),
        ),
        kit.figure(
            "Books behind, at worst",
            "Time since the instant up to which the counters are complete, on the node that is "
            "farthest behind. Some seconds are the commit interval and the scrape interval.",
            kit.SECONDS,
            kit.now(lag),
            limits=((None, kit.GREEN), (120, kit.YELLOW), (600, kit.RED)),
        ),
        kit.figure(
            "Ledger errors",
            "Commits that failed in the range shown. Their energy is kept in memory and retried.",
            kit.COUNT,
            kit.now(summed(increase("ledger_commit_errors_total"))),
            limits=((None, kit.GREEN), (1, kit.RED)),
            decimals=0,
        ),
        kit.figure(
            "New ledger epochs",
            "Ledgers that began anew in the range shown: the only way a counter may fall. See the "
            "node's log for why.",
            kit.COUNT,
            kit.now(
                or_zero(
                    f"sum(count by (cluster, job, instance) (count by (cluster, job, instance, "
                    f"epoch) (last_over_time({metric('ledger_info')}[$__range]))) - 1)"
                )
            ),
            limits=((None, kit.GREEN), (1, kit.RED)),
        ),
        kit.figure(
            "Jobs without a series",
            "Jobs beyond `jobs.max_series`, since each ledger began: they are in the books, and on "
            "the page as `(other)`.",
            kit.COUNT,
            kit.now(summed(metric("jobs_over_limit_total"))),
            limits=((None, kit.GREEN), (1, kit.YELLOW)),
        ),
    )


def _meters() -> tuple[Any, ...]:
    return (
        kit.lines(
            "Meters that answer",
            "Share of the nodes on which each meter answers. A meter that a node does not have "
            "is not counted.",
            kit.SHARE,
            kit.series(f"avg by (meter) ({metric('meter_up')})", "{{meter}}"),
            maximum=1,
            span=8,
        ),
        kit.lines(
            "What meters could not read",
            "Reads that failed, per minute, by meter and reason.",
            kit.COUNT,
            kit.series(
                f"{summed(rate('meter_errors_total'), 'meter', 'reason')} * 60",
                "{{meter}}: {{reason}}",
            ),
            limits=((None, kit.GREEN), (1, kit.RED)),
            span=8,
        ),
        kit.lines(
            "Turns that came too late",
            "Turns of a meter that could not be held at their time, per minute: the node is too "
            "busy, or a driver call takes long.",
            kit.COUNT,
            kit.series(f"{summed(rate('meter_missed_ticks_total'), 'meter')} * 60", "{{meter}}"),
            limits=((None, kit.GREEN), (6, kit.RED)),
            span=8,
        ),
        kit.lines(
            "Counter over power sensor",
            "GPU energy by the hardware counter over that by the power sensor; the extremes of "
            "all GPUs. Away from 1, one of the two is wrong.",
            kit.NUMBER,
            kit.series(f"max({metric('gpu_counter_power_ratio')})", "highest"),
            kit.series(f"min({metric('gpu_counter_power_ratio')})", "lowest"),
            limits=((None, kit.RED), (0.95, kit.GREEN), (1.05, kit.RED)),
            minimum=None,
            decimals=3,
            span=8,
        ),
        kit.lines(
            "Unobserved time",
            "Share of the time in which nothing measured a device, worst device of each of the "
            "ten worst nodes. No energy is booked for it.",
            kit.SHARE,
            kit.series(
                f"topk(10, max by (cluster, instance) ({rate('unobserved_seconds_total')}))",
                shared.NODE_NAME,
            ),
            limits=((None, kit.GREEN), (0.01, kit.RED)),
            span=8,
            links=[kit.link_to_node()],
        ),
        kit.lines(
            "Hardware counters that began anew",
            "Resets of GPU energy counters in the hour before: driver reloads, GPU resets.",
            kit.COUNT,
            kit.series(
                summed(gained("counter_resets_total", "1h"), "cluster", "instance"),
                shared.NODE_NAME,
            ),
            limits=((None, kit.GREEN), (1, kit.YELLOW)),
            span=8,
        ),
    )


def _ledger() -> tuple[Any, ...]:
    return (
        kit.lines(
            "Commits per minute",
            "Transactions written, by node; 12 at the default commit interval of 5 s.",
            kit.COUNT,
            kit.series(
                f"{summed(rate('ledger_commits_total'), 'cluster', 'instance')} * 60",
                shared.NODE_NAME,
            ),
            span=8,
        ),
        kit.lines(
            "Time a commit takes",
            "Duration of the last commit: the slowest node and the mean.",
            kit.SECONDS,
            kit.series(f"max({metric('ledger_commit_duration_seconds')})", "slowest"),
            kit.series(f"avg({metric('ledger_commit_duration_seconds')})", "mean"),
            limits=((None, kit.GREEN), (1, kit.RED)),
            span=8,
        ),
        kit.lines(
            "Size of the ledger",
            "The file on the node: the largest and the mean.",
            kit.BYTES,
            kit.series(f"max({metric('ledger_size_bytes')})", "largest"),
            kit.series(f"avg({metric('ledger_size_bytes')})", "mean"),
            limits=((None, kit.GREEN), (1e9, kit.YELLOW)),
            span=8,
        ),
    )


def _costs() -> tuple[Any, ...]:
    return (
        kit.lines(
            "CPU of the daemon",
            "CPU time of the daemon as a share of one core: the slowest node and the mean.",
            kit.SHARE,
            kit.series(
                f"max(rate(process_cpu_seconds_total{{{TARGET}}}[$__rate_interval]))", "highest"
            ),
            kit.series(
                f"avg(rate(process_cpu_seconds_total{{{TARGET}}}[$__rate_interval]))", "mean"
            ),
            limits=((None, kit.GREEN), (0.05, kit.RED)),
            span=8,
        ),
        kit.lines(
            "Memory of the daemon",
            "Resident memory: the largest and the mean.",
            kit.BYTES,
            kit.series(f"max(process_resident_memory_bytes{{{TARGET}}})", "largest"),
            kit.series(f"avg(process_resident_memory_bytes{{{TARGET}}})", "mean"),
            limits=((None, kit.GREEN), (256 * 2**20, kit.RED)),
            span=8,
        ),
        kit.lines(
            "Requests to grid sources",
            "Requests for grid signals, weather and PUE in the hour before, by source and "
            "outcome. Nodes behind a relay ask the relay.",
            kit.COUNT,
            kit.series(
                summed(gained("grid_requests_total", "1h"), "source", "outcome"),
                "{{source}}: {{outcome}}",
            ),
            span=8,
        ),
    )


def _nodes() -> Any:
    version = f"max by (cluster, job, instance, version, simulated) ({metric('build_info')})"
    epoch = f"max by (cluster, job, instance, epoch, storage) ({metric('ledger_info')})"
    return kit.grid(
        "Daemons",
        "Each daemon: its version, whether its GPUs are simulated, its ledger's epoch and "
        "storage, how far its books are behind, its bookings not yet written, and meters down.",
        {
            "instance": ("Node", ""),
            "cluster": ("Cluster", ""),
            "version": ("Version", ""),
            "simulated": ("Simulated", ""),
            "epoch": ("Epoch", ""),
            "storage": ("Storage", ""),
            "Value #C": ("Books behind", kit.SECONDS),
            "Value #D": ("Not yet written", kit.NUMBER),
            "Value #E": ("Meters down", kit.NUMBER),
        },
        kit.row_of(version, "A"),
        kit.row_of(epoch, "B"),
        kit.row_of(
            f"max by (cluster, job, instance) (time() - {metric('books_timestamp_seconds')})", "C"
        ),
        kit.row_of(summed(metric("ledger_pending_entries"), *KEYS), "D"),
        kit.row_of(summed(f"1 - {metric('meter_up')}", *KEYS), "E"),
        links={"Node": kit.to_node()},
        limits={
            "Books behind": ((None, kit.GREEN), (120, kit.YELLOW), (600, kit.RED)),
            "Meters down": ((None, kit.GREEN), (1, kit.RED)),
        },
        sort="Books behind",
        drop=("Value #A", "Value #B"),
        widths={"Epoch": 320},
    )


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "health",
        "agent health",
        "Whether the daemons measure, write and answer, and what they cost themselves.",
        variables.instance(),
    )
    shared.add(made, "At a glance", *_figures())
    shared.add(made, "Meters", *_meters())
    shared.add(made, "Ledger", *_ledger())
    shared.add(made, "What the daemons cost", *_costs())
    shared.add(made, "Every daemon", _nodes())
    return made
