"""What the dashboards are made of: panels with their unit, their limits and their explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as pm

from boards.variables import SOURCE

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "#EAB839", "orange", "red", "blue"
GRAY, PURPLE, CLEAR = "#8e8e8e", "purple", "transparent"

WATT, JOULE, KWH, GRAM, LITRE = "watt", "joule", "kwatth", "massg", "litre"
SECONDS, BYTES, SHARE, COUNT = "s", "bytes", "percentunit", "short"
G_PER_KWH, NUMBER = "suffix:g/kWh", "none"

Target = prom.Dataquery
Limits = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first has no value and holds below all others."""
PLAIN: Limits = ((None, GREEN),)


def series(expr: str, legend: str = "", ref: str = "A") -> Target:
    """A query over the range shown."""
    return (
        prom.Dataquery()
        .expr(expr)
        .range()
        .legend_format(legend or "__auto")
        .editor_mode(pm.QueryEditorMode.CODE)
        .format(pm.PromQueryFormat.TIME_SERIES)
        .ref_id(ref)
        .datasource(SOURCE)
    )


def now(expr: str, legend: str = "", ref: str = "A") -> Target:
    """A query at the end of the range shown."""
    made = series(expr, legend, ref).instant()
    made.build().range_val = False
    return made


def row_of(expr: str, ref: str) -> Target:
    """A query at the end of the range whose labels become a table's columns."""
    return now(expr, ref=ref).format(pm.PromQueryFormat.TABLE)


def _limits(limits: Limits) -> build.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=color) for value, color in limits]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _common(
    panel: Any, title: str, text: str, unit: str, targets: Sequence[Target], limits: Limits
) -> Any:
    made = panel.title(title).description(text).unit(unit).thresholds(_limits(limits))
    made = made.datasource(SOURCE)
    for number, target in enumerate(targets):
        made = made.with_target(target.ref_id(chr(ord("A") + number)))
    return made


def figure(
    title: str,
    text: str,
    unit: str,
    *targets: Target,
    limits: Limits = PLAIN,
    span: int = 4,
    height: int = 4,
    decimals: int | None = None,
    names: bool = False,
    words: Mapping[str, tuple[str, str]] | None = None,
) -> stat.Panel:
    """One number, or a few.

    Args:
        title: of the panel.
        text: what the number means and what it does not.
        unit: Grafana's id of the unit.
        targets: queries.
        limits: colours.
        span: width, of 24.
        height: in rows.
        decimals: None: as Grafana thinks.
        names: show the series' names too.
        words: value → (what is shown in its place, colour).
    """
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    made: stat.Panel = (
        _common(stat.Panel(), title, text, unit, targets, limits)
        .reduce_options(reduce)
        .graph_mode(cm.BigValueGraphMode.NONE)
        .color_mode(cm.BigValueColorMode.VALUE)
        .text_mode(cm.BigValueTextMode.VALUE_AND_NAME if names else cm.BigValueTextMode.VALUE)
        .span(span)
        .height(height)
    )
    if decimals is not None:
        made = made.decimals(decimals)
    if words:
        shown = {
            value: model.ValueMappingResult(text=word, color=color)
            for value, (word, color) in words.items()
        }
        made = made.mappings([model.ValueMap(options=shown)])
    return made


def lines(
    title: str,
    text: str,
    unit: str,
    *targets: Target,
    limits: Limits = PLAIN,
    stacked: bool = False,
    span: int = 12,
    height: int = 8,
    minimum: float | None = 0,
    maximum: float | None = None,
    decimals: int | None = None,
    calcs: Sequence[str] = ("mean", "lastNotNull"),
    links: Sequence[build.DashboardLink] = (),
    below: bool = False,
) -> timeseries.Panel:
    """Series over time, with a legend that tells their mean and their last value.

    Args:
        title: of the panel.
        text: what the series mean and what they do not.
        unit: Grafana's id of the unit.
        targets: queries.
        limits: colours; where they are not green, the background is shaded. A line would pass for
            a series.
        stacked: the series add up.
        span: width, of 24.
        height: in rows.
        minimum: of the axis; None: as the values are.
        maximum: likewise.
        decimals: None: as Grafana thinks.
        calcs: columns of the legend; none: only names.
        links: on the points.
        below: the legend is there, also of a wide panel: its names are long.
    """
    beside = span >= 12 and not below
    shape = cm.LegendDisplayMode.TABLE if calcs else cm.LegendDisplayMode.LIST
    legend = (
        common.VizLegendOptions()
        .display_mode(shape)
        .placement(cm.LegendPlacement.RIGHT if beside else cm.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(calcs))
    )
    tooltip = common.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI)
    style = (
        cm.GraphThresholdsStyleMode.OFF if len(limits) == 1 else cm.GraphThresholdsStyleMode.AREA
    )
    limits = [(value, CLEAR if color == GREEN else color) for value, color in limits]
    made: timeseries.Panel = (
        _common(timeseries.Panel(), title, text, unit, targets, limits)
        .legend(legend)
        .tooltip(tooltip.sort(cm.SortOrder.DESCENDING))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .line_width(1)
        .fill_opacity(60 if stacked else 0)
        .show_points(cm.VisibilityMode.NEVER)
        .span_nulls(False)
        .span(span)
        .height(height)
    )
    if stacked:
        made = made.stacking(common.StackingConfig().mode(cm.StackingMode.NORMAL).group("A"))
    if minimum is not None:
        made = made.min(minimum)
    if maximum is not None:
        made = made.max(maximum)
    if decimals is not None:
        made = made.decimals(decimals)
    if links:
        made = made.data_links(list(links))
    return made


