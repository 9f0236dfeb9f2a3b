"""The page for people at `/`: what is measured, how well, and where to look. No script in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from wattledger import units
from wattledger.model import DeviceInfo, FallbackLevel, PayeeKind, Snapshot
from wattledger.model.jobbooks import sum_of
from wattledger.units import NS_PER_S, format_duration
from wattledger_exporters.http.api import LEVELS, node_total
from wattledger_exporters.job_metrics import NO_PAST, job_runs
from wattledger_exporters.when import iso
from wattledger_exporters.wording import number

_PAGE = Path(__file__).parent / "page"
_STARTING = '<p class="note">The daemon is starting; the first figures come with its first commit.'
_BAR_WIDTH = 1000
_JOBS_SHOWN = 10
_JOBS_MORE = "On the node <code>wattledger top</code> and <code>wattledger jobs</code> tell more."


@cache
def _template() -> tuple[Template, str]:
    """The page with its style put in, and the style's hash for the security policy."""
    style = (_PAGE / "status.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = (_PAGE / "status.html").read_text(encoding="utf-8")
    return Template(html.replace("$style", style)), digest


def security_headers() -> tuple[tuple[str, str], ...]:
    """What a browser may do with the page: show it, with its own style, and nothing else."""
    policy = (
        f"default-src 'none'; style-src 'sha256-{_template()[1]}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return (
        ("content-security-policy", policy),
        ("x-frame-options", "deny"),
        ("referrer-policy", "no-referrer"),
    )


def html_page(snapshot: Snapshot | None, now_ns: int) -> str:
    """The whole document; every text that is not ours is escaped."""
    body = _body(snapshot, now_ns) if snapshot is not None else _STARTING
    version = snapshot.version if snapshot is not None else ""
    return _template()[0].substitute(version=escape(version), body=body)


def _body(snapshot: Snapshot, now_ns: int) -> str:
    return "\n".join(
        (
            _notes(snapshot, now_ns),
            _figures(snapshot),
            _payees(snapshot),
            _jobs(snapshot),
            _devices(snapshot),
            _grid(snapshot, now_ns),
            _meters(snapshot, now_ns),
            _ledger(snapshot),
        )
    )


def _notes(snapshot: Snapshot, now_ns: int) -> str:
    notes = []
    if snapshot.simulated:
        notes.append(
            f"Simulated GPUs (scenario {snapshot.simulated}): none of this is real energy."
        )
    if snapshot.released_until_ns > now_ns:
        until = iso(snapshot.released_until_ns)
        notes.append(f"The GPUs are released until {until}; their energy is booked afterwards.")
    if snapshot.ledger.message:
        notes.append(f"{snapshot.ledger.message} {snapshot.ledger.hint}")
    if snapshot.ledger.quarantined:
        notes.append(f"A damaged ledger was set aside: {snapshot.ledger.quarantined}")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _figures(snapshot: Snapshot) -> str:
    row = node_total(snapshot)
    whole = row.amounts
    power_uw = sum(snapshot.power_uw.values())
    cards = [
        ("power now", f"{units.watts(power_uw):,.0f}" if snapshot.power_uw else "–", "W"),
        ("IT energy", _number(units.kwh(whole.energy_uj)), "kWh"),
        ("CO₂e, with PUE", *_scaled(units.grams(whole.co2e_ug), "g", "kg", "t")),
        ("water on site", _number(units.liters(whole.water_onsite_ul)), "L"),
        ("water of the grid", _number(units.liters(whole.water_grid_ul)), "L"),
    ]
    sums = row.sums
    cards += [("cost", _number(c.amount), currency) for currency, c in sorted(sums.costs.items())]
    if sums.market.energy_uj:
        cards.append(("CO₂e by contracts", *_scaled(sums.market.amount, "g", "kg", "t")))
    if sums.embodied_g is not None:
        cards.append(("CO₂e of the hardware", *_scaled(sums.embodied_g, "g", "kg", "t")))
    figures = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value} <small>{escape(unit)}</small></dd></div>"
        for name, value, unit in cards
    )
    since = iso(snapshot.books.epoch_start_ns) or "–"
    until = iso(snapshot.books.books_ns) or "–"
    share = ""
    if row.estimated_uj:
        share = f" {100 * row.estimated_uj / whole.energy_uj:.1f} % of it estimated."
    if len(row.bases) > 1:
        share += f" CO₂e adds up unlike bases: {', '.join(row.bases)}."
    return (
        f'<dl class="figures">{figures}</dl>'
        f'<p class="quiet">Booked from {since} to {until}.{share}</p>'
    )


