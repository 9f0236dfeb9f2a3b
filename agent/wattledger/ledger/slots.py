"""The books as rows of their own: an entry with its device, payee, prices and what became of them.

An entry is told once, whatever was settled of it: an hour into which slots were rolled up may have
several final prices, and then tells none. Its sums are exact all the same.
"""

from __future__ import annotations

from wattledger.ledger.settle import Correction
from wattledger.model import Price
from wattledger.units import SLOT_S

HOUR_S = 3600
KEYS = ("device_id", "payee_id", "quality", "price_id")
BOOKS = (
    "SELECT id, epoch, books_ns, (SELECT min(first_s) FROM ("
    "SELECT min(hour_s) AS first_s FROM entry_hour WHERE hour_s >= :since "
    "UNION ALL SELECT min(slot_s) FROM entry WHERE slot_s >= :since)) "
    "FROM meta WHERE id > :key0 ORDER BY id LIMIT :most"
)
"""Which books these are, up to where they are complete, and the first slot of the span or after."""
BOOKS_NAMES = ("id", "epoch", "books_ns", "first_s")

_AMOUNTS = ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul")
_HELD = ("held_ms", "held_idle_ms", "held_idle_uj")
_CHANGES = Correction._fields[3:]  # what may be summed over the slots of an hour, but energy_uj
_FINAL = tuple(name for name in Price._fields if name not in ("signal_from_ns", "signal_to_ns"))
_HISTORY = ("source", "digest", "fetched_at_ns")
_SAME = " AND ".join(f"known.{key} = {{table}}.{key}" for key in KEYS)
_SETTLED = f"LEFT JOIN settled AS known ON known.slot_s = entry.slot_s AND {_SAME}"
_SETTLED_HOUR = (
    f"LEFT JOIN (SELECT hour_s, {', '.join(KEYS)}, sum(energy_uj) AS energy_uj, "  # noqa: S608
    "iif(min(final_price_id) = max(final_price_id), min(final_price_id), NULL) AS final_price_id, "
    f"{', '.join(f'sum({name}) AS {name}' for name in _CHANGES)} FROM settled_hour "
    f"WHERE hour_s >= max(:since, :key0) AND hour_s < :until GROUP BY hour_s, {', '.join(KEYS)}) "
    f"AS known ON known.hour_s = entry_hour.hour_s AND {_SAME}"
)
NAMES = (
    "start_s", *KEYS, "grain_s", "slots",
    "device", "kind", "model", "payee", "manager", "job_id", "run_start_ns",
    "user", "account", "job_name",
    *_AMOUNTS, *_HELD, *(f"booked_{name}" for name in Price._fields),
    *_CHANGES, *(f"final_{name}" for name in _FINAL),
    *(f"history_{name}" for name in _HISTORY),
)  # fmt: skip


def query_of(table: str) -> str:
    """The rows of `entry` or `entry_hour` after a key, in the order of keys, at most :most.

    It selects `NAMES`, of which the first five are the key.
    """
    at, grain_s, slots, settled = {
        "entry": ("slot_s", SLOT_S, "1", _SETTLED),
        "entry_hour": ("hour_s", HOUR_S, "entry_hour.slots", _SETTLED_HOUR),
    }[table]
    own = [f"{table}.{key}" for key in (at, *KEYS)]
    columns = (
        *own, str(grain_s), slots,
        "device.name", "device.kind", "device.model",
        "payee.kind", "payee.manager", "payee.job_id", "payee.start_ns",
        "nullif(run.user, '')", _label("account"), _label("name"),
        *(f"{table}.{name}" for name in (*_AMOUNTS, *_HELD)),
        *(f"booked.{name}" for name in Price._fields),
        *(f"coalesce(known.{name}, 0)" for name in _CHANGES),
        *(f"final.{name}" for name in _FINAL),
        *(f"history.{name}" for name in _HISTORY),
    )  # fmt: skip
    return f"""
SELECT {", ".join(columns)}
FROM {table}
JOIN device ON device.id = {table}.device_id
JOIN payee ON payee.id = {table}.payee_id
JOIN price AS booked ON booked.id = {table}.price_id
LEFT JOIN run ON run.payee_id = {table}.payee_id
{settled.format(table=table)}
LEFT JOIN price AS final ON final.id = iif(known.energy_uj IS NULL, {table}.price_id,
    iif(known.energy_uj = {table}.energy_uj, known.final_price_id, NULL))
LEFT JOIN history ON known.settled_uj > 0 AND history.id = (
    SELECT max(word.history_id) FROM settled_slot AS word
    WHERE word.slot_s >= {table}.{at} AND word.slot_s < {table}.{at} + {grain_s}
    AND word.price_id = {table}.price_id)
WHERE ({", ".join(own)}) > ({", ".join(f":key{number}" for number in range(len(own)))})
AND {own[0]} >= :since AND {own[0]} < :until ORDER BY {", ".join(own)} LIMIT :most
"""  # noqa: S608


def _label(name: str) -> str:
    return f"iif(json_valid(run.labels), json_extract(run.labels, '$.{name}'), NULL)"
