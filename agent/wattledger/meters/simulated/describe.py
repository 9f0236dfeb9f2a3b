"""`configs/scenarios/README.md`, from the schema.

python -m wattledger.meters.simulated.describe > configs/scenarios/README.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from wattledger.meters.simulated import schema
from wattledger.meters.simulated.models import MODELS

_INTRO = """\
# Scenarios

A scenario is a node of simulated GPUs: `wattledger serve --simulate FILE` plays it in the place of
NVML, through the same lines of the meter. This page is generated from the reader's own tables
(`python -m wattledger.meters.simulated.describe`).

```toml scenario
[[gpu]]
model = "H100 SXM"
count = 8
waveform = { kind = "square", low_w = 60, high_w = 600, period_s = 0.3 }

[[fault]]
kind = "lost"
gpu = 2
at_s = 10
for_s = 5
```

- Time 0 of every waveform and counter is the machine's boot: a daemon that starts again finds
  counters that went on, as with hardware. Faults count from the start of the process unless they
  say `since = "boot"`; with it, a restarted daemon finds them as its predecessor left them.
- The true energy is known exactly, whatever the sensors and faults make of it:
  `SimulatedNvml(load_scenario(path), clock).true_energy_uj(gpu)`. Without a gain, an offset or a
  fault the counter shows it, up to one tick late.
- A card's number is its place in the file, from 0. Names ending in `_w` are watts, `_s` seconds,
  `_ms` milliseconds.
- What a file may not say is refused with its line and what to write instead.

Shipped: `eight-h100.toml` (the demo), `mixed-fleet.toml` (cards with and without a counter),
`mig.toml`, `faults.toml` (a tour of five minutes).
"""


def describe() -> str:
    """The page."""
    parts = [_INTRO]
    parts += _section("Top level", schema.SCENARIO)
    parts += _section("`[[gpu]]`", schema.GPU)
    parts += _models()
    for kind, keys in schema.WAVEFORMS.items():
        parts += _section(f'`waveform = {{ kind = "{kind}" }}`', keys)
    parts += _section("`sensor`", schema.SENSOR)
    parts += _section("`processes`, an array of tables", schema.PROCESS)
    parts += _section("`mig`", schema.MIG)
    parts += _section("`mig.instances`, an array of tables", schema.MIG_INSTANCE)
    rows = ["| kind | what happens | keys |", "| --- | --- | --- |"]
    for kind, (what, keys) in schema.FAULTS.items():
        named = ", ".join(f"**`{k}`**" if key.required else f"`{k}`" for k, key in keys.items())
        rows.append(f"| `{kind}` | {what} | {named} |")
    parts += ["\n## `[[fault]]`\n", "Keys in bold are required.\n", "\n".join(rows) + "\n"]
    every = {k: key for _, keys in schema.FAULTS.values() for k, key in keys.items()}
    parts += _section("Keys of faults", every | schema.SPAN, level=3)
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def _section(title: str, keys: Mapping[str, schema.Key], level: int = 2) -> list[str]:
    rows = ["| key | meaning | default |", "| --- | --- | --- |"]
    for name, key in keys.items():
        default = "required" if key.required else key.default
        rows.append(f"| `{name}` | {key.meaning} | {default} |")
    return [f"\n{'#' * level} {title}\n", "\n".join(rows) + "\n"]


def _models() -> list[str]:
    rows = [
        "| model | idle W | load W | limit W | counter tick ms | power tick / window ms | mean |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| `{name}` | {m.idle_w} | {m.load_w} | {m.min_limit_w}–{m.max_limit_w} | {m.tick_ms} "
        f"| {m.power_tick_ms} / {m.window_ms} | {'1 s' if m.average else 'no'} |"
        for name, m in MODELS.items()
    ]
    return ["\n### Models\n", "\n".join(rows) + "\n"]


if __name__ == "__main__":
    sys.stdout.write(describe())