def _payees(snapshot: Snapshot) -> str:
    energy_uj = dict.fromkeys(PayeeKind, 0)
    for key, total in snapshot.books.totals.items():
        energy_uj[key.payee] += total.amounts.energy_uj
    whole_uj = sum(energy_uj.values())
    if not whole_uj:
        return ""
    bars, names, left = [], [], 0.0
    for payee, uj in energy_uj.items():
        width = _BAR_WIDTH * uj / whole_uj
        bars.append(
            f'<rect class="{payee}" x="{left:.1f}" width="{width:.1f}" height="24">'
            f"<title>{payee}</title></rect>"
        )
        left += width
        names.append(
            f'<li class="{payee}">{payee} <b>{_number(units.kwh(uj))}</b> kWh, '
            f"{100 * uj / whole_uj:.1f} %</li>"
        )
    return (
        "<h2>For whom</h2>"
        f'<svg class="bar" viewBox="0 0 {_BAR_WIDTH} 24" preserveAspectRatio="none" role="img" '
        f'aria-label="Energy by payee">{"".join(bars)}</svg>'
        f'<ul class="legend">{"".join(names)}</ul>'
    )


def _jobs(snapshot: Snapshot) -> str:
    """How many jobs run, and those that draw most: what `/metrics` shows of them, no more."""
    books = snapshot.books.jobs
    running = {book.run.key for book in books.runs.values() if not book.run.end_ns}
    if not running:
        return '<h2>Jobs</h2><p class="quiet">No job runs now.</p>'
    power_uw, listed = snapshot.job_power_uw, job_runs(books)
    shown = [key for key in listed if key in running]
    shown.sort(key=lambda key: (-power_uw.get(key, 0), key))
    rows = []
    for key in shown[:_JOBS_SHOWN]:
        power = f"{units.watts(power_uw[key]):,.0f}" if key in power_uw else "–"
        past = books.past.get(key, NO_PAST).cells
        cells = sum_of((past, *(book.cells for book in listed[key]))).values()
        energy_uj = sum(cell.amounts.energy_uj for cell in cells)
        job = escape(f"{key.manager}/{key.job_id}")
        rows.append((job, power, number(units.kwh(energy_uj))))
    count = "1 job runs now" if len(running) == 1 else f"{len(running):,} jobs run now"
    most = f"; these {len(rows)} draw most" if len(running) > len(rows) > 0 else ""
    table = _table(("job", "W", "kWh"), rows, figures_from=1) if rows else ""
    return f'<h2>Jobs</h2>{table}<p class="quiet">{count}{most}. {_JOBS_MORE}</p>'


def _devices(snapshot: Snapshot) -> str:
    energy_uj: dict[str, int] = {}
    for key, total in snapshot.books.totals.items():
        energy_uj[key.device] = energy_uj.get(key.device, 0) + total.amounts.energy_uj
    rows = []
    for name, record in sorted(snapshot.books.devices.items()):
        info: DeviceInfo = record.info
        power = "–"
        if name in snapshot.power_uw:
            power = f"{units.watts(snapshot.power_uw[name]):,.0f}"
        state = "" if info.present else '<span class="off">gone</span>'
        unobserved = record.unobserved_ms * units.NS_PER_MS // NS_PER_S * NS_PER_S
        cells = (
            f"{escape(name)} {state}",
            escape(info.kind),
            escape(info.model) or "–",
            escape(info.meter),
        )
        figures = (
            power,
            _number(units.kwh(energy_uj.get(name, 0))),
            format_duration(unobserved) if unobserved else "–",
        )
        rows.append((*cells, *figures))
    heads = ("device", "kind", "model", "meter", "W", "kWh", "unobserved")
    return "<h2>Devices</h2>" + _table(heads, rows, figures_from=4)