def line_over(panel: timeseries.Panel, name: str, color: str, *, dashed: bool = False) -> Any:
    """Draw one series as a line over the stack."""
    style = {"fill": "dash", "dash": [8, 6]} if dashed else {"fill": "solid"}
    return panel.override_by_name(
        name,
        [
            model.DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
            model.DynamicConfigValue("custom.fillOpacity", 0),
            model.DynamicConfigValue("custom.lineWidth", 2),
            model.DynamicConfigValue("custom.lineStyle", style),
            model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color}),
        ],
    )


def colored(panel: timeseries.Panel, colors: Mapping[str, str]) -> Any:
    """Give series of known names the same colours on every dashboard."""
    made: Any = panel
    for name, color in colors.items():
        value = {"mode": "fixed", "fixedColor": color}
        made = made.override_by_name(name, [model.DynamicConfigValue("color", value)])
    return made


PAYEE_COLORS = {"jobs": BLUE, "idle": GRAY, "system": PURPLE, "unattributed": ORANGE}
KIND_COLORS = {"gpu": GREEN, "cpu": BLUE, "dram": PURPLE, "other": GRAY}


def bars(
    title: str,
    text: str,
    unit: str,
    *targets: Target,
    limits: Limits = PLAIN,
    span: int = 8,
    height: int = 8,
) -> bargauge.Panel:
    """The greatest of something, as bars."""
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    made: bargauge.Panel = (
        _common(bargauge.Panel(), title, text, unit, targets, limits)
        .reduce_options(reduce)
        .orientation(cm.VizOrientation.HORIZONTAL)
        .display_mode(cm.BarGaugeDisplayMode.BASIC)
        .value_mode(cm.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .text(common.VizTextDisplayOptions().title_size(14).value_size(18))
        .min(0)
        .span(span)
        .height(height)
    )
    return made


def grid(
    title: str,
    text: str,
    columns: Mapping[str, tuple[str, str]],
    *targets: Target,
    links: Mapping[str, tuple[str, str]] | None = None,
    limits: Mapping[str, Limits] | None = None,
    sort: str = "",
    span: int = 24,
    height: int = 8,
    drop: Sequence[str] = (),
    widths: Mapping[str, int] | None = None,
) -> table.Panel:
    """A table: queries at the end of the range, joined on the labels they share.

    Args:
        title: of the panel.
        text: what it shows.
        columns: label, or `Value #A` of the first query and so on → (heading, unit), in order.
        targets: queries made with `row_of`.
        links: heading → (title, address) of the link on its cells.
        limits: heading → colours of its cells.
        sort: heading by which rows are sorted, the greatest first.
        span: width, of 24.
        height: in rows.
        drop: more labels that are not shown.
        widths: heading → width in pixels, where names are long.
    """
    made: table.Panel = _common(table.Panel(), title, text, NUMBER, targets, PLAIN)
    made = made.with_transformation(model.DataTransformerConfig("merge", options={}))
    hidden = dict.fromkeys(("Time", "cluster", "job", *drop), True)
    order = {name: number for number, name in enumerate(columns)}
    names = {name: heading for name, (heading, _) in columns.items() if name != heading}
    options = {
        "excludeByName": {n: True for n in hidden if n not in columns},
        "includeByName": {},
        "indexByName": order,
        "renameByName": names,
    }
    made = made.with_transformation(model.DataTransformerConfig("organize", options=options))
    made = made.filterable(True).show_header(True).span(span).height(height)
    for heading, unit in columns.values():
        properties = [model.DynamicConfigValue("unit", unit)] if unit else []
        # Names can be filtered by; a number's heading needs the room of the sign for it.
        if unit:
            properties.append(model.DynamicConfigValue("custom.filterable", False))
        if width := {"Node": 150, "Cluster": 90, **(widths or {})}.get(heading):
            properties.append(model.DynamicConfigValue("custom.width", width))
        if links and heading in links:
            name, url = links[heading]
            properties.append(model.DynamicConfigValue("links", [{"title": name, "url": url}]))
        if limits and heading in limits:
            steps = [{"value": value, "color": color} for value, color in limits[heading]]
            properties += [
                model.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}),
                model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ]
        if properties:
            made = made.override_by_name(heading, properties)
    if sort:
        made = made.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    return made


# ── links ───────────────────────────────────────────────────────────────────────────────────────

_TO = "/d/wattledger-{board}?${{datasource:queryparam}}&${{__url_time_range}}"
_RAW = "${__value.raw}"
_CELL = "${{__data.fields.{0}}}"
_LABEL = "${{__field.labels.{0}}}"


def _address(board: str, form: str, **given: str) -> str:
    """A dashboard of the same range, with variables that are taken from a row or a series."""
    chosen = "".join(f"&var-{name}={form.format(of)}" for name, of in given.items())
    return _TO.format(board=board) + chosen


def to_node() -> tuple[str, str]:
    """From a cell that names a node to its dashboard. The table has a column `Cluster`."""
    address = _address("node", _CELL, cluster="Cluster")
    return "Show the node", f"{address}&var-instance={_RAW}"


def to_job() -> tuple[str, str]:
    """From a cell that names a job to its dashboard. It has columns `Cluster` and `Manager`."""
    address = _address("job", _CELL, cluster="Cluster", manager="Manager")
    return "Show the job", f"{address}&var-job_id={_RAW}"


def link_to_node() -> build.DashboardLink:
    """From a point of a series with `cluster` and `instance`."""
    address = _address("node", _LABEL, cluster="cluster", instance="instance")
    return build.DashboardLink("Show the node").url(address)


def link_to_job() -> build.DashboardLink:
    """From a point of a series with `cluster`, `manager` and `job_id`."""
    address = _address("job", _LABEL, cluster="cluster", manager="manager", job_id="job_id")
    return build.DashboardLink("Show the job").url(address)
