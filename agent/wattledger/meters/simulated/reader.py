"""From a scenario file to a `Scenario`, or to a list of everything that is wrong with it.

Every fault names the file, the line and the key: `eight-h100.toml:12: gpu[2].waveform.kind: …`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wattledger.errors import ScenarioError
from wattledger.meters.simulated import schema, waveforms
from wattledger.meters.simulated.card import MAX_WINDOW_TICKS, draw, window_ticks
from wattledger.meters.simulated.live import Live
from wattledger.meters.simulated.locate import Path as KeyPath
from wattledger.meters.simulated.locate import key_lines, line_of
from wattledger.meters.simulated.models import MODELS, Model
from wattledger.meters.simulated.scenario import (
    FaultSpec,
    Gpu,
    MigInstance,
    Process,
    Scenario,
    Sensor,
    Span,
)
from wattledger.meters.simulated.traces import read_points, read_trace
from wattledger.meters.simulated.waveforms import Waveform
from wattledger.units import NS_PER_MS, NS_PER_S, PPM, UW_PER_W

_HINT = "configs/scenarios/README.md lists what a scenario may say"
_RANDOM_SLOTS = 1024  # places of random bursts before they repeat
_DEAD_PID = 1 << 22  # Linux's PID_MAX_LIMIT: pids are below it
_Table = dict[str, Any]


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: it cannot be read, or every fault found in it, one line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot read the scenario: {error}") from error
    return parse_scenario(text, path.name, path.parent)


def parse_scenario(text: str, name: str, folder: Path | None = None) -> Scenario:
    """Read a scenario.

    Args:
        text: TOML.
        name: the file's, for messages.
        folder: where its trace files are; None: the working directory.

    Raises:
        ScenarioError: with every fault found, one line each.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = found[1] if found else str(text.count("\n") + 1)  # else: at end of document
        raise ScenarioError(f"{name}:{line}: not TOML: {error}") from error
    return _Reader(name, key_lines(text), folder or Path()).scenario(document)