def _grid(snapshot: Snapshot, now_ns: int) -> str:
    grid, site = snapshot.grid, snapshot.site
    signal = grid.signal
    age_ns = max(0, (now_ns - signal.valid_from_ns) // (60 * NS_PER_S) * 60 * NS_PER_S)
    estimated = ", estimated" if grid.estimated else ""
    age = "" if grid.level == FallbackLevel.TABLE else f", {format_duration(age_ns)} old"
    # The table's signals are called "table", which its level says as well.
    level = LEVELS.get(grid.level, "")
    origin = [signal.source, f"zone {signal.zone}", signal.basis, level]
    if grid.level == FallbackLevel.TABLE:
        origin = [level, *origin[1:3]]
    rows = [
        (
            "carbon intensity",
            f"{units.grams(signal.intensity_ug_per_kwh):,.1f} g/kWh",
            escape(f"{', '.join(origin)}{age}{estimated}"),
        ),
        ("PUE", f"{site.pue_ppm / units.PPM:g}", escape(site.pue_source)),
        ("WUE", f"{units.liters(site.wue_ul_per_kwh):g} L/kWh", escape(site.wue_source)),
        ("EWIF", f"{units.liters(site.ewif_ul_per_kwh):g} L/kWh", escape(site.ewif_source)),
    ]
    if site.water_stress_factor is not None:
        rows.append(("water stress", f"{site.water_stress_factor:g}", "AWARE, world mean 1"))
    for source in (*snapshot.sources, *snapshot.site_sources):
        last = iso(source.last_success_ns) or "never"
        words = f"{source.message} {source.hint}" if source.message else "answers"
        rows.append((f"source {escape(source.source)}", f"last {last}", escape(words)))
    return "<h2>Grid and site</h2>" + _table(("what", "value", "from"), rows)


def _meters(snapshot: Snapshot, now_ns: int) -> str:
    rows = []
    for meter in snapshot.meters:
        state = '<span class="on">up</span>' if meter.up else '<span class="off">down</span>'
        ago = "never"
        if meter.last_success_ns:
            ago_ns = max(0, now_ns - meter.last_success_ns) // NS_PER_S * NS_PER_S
            ago = f"{format_duration(ago_ns)} ago"
        errors = ", ".join(f"{count}× {reason}" for reason, count in sorted(meter.errors.items()))
        words = f"{meter.message} {meter.hint}".strip() or errors or "–"
        rows.append((escape(meter.meter), state, ago, escape(words)))
    return "<h2>Meters</h2>" + _table(("meter", "state", "last reading", "what to know"), rows)


def _ledger(snapshot: Snapshot) -> str:
    ledger = snapshot.ledger
    rows = [
        ("storage", escape(f"{ledger.storage}, {ledger.path}")),
        ("epoch", escape(snapshot.books.epoch)),
        ("commits", f"{snapshot.books.commits:,} ({ledger.errors} failed)"),
        ("last commit", iso(ledger.last_commit_ns) or "never"),
        ("size", f"{ledger.size_bytes / 1024:,.0f} KiB"),
    ]
    return "<h2>Ledger</h2>" + _table(("what", "value"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], figures_from: int = 99) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        marked = (
            f'<{tag} class="n">{cell}</{tag}>' if i >= figures_from else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        f'<div class="scroll"><table><thead>{line("th", heads)}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"


def _scaled(value: float, *names: str) -> tuple[str, str]:
    for name in names[:-1]:
        if value < 1000:
            return f"{value:,.2f}", name
        value /= 1000
    return f"{value:,.2f}", names[-1]
