"""What a CPU draws when it does nothing, learnt from quiet minutes.

The floor is the lowest mean over 60 s in which the node was never busier than 2 %. Until there
was such a minute it is unknown, and unknown counts as 0: then all of the CPU's energy is dynamic.
(Taking the lowest power ever seen instead would call the load of a busy node its floor.)
"""

from __future__ import annotations

import json

from wattledger.units import NS_PER_S

WINDOW_NS = 60 * NS_PER_S
QUIET_PPM = 20_000  # 2 %


class IdleFloors:
    """The floors of the node's CPU devices, and the quiet minute in progress of each."""

    def __init__(self, note: str = "", known_uw: int | None = None) -> None:
        """Floors as they are known.

        Args:
            note: what `note()` gave in an earlier process; unreadable text is forgotten.
            known_uw: what each device draws when idle, by the settings; None: it is learnt.
        """
        self._known_uw = known_uw
        self._floor_uw: dict[str, int] = {}
        self._window: dict[str, tuple[int, int]] = {}  # device → (energy_uj, ns) since it is quiet
        try:
            known = json.loads(note) if note else {}
            self._floor_uw = {str(d): int(uw) for d, uw in known.items() if int(uw) > 0}
        except (ValueError, TypeError, AttributeError):
            self._floor_uw = {}

    def floor_uw(self, device: str) -> int:
        """The device's floor in µW; 0 while unknown."""
        return self._known_uw if self._known_uw is not None else self._floor_uw.get(device, 0)

    def observe(self, device: str, energy_uj: int, duration_ns: int, busy_ppm: int | None) -> None:
        """One interval of a device and the node's load in it (None: cannot be told)."""
        if busy_ppm is None or busy_ppm > QUIET_PPM or duration_ns <= 0:
            self._window.pop(device, None)
            return
        energy, spent = self._window.get(device, (0, 0))
        energy, spent = energy + energy_uj, spent + duration_ns
        if spent < WINDOW_NS:
            self._window[device] = (energy, spent)
            return
        self._window.pop(device, None)
        mean_uw = energy * NS_PER_S // spent
        known = self._floor_uw.get(device)
        if mean_uw > 0 and (known is None or mean_uw < known):
            self._floor_uw[device] = mean_uw

    def note(self) -> str:
        """The floors as text for the ledger."""
        return json.dumps(self._floor_uw, sort_keys=True)
