"""Who used how much, and what was held for nothing."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import (
    CARDS,
    FOR_JOBS,
    KWH_PER_J,
    OWNED,
    increase,
    last,
    metric,
    of_user,
    or_zero,
    rate,
    recorded,
    summed,
    top,
)

USER = 'user=~"$user",user!=""'  # what is of nobody known is no user's
OPT_IN = " Users appear where `user` is among the daemons' `jobs.labels`."


def _figures() -> tuple[Any, ...]:
    idle = or_zero(summed(increase("job_held_idle_joules_total")))
    jobs = summed(increase("payee_energy_joules_total", FOR_JOBS))
    nobody = summed(increase("payee_energy_joules_total", 'payee="idle"'))
    everybody = summed(increase("payee_energy_joules_total"))
    return (
        kit.figure(
            "Energy of all users",
            "IT energy of the users' jobs in the range shown." + OPT_IN,
            kit.KWH,
            kit.now(summed(increase("user_energy_kwh_total", USER))),
        ),
        kit.figure(
            "CO2e of all users",
            "Operational emissions of the users' jobs in the range shown." + OPT_IN,
            kit.GRAM,
            kit.now(summed(increase("user_co2e_grams_total", USER))),
        ),
        kit.figure(
            "Held idle",
            "Energy in the range shown of GPUs that jobs held and did not use.",
            kit.KWH,
            kit.now(f"{idle} / {KWH_PER_J}"),
            limits=((None, kit.GREEN), (1, kit.YELLOW), (100, kit.RED)),
        ),
        kit.figure(
            "Held idle of all jobs' energy",
            "Held-idle energy over the energy of all jobs in the range shown.",
            kit.SHARE,
            kit.now(f"{idle} / ({jobs} > 0)"),
            limits=((None, kit.GREEN), (0.05, kit.YELLOW), (0.2, kit.RED)),
        ),
        kit.figure(
            "Idle: held by nobody",
            "Energy in the range shown that the nodes drew for nobody, as a share of all.",
            kit.SHARE,
            kit.now(f"{nobody} / {everybody}"),
            limits=((None, kit.GREEN), (0.3, kit.YELLOW), (0.6, kit.RED)),
        ),
        kit.figure(
            "GPUs held and idle now",
            "GPUs held without being used, mean of the last minutes: 1.5 means one all the time "
            "and another half of it. It lags by the meter's utilisation interval.",
            kit.COUNT,
            kit.now(or_zero(summed(rate("job_held_idle_seconds_total")))),
            limits=((None, kit.GREEN), (1, kit.YELLOW), (8, kit.RED)),
            decimals=1,
        ),
    )


def _users() -> Any:
    idle = f"{of_user(last('job_held_idle_joules_total', OWNED))} / {KWH_PER_J}"
    ours = ("cluster", "user")
    idle_s = of_user(last("job_held_idle_seconds_total", OWNED))
    return kit.grid(
        "Users",
        "Energy and emissions in the range shown, over the clusters chosen; held idle is of the "
        "jobs seen in the range, since each began. The last hour and the total since the ledgers "
        "began are the recording rules' and exact, over restarts, new ledgers and nodes that left; "
        "they are a minute behind." + OPT_IN,
        {
            "user": ("User", ""),
            "account": ("Account", ""),
            "Value #A": ("Energy", kit.KWH),
            "Value #B": ("CO2e", kit.GRAM),
            "Value #C": ("Held idle", kit.KWH),
            "Value #D": ("GPUs idle for", kit.SECONDS),
            "Value #E": ("Last hour", kit.KWH),
            "Value #F": ("Since ever", kit.KWH),
        },
        kit.row_of(summed(increase("user_energy_kwh_total", USER), "user", "account"), "A"),
        kit.row_of(summed(increase("user_co2e_grams_total", USER), "user", "account"), "B"),
        kit.row_of(idle, "C"),
        kit.row_of(idle_s, "D"),
        kit.row_of(
            summed(recorded("user:energy_kwh:increase1h", *ours, known="user"), "user", "account"),
            "E",
        ),
        kit.row_of(
            summed(recorded("user:energy_kwh:total", *ours, known="user"), "user", "account"), "F"
        ),
        limits={"Held idle": ((None, "text"), (0.1, kit.YELLOW), (1, kit.RED))},
        sort="Energy",
        span=16,
    )


def _nodes() -> Any:
    keys = ("cluster", "instance")
    held = summed(metric("job_device_info"), *keys)
    cards = summed(metric("device_present", CARDS), *keys)
    return kit.lines(
        "GPUs held, by node",
        "Share of each node's GPUs that jobs hold. What is not held is the node's idle.",
        kit.SHARE,
        kit.series(f"({held} or 0 * {cards}) / {cards}", shared.NODE_NAME),
        maximum=1,
        height=10,
        limits=((None, kit.RED), (0.5, kit.GREEN)),
        links=[kit.link_to_node()],
    )


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "users",
        "users and waste",
        "Who used how much, what was held without being used, and what nobody held.",
        variables.instance(),
        variables.manager(),
        variables.user(),
    )
    shared.add(made, "At a glance", *_figures())
    energy = kit.bars(
        "Energy by user",
        "IT energy of the ten users who used the most in the range shown." + OPT_IN,
        kit.KWH,
        kit.now(top(10, summed(increase("user_energy_kwh_total", USER), "user")), "{{user}}"),
    )
    accounts = kit.bars(
        "CO2e by account",
        "Emissions of the ten accounts that emitted the most in the range shown. It needs "
        "`user` and `account` among the daemons' `jobs.labels`.",
        kit.GRAM,
        kit.now(
            top(10, summed(increase("user_co2e_grams_total", USER, 'account!=""'), "account")),
            "{{account}}",
        ),
    )
    wasted = summed(
        last("job_held_idle_joules_total", OWNED, 'manager=~"$manager"'), *shared.JOB_KEYS
    )
    wasters = kit.bars(
        "Held idle by job",
        "The ten jobs seen in the range shown that held GPUs for the most energy without using "
        "them, since each began.",
        kit.KWH,
        kit.now(f"{top(10, wasted)} / {KWH_PER_J}", shared.JOB_NAME),
        limits=((None, kit.GREEN), (0.1, kit.YELLOW), (1, kit.RED)),
    )
    shared.add(made, "Who", energy, accounts, wasters)
    idle = kit.lines(
        "Held idle power",
        "Power of GPUs that are held and not used, by job.",
        kit.WATT,
        kit.series(
            top(
                10,
                summed(rate("job_held_idle_joules_total", 'manager=~"$manager"'), *shared.JOB_KEYS),
            ),
            shared.JOB_NAME,
        ),
        stacked=True,
        below=True,
        calcs=("lastNotNull",),
        height=10,
        links=[kit.link_to_job()],
    )
    shared.add(made, "What was held for nothing", idle, _nodes())
    managers = kit.bars(
        "Energy by manager",
        "IT energy of the jobs seen in the range shown, since each began, by who started them.",
        kit.KWH,
        kit.now(
            summed(last("job_energy_kwh_total", 'manager=~"$manager"'), "manager"), "{{manager}}"
        ),
    )
    shared.add(made, "All of them", _users(), managers)
    return made
