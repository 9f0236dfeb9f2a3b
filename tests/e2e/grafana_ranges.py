"""What every panel must show of the fleet's hours: the lowest and the highest value it may have.

For each query of the panel in order, in its panel's unit. They follow from `fleet_nodes`: three
nodes of four GPUs at 480 to 600 W in use and 72 W not, 250 W for the rest of each node, CPUs at 90
to 160 W; PUE 1.2, WUE 0.36, EWIF 3.1, 0.25 EUR/kWh, 420 falling to 180 g/kWh.
"""

from __future__ import annotations

Ranges = tuple[tuple[float, float], ...]

ENERGY_KWH = (25.0, 28.5)  # almost 4 h at 6.9 kW
JOBS: Ranges = (
    (0.5, 22.0),  # a notebook of an hour; eight GPUs for four
    (150, 8000),
    (0, 0.5),  # two GPUs of 72 W for 2½ h, and none
    (1, 2),
    (1, 1),
    (200, 5600),
)
WALL: Ranges = ((0, 8000), (5800, 8000), (6300, 8700), (100, 1200))
BALANCE: dict[str, Ranges] = {
    "Books against the wall": WALL,
    "Books out of balance": ((0, 0.001),),
    "Residual of the wall": ((0.06, 0.1),),
    "GPU power: books less DCGM": ((-0.02, 0.02),),
    "Compared": ((1, 1), (1, 1)),
}
HELD_IDLE_KWH = (0.3, 0.4)

RANGES: dict[str, dict[str, Ranges]] = {
    "fleet": {
        **BALANCE,
        "IT power": ((6000, 6800),),
        "Facility power": ((7200, 8160),),
        "IT energy": (ENERGY_KWH,),
        "CO2e": ((9000, 10_500),),
        "Water": ((95, 115),),
        "Nodes answering": ((1, 1),),
        "GPUs held by jobs": ((11 / 12, 11 / 12),),
        "Energy for jobs": ((0.9, 0.99),),
        "Held idle now": ((140, 150),),
        "Energy cost": ((7.2, 8.4),),
        "Jobs running": ((3, 3),),
        "Meters down": ((0, 0),),
        "Power by kind of device": ((100, 6500),),
        "Power by payee": ((0, 8000),),
        "Nodes that draw the most": ((700, 3000),),
        "Carbon intensity in force": ((180, 420),),
        "Energy of the last hour, by node": ((0.1, 3),),
        "Energy since the ledgers began": ((0.3, 22),),
        "Nodes": ((1000, 2900), (5, 11), (2000, 4000), (0.85, 0.99), (0, 31), (0, 0)),
        "Jobs": JOBS,
    },
    "node": {
        **BALANCE,
        "IT power": ((6000, 6800),),
        "IT energy": (ENERGY_KWH,),
        "CO2e": ((9000, 10_500),),
        "Jobs on the node": ((4, 4),),
        "GPUs that nobody holds": ((1, 1),),
        "Unobserved time": ((29, 31),),
        "Power by device": ((1, 601),),
        "Power by job": ((80, 5600),),
        "Devices": ((1, 1), (18, 600), (0.05, 2.3), (1, 1), (1, 1), (0, 31)),
        "Jobs": JOBS,
        "GPUs: books beside DCGM": ((4200, 6500), (4200, 6500), (-500, 500)),
        "How the energy was found": ((0, 7300),),
    },
    "job": {
        "IT energy": ((24, 26.5),),
        "CO2e": ((8800, 10_200),),
        "Water": ((95, 112),),
        "Held idle": (HELD_IDLE_KWH,),
        "Held idle, share": ((0.01, 0.02),),
        "Nodes": ((3, 3),),
        "Power by node": ((200, 2850),),
        "Power by kind of device": ((5, 6500),),
        "Nodes of the job": ((0.5, 11), (150, 4000), (0, 0.5), (1, 4), (200, 2850)),
        "Devices held now": ((1, 1),),
        "Energy since the beginning": ((0, 22),),
        "Held idle power": ((0, 400),),
        "CO2e by basis": ((8800, 10_200),),
    },
    "users": {
        "Energy of all users": ((24, 26.5),),
        "CO2e of all users": ((8800, 10_200),),
        "Held idle": (HELD_IDLE_KWH,),
        "Held idle of all jobs' energy": ((0.01, 0.02),),
        "Idle: held by nobody": ((0.01, 0.05),),
        "GPUs held and idle now": ((1.9, 2.1),),
        "Energy by user": ((0.5, 22),),
        "CO2e by account": ((150, 9000),),
        "Held idle by job": ((1e-4, 0.4),),
        "Held idle power": ((0, 400),),
        "GPUs held, by node": ((0.25, 1),),
        "Users": ((0.5, 22), (150, 8000), (0, 0.5), (0, 20_000), (0.1, 6), (0.5, 22)),
        "Energy by manager": ((0.5, 26),),
    },
    "footprint": {
        "CO2e, location-based": ((9000, 10_500),),
        "CO2e, market-based": ((5400, 6400),),
        "Embodied CO2e": ((1000, 1250),),
        "Water": ((95, 115),),
        "Energy cost": ((7.2, 8.4),),
        "Settled less booked": ((0, 0),),
        "Carbon intensity in force": ((180, 420), (110, 260)),
        "Emissions per hour": ((20, 3100),),
        "CO2e by basis": ((9000, 10_500),),
        "Embodied CO2e by kind": ((190, 980),),
        "Uncertainty": ((0.3, 0.95), (1.05, 3)),
        "Water per hour": ((1.8, 31),),
        "Cost per hour": ((1.7, 2.5),),
        "Factors in force": ((1.2, 1.2), (0.36, 0.36), (3.1, 3.1)),
        "Grid signals in force": ((180, 180), (3, 3), (0, 1800)),
        "Worst fallback": ((0, 0),),
    },
    "health": {
        "Nodes answering": ((1, 1),),
        "Meters down": ((0, 0),),
        "Books behind, at worst": ((0, 60),),
        "Ledger errors": ((0, 0),),
        "New ledger epochs": ((0, 0),),
        "Jobs without a series": ((0, 0),),
        "Meters that answer": ((2 / 3, 1),),
        "What meters could not read": ((0, 2.1),),
        "Turns that came too late": ((0, 2),),
        "Counter over power sensor": ((0.99, 1.01), (0.99, 1.01)),
        "Unobserved time": ((0, 0.5),),
        "Hardware counters that began anew": ((0, 1.1),),
        "Commits per minute": ((1.9, 2.1),),
        # Of the process that played the fleet, on whatever machine.
        "Time a commit takes": ((1e-5, 10), (1e-5, 10)),
        "Size of the ledger": ((1e5, 1e7), (1e5, 1e7)),
        "CPU of the daemon": ((0.0059, 0.0061), (0.0059, 0.0061)),
        "Memory of the daemon": ((45 << 20, 48 << 20), (44 << 20, 47 << 20)),
        "Requests to grid sources": ((0, 13),),
        "Daemons": ((1, 1), (1, 1), (0, 60), (0, 0), (0, 0)),
    },
}