class _Reader:
    def __init__(self, name: str, lines: dict[KeyPath, int], folder: Path) -> None:
        self._name = name
        self._lines = lines
        self._folder = folder
        self._faults: list[tuple[int, str]] = []

    # ── the grammar ─────────────────────────────────────────────────────────────────────────────

    def _wrong(self, path: KeyPath, sentence: str) -> None:
        line = line_of(self._lines, path)
        label = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        text = f"{self._name}:{line}: {label}: {sentence}".replace("\n", "\\n")
        self._faults.append((line, text))

    def _read(self, path: KeyPath, value: object, keys: Mapping[str, schema.Key]) -> _Table:
        """The known, sound values of a table; every other is noted as a fault."""
        if not isinstance(value, dict):
            self._wrong(path, f"{value} is not a table")
            return {}
        good: _Table = {}
        for key, raw in value.items():
            if key not in keys:
                self._wrong((*path, key), f"unknown; use one of {', '.join(keys)}")
                continue
            try:
                good[key] = keys[key].check(raw)
            except ValueError as error:
                self._wrong((*path, key), str(error))
        for key, what in keys.items():
            if what.required and key not in value:
                self._wrong((*path, key), f"is missing: {what.meaning}")
        return good

    def _kind(
        self, path: KeyPath, value: object, kinds: Mapping[str, Mapping[str, schema.Key]]
    ) -> tuple[str, _Table] | None:
        """The kind of a table and its values by that kind's keys; None if they will not do."""
        if not isinstance(value, dict):
            self._wrong(path, f"{value} is not a table")
            return None
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            said = "is missing" if kind is None else f'"{kind}" is unknown'
            self._wrong((*path, "kind"), f"{said}; use one of {', '.join(kinds)}")
            return None
        before = len(self._faults)
        rest = {key: raw for key, raw in value.items() if key != "kind"}
        good = self._read(path, rest, kinds[kind])
        return None if len(self._faults) > before else (kind, good)

    # ── the parts ───────────────────────────────────────────────────────────────────────────────

    def scenario(self, document: _Table) -> Scenario:
        top = self._read((), document, schema.SCENARIO)
        seed = top.get("seed", 1)
        gpus: list[Gpu] = []
        for place, value in enumerate(top.get("gpu", ())):
            gpus += self._gpus(("gpu", place), value, seed, len(gpus))
        if "gpu" in top and not top["gpu"]:
            self._wrong(("gpu",), "is empty; a scenario has at least one card")
        if len(gpus) > schema.MAX_GPUS:
            self._wrong(("gpu",), f"{len(gpus)} cards; at most {schema.MAX_GPUS} can be simulated")
        for what in ("uuid", "minor"):
            values = [getattr(gpu, what) for gpu in gpus]
            for again in sorted({str(v) for v in values if values.count(v) > 1}):
                self._wrong(("gpu",), f"two cards have {what} {again}")
        known = None if self._faults else gpus  # else nobody knows how many cards are meant
        faults = [
            fault
            for place, value in enumerate(top.get("fault", ()))
            if (fault := self._fault(("fault", place), value, known)) is not None
        ]
        if self._faults:
            raise ScenarioError("\n".join(text for _, text in sorted(set(self._faults))), _HINT)
        return Scenario(
            name=top.get("name", self._name.removesuffix(".toml")),
            seed=seed,
            driver_version=top.get("driver_version", "570.133.20"),
            gpus=tuple(gpus),
            faults=tuple(faults),
        )

    def _gpus(self, path: KeyPath, value: object, seed: int, first: int) -> list[Gpu]:
        """The `count` cards of one [[gpu]]."""
        said = self._read(path, value, schema.GPU)
        if "model" not in said:
            return []
        model, count = MODELS[said["model"]], said.get("count", 1)
        if "uuid" in said and count > 1:
            self._wrong((*path, "uuid"), f"one UUID for {count} cards; write it for single cards")
        limit_uw = said.get("power_limit_w", model.max_limit_w * UW_PER_W)
        wave = self._waveform((*path, "waveform"), said.get("waveform"), model, seed, limit_uw)
        processes = self._processes((*path, "processes"), said.get("processes", ()))
        mig_on, mig = self._mig((*path, "mig"), said.get("mig"), model)
        made = []
        for place in range(count):
            number = first + place
            waveform, sensor = wave(place), self._sensor(path, said, model, seed, number)
            if place == 0:
                self._plausible(path, waveform, sensor, limit_uw)
            made.append(
                Gpu(
                    number=number,
                    uuid=said.get("uuid") or _uuid(seed, number),
                    minor=said.get("minor", first) + place,
                    model=model,
                    waveform=waveform,
                    power_limit_uw=limit_uw,
                    persistence=said.get("persistence", True),
                    sensor=sensor,
                    processes=processes,
                    mig_on=mig_on,
                    mig=mig,
                )
            )
        return made

    def _plausible(self, path: KeyPath, wave: Waveform, sensor: Sensor, limit_uw: int) -> None:
        if wave.peak_uw > limit_uw:
            peak_w, limit_w = wave.peak_uw / UW_PER_W, limit_uw / UW_PER_W
            sentence = f"draws up to {peak_w:g} W, more than the power limit of {limit_w:g} W"
            self._wrong((*path, "waveform"), sentence)
        if wave.floor_uw * sensor.gain_ppm // PPM + sensor.offset_uw < 0:
            self._wrong((*path, "sensor", "offset_w"), "makes the shown power negative")
        if sensor.window_mode:
            ticks = window_ticks(sensor.tick_ns, wave.period_ns)
            if ticks > MAX_WINDOW_TICKS:
                self._wrong(
                    (*path, "sensor", "mode"),
                    f'with "window", counter tick and waveform must meet within {MAX_WINDOW_TICKS} '
                    f"ticks; here they do after {ticks}: round the period",
                )

    def _waveform(
        self, path: KeyPath, value: object, model: Model, seed: int, limit_uw: int
    ) -> Callable[[int], Waveform]:
        """The waveform of the nth card of an entry, as a function of n."""
        idle = waveforms.constant(model.idle_w * UW_PER_W)
        found = None if value is None else self._kind(path, value, schema.WAVEFORMS)
        if found is None:
            return lambda _: idle
        kind, said = found
        phase_ns, stagger_ns = said.get("phase_s", 0), said.get("stagger_s", 0)

        def shifted(place: int) -> int:
            return int(phase_ns + place * stagger_ns)

        if kind == "constant":
            level = waveforms.constant(said["watts"])
            return lambda _: level
        if kind == "sine":
            mean, swing, period = said["mean_w"], said["amplitude_w"], said["period_s"]
            if swing > mean:
                self._wrong((*path, "amplitude_w"), "is more than the mean; power is not negative")
                return lambda _: idle
            return lambda place: waveforms.Sine(mean, swing, period, shifted(place))
        if kind == "trace":
            points = self._points(path, said)
            linear = said.get("interpolation") == "linear"
            if not points:
                return lambda _: idle
            return lambda place: waveforms.trace(points, linear, shifted(place))
        if kind == "live":
            idle_uw = said.get("idle_w", model.idle_w * UW_PER_W)
            return lambda _: Live(self._folder / said["file"], idle_uw, limit_uw)
        low, high = said["low_w"], said["high_w"]
        if low > high:
            self._wrong((*path, "low_w"), "is above high_w")
        if kind == "square":
            period = said["period_s"]
            high_ns = period * said.get("duty", PPM // 2) // PPM
            return lambda place: waveforms.square(low, high, period, high_ns, shifted(place))
        width, every = said["width_s"], said["every_s"]
        if width > every:
            self._wrong((*path, "width_s"), "is longer than every_s")
            return lambda _: idle
        if not said.get("random", False):
            return lambda place: waveforms.bursts(low, high, width, every, [0], shifted(place))

        def at_random(place: int) -> Waveform:
            random = draw(seed, place, ".".join(map(str, path)))
            offsets = [random.randint(0, every - width) for _ in range(_RANDOM_SLOTS)]
            return waveforms.bursts(low, high, width, every, offsets, shifted(place))

        return at_random

    def _points(self, path: KeyPath, said: _Table) -> list[tuple[int, int]]:
        if ("file" in said) == ("points" in said):
            self._wrong(path, "a trace has either file or points")
            return []
        key = "file" if "file" in said else "points"
        try:
            return (
                read_trace(self._folder / said[key]) if key == "file" else (read_points(said[key]))
            )
        except ValueError as error:
            self._wrong((*path, key), str(error))
            return []

    def _sensor(self, path: KeyPath, said: _Table, model: Model, seed: int, number: int) -> Sensor:
        own = self._read((*path, "sensor"), said.get("sensor", {}), schema.SENSOR)
        random = draw(seed, number, "gain")
        drawn_gain, drawn_offset = random.gauss(0.96, 0.03), random.uniform(-5.0, 5.0)
        gain, offset = own.get("gain", PPM), own.get("offset_w", 0)
        usage = own.get("usage", "average" if model.usage_averages else "instant")
        return Sensor(
            counter=own.get("counter", True),
            window_mode=own.get("mode") == "window",
            tick_ns=own.get("tick_ms", model.tick_ms * NS_PER_MS),
            lag_ns=own.get("lag_ms", 0),
            power_tick_ns=own.get("power_tick_ms", model.power_tick_ms * NS_PER_MS),
            window_ns=own.get("window_ms", model.window_ms * NS_PER_MS),
            average=own.get("average", model.average),
            average_ns=own.get("average_ms", NS_PER_S),
            usage_averages=usage == "average",
            module=own.get("scope", "module" if model.module else "gpu") == "module",
            gain_ppm=round(drawn_gain * PPM) if gain == "random" else gain,
            offset_uw=round(drawn_offset * UW_PER_W) if offset == "random" else offset,
            noise_uw=own.get("noise_w", UW_PER_W // 10),
            rise_ns=own.get("rise_ms", 0),
            samples=own.get("samples", True),
            sample_ns=own.get("sample_ms", 20 * NS_PER_MS),
            sample_count=own.get("sample_count", 120),
            call_timestamps=own.get("timestamps") == "call",
        )

    def _processes(self, path: KeyPath, values: object) -> tuple[Process, ...]:
        found = []
        for place, value in enumerate(values if isinstance(values, list) else ()):
            said = self._read((*path, place), value, schema.PROCESS)
            pid = said.get("pid", "self")
            found.append(
                Process(
                    pid=None if pid == "self" else pid,
                    sm_util=said.get("sm_util"),
                    memory_mib=said.get("memory_mib", 1024),
                    graphics=said.get("type") == "graphics",
                    span=_span(said),
                )
            )
        return tuple(found)

    def _mig(
        self, path: KeyPath, value: object, model: Model
    ) -> tuple[bool, tuple[MigInstance, ...]]:
        if value is None:
            return False, ()
        if not model.mig_slices:
            self._wrong(path, f"{model.name} has no MIG")
        said = self._read(path, value, schema.MIG)
        instances = []
        for place, entry in enumerate(said.get("instances", ())):
            at = (*path, "instances", place)
            good = self._read(at, entry, schema.MIG_INSTANCE)
            shape = re.fullmatch(r"([1-7])g\.(\d+)gb", good.get("profile", ""))
            if shape is None:
                if "profile" in good:
                    self._wrong((*at, "profile"), 'is no profile; write one such as "3g.40gb"')
                continue
            processes = self._processes((*at, "processes"), good.get("processes", ()))
            size = int(shape[2]) * 1024
            instances.append(MigInstance(good["profile"], int(shape[1]), size, processes))
        used = sum(instance.slices for instance in instances)
        if used > model.mig_slices > 0:
            self._wrong(
                (*path, "instances"), f"take {used} slices; the card has {model.mig_slices}"
            )
        return said.get("enabled", True), tuple(instances)

    def _fault(self, path: KeyPath, value: object, gpus: list[Gpu] | None) -> FaultSpec | None:
        found = self._kind(path, value, {k: keys for k, (_, keys) in schema.FAULTS.items()})
        if found is None or gpus is None:
            return None
        kind, said = found
        gpu, indices = said.get("gpu"), said.get("indices", [])
        if gpu is not None and gpu >= len(gpus):
            self._wrong((*path, "gpu"), f"there is no card {gpu}; numbers run to {len(gpus) - 1}")
            return None
        whole = [index for index in indices if type(index) is int]
        if kind == "reorder" and (whole != indices or sorted(whole) != list(range(len(gpus)))):
            self._wrong((*path, "indices"), f"must name each card 0 to {len(gpus) - 1} once")
        if kind == "mig_on" and any(
            not g.model.mig_slices for g in gpus if gpu in (None, g.number)
        ):
            self._wrong((*path, "gpu"), "the card has no MIG")
        span = _span(said)
        if kind == "driver_reload" and "for_s" not in said:
            span = Span(span.at_ns, 0, span.since_boot)
        return FaultSpec(
            kind=kind,
            gpu=gpu,
            span=span,
            indices=tuple(indices),
            pid=said.get("pid", _DEAD_PID),
            value=said.get("value", 255),
            age_ns=said.get("age_s", 9 * NS_PER_S),
            catch_up=said.get("catch_up", True),
            driver_version=said.get("driver_version", ""),
        )


def _span(said: _Table) -> Span:
    return Span(said.get("at_s", 0), said.get("for_s"), said.get("since") == "boot")


def _uuid(seed: int, number: int) -> str:
    """A GPU's UUID: the same for the same seed and place, on every machine."""
    digest = hashlib.sha256(f"{seed}/{number}/uuid".encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
