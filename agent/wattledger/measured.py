"""The Python API: what a part of a program costs.

    import wattledger

    with wattledger.measure("epoch 1") as m:
        train()
    print(m.receipt)                                  # lines for people
    m.receipt.energy_kwh["total"], m.receipt.co2e_g   # what `wattledger run --json` writes

    @wattledger.measure("train", on_receipt=print)
    def train(): ...

Measured is this process with all its descendants, by the node's daemon where one runs, else with
the meters that this process may read itself.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from wattledger.config import load_config
from wattledger.errors import RunRefused
from wattledger.metering import Metering, Wanted, begin
from wattledger.remote import remote_of
from wattledger_exporters.receipts import receipt_text

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class MeasuredReceipt:
    """What a part of a program cost.

    Its attributes are the fields of the receipt that `wattledger run --json` writes, among them:

    Attributes:
        energy_kwh: IT energy by kind (`gpu`, `cpu`, `dram`, `other`) and in `total`.
        co2e_g: gCO2e, of energy × PUE.
        water_l: litres by origin (`onsite`, `grid`) and in `total`.
        cost: `amount` and `currency`; None where no price is set.
        costs: the same of each currency, with the share of the energy that had a price.
        market_co2e_g: by the site's contracts, beside `co2e_g`; None where there are none.
        embodied_co2e_g: of making the hardware held, not in `co2e_g`; None: nothing is known.
        duration_s: seconds.
        mean_watts: mean power.
        quality: how it was measured → its share of the energy.
        estimated_share: of the energy, what no meter saw.
        grid: whose carbon intensity priced it.
        complete: False: a part of it was not measured.
    """

    energy_kwh: Mapping[str, float]
    co2e_g: float
    water_l: Mapping[str, float]
    cost: Mapping[str, Any] | None
    costs: Sequence[Mapping[str, Any]]
    market_co2e_g: float | None
    embodied_co2e_g: float | None
    duration_s: float
    mean_watts: float
    quality: Mapping[str, float]
    estimated_share: float
    grid: Sequence[Mapping[str, Any]]
    complete: bool

    def __init__(self, fields: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        """Args: fields: of `receipt_json`. notes: sentences about how it was measured."""
        self._fields = dict(fields)
        self._notes = tuple(notes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"a receipt has no {name!r}; it has {', '.join(self._fields)}")
        return self._fields[name]

    def json(self) -> dict[str, Any]:
        """All of it as plain data, for `json.dumps`."""
        return copy.deepcopy(self._fields)

    def __str__(self) -> str:
        # A block has no exit code: the JSON's 1 is for that something was raised.
        raised = ("Something was raised in it.",) if self._fields["exit_code"] else ()
        return receipt_text({**self._fields, "exit_code": None}, (*raised, *self._notes))

    def __repr__(self) -> str:
        return f"<receipt {self.name!r}: {self.energy_kwh['total']:.3g} kWh, {self.co2e_g:.3g} g>"


class Measure:
    """Measures a `with` block, an `async with` block or each call of a function.

    Entered again before it was left (by recursion, or by another thread), it goes on: one
    measurement from the first entry to the last exit. Nothing that goes wrong with the metering is
    raised: it is logged once, and `receipt` stays None or says `complete=False`.

    Attributes:
        receipt: of the last block or call that ended; None: there is none.
    """

    def __init__(
        self,
        name: str = "",
        *,
        gpus: Sequence[int | str] = (),
        on_receipt: Callable[[MeasuredReceipt], object] | None = None,
        config: str | os.PathLike[str] | None = None,
        socket: str | os.PathLike[str] | None = None,
    ) -> None:
        """See `measure`."""
        self.receipt: MeasuredReceipt | None = None
        self._name = name
        self._gpus = tuple(str(gpu) for gpu in gpus)
        self._on_receipt = on_receipt
        self._config = Path(config) if config is not None else None
        self._socket = Path(socket) if socket is not None else None
        self._lock = threading.Lock()
        self._depth = 0
        self._metering: Metering | None = None
        self._refused = ""
        self._pid = 0

    # ── with ────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self.receipt = None
                self._pid = os.getpid()
                self._metering = self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._depth -= 1
            metering = self._metering
            # What a parent process began, its forked child does not end.
            if self._depth or metering is None or os.getpid() != self._pid:
                return
            self._metering = None
            self.receipt = receipt = self._finish(metering, 0 if error is None else 1)
        if receipt is not None and self._on_receipt is not None:
            self._on_receipt(receipt)

    async def __aenter__(self) -> Self:
        import asyncio

        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def _begin(self) -> Metering | None:
        self._refused = ""
        try:
            config = load_config(self._config)
            remote = remote_of(config, self._socket)
            wanted = Wanted.of(self._name, self._gpus)
            try:
                return begin(wanted, config, remote)
            except RunRefused as error:
                if not self._gpus:
                    raise
                why = error.message.rstrip(".")
                _warn(f"{why}; measured without these GPUs")
                self._refused = f"Without the GPUs that were asked for: {why}."
                return begin(wanted._replace(gpus=()), config, remote)
        except Exception as error:  # noqa: BLE001  (whatever it is, the program goes on)
            _warn(f"{self._name or 'a step'} is not measured: {error}", error)
            return None

    def _finish(self, metering: Metering, exit_code: int) -> MeasuredReceipt | None:
        try:
            fields, notes = metering.finish(exit_code)
        except Exception as error:  # noqa: BLE001  (as above)
            _warn(f"{self._name or 'a step'} has no receipt: {error}", error)
            return None
        if fields["energy_kwh"] is None:
            _warn(" ".join(notes))
            return None
        if self._refused:
            fields, notes = {**fields, "complete": False}, (self._refused, *notes)
        return MeasuredReceipt(fields, notes)

    # ── as a decorator ──────────────────────────────────────────────────────────────────────────

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure each call of a function, also of an `async def`.

        The function keeps what it returns; `function.receipt` is that of its last call to end.

        Raises:
            TypeError: it is a generator, whose body runs in pieces and never as one call.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator: its body runs between other people's "
                "code; write `with wattledger.measure(…):` around the loop over it"
            )
        if inspect.isclass(function) or not callable(function):
            raise TypeError("a function can be measured, a class cannot: decorate its methods")

        def step() -> Measure:
            name = self._name or getattr(function, "__qualname__", "")
            return Measure(
                name,
                gpus=self._gpus,
                on_receipt=self._on_receipt,
                config=self._config,
                socket=self._socket,
            )

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured(*args: P.args, **kwargs: P.kwargs) -> Any:
                one = step()
                try:
                    async with one:
                        return await function(*args, **kwargs)
                finally:
                    measured.receipt = one.receipt  # type: ignore[attr-defined]

        else:

            @functools.wraps(function)
            def measured(*args: P.args, **kwargs: P.kwargs) -> Any:
                one = step()
                try:
                    with one:
                        return function(*args, **kwargs)
                finally:
                    measured.receipt = one.receipt  # type: ignore[attr-defined]

        measured.receipt = None  # type: ignore[attr-defined]
        return cast("Callable[P, R]", measured)


@overload
def measure(
    name: str = "",
    *,
    gpus: Sequence[int | str] = (),
    on_receipt: Callable[[MeasuredReceipt], object] | None = None,
    config: str | os.PathLike[str] | None = None,
    socket: str | os.PathLike[str] | None = None,
) -> Measure: ...


@overload
def measure(name: Callable[P, R]) -> Callable[P, R]: ...


def measure(name: Any = "", **options: Any) -> Any:  # noqa: D417  (in the overload)
    """Measure what a part of a program costs: a `with` block, or each call of a function.

    Args:
        name: what to call it; a decorated function is called by its own name if there is none.
            `@measure` without brackets does as well.
        gpus: numbers or UUIDs of GPUs that count as its own for as long as it runs, used or not;
            others count while the program has a process on them.
        on_receipt: called with each receipt; `print` shows it.
        config: the settings (TOML) for measuring without a daemon, and where to find one.
        socket: the daemon's Unix socket, if it is not where the settings say.

    Returns:
        A `Measure`, or the decorated function.
    """
    if callable(name):
        return Measure(**options)(name)
    return Measure(name, **options)


_said: set[str] = set()


def _warn(text: str, error: Exception | None = None) -> None:
    """Say it once: a step may run a million times."""
    if text not in _said and len(_said) < 100:
        _said.add(text)
        log.warning("%s", text)
        log.debug("because", exc_info=error)
