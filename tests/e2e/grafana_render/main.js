// A dashboard's JSON drawn with Grafana's own components. What Grafana's application adds around
// them (variables, links, the panel plugins' options that are not used here) is not run; variables
// are filled in before, see render.py.

import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  createTheme,
  dataLinksOverrideProcessor,
  dateTime,
  displayNameOverrideProcessor,
  FieldConfigOptionsRegistry,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  identityOverrideProcessor,
  LoadingState,
  numberOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  thresholdsOverrideProcessor,
  transformDataFrame,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import {
  BarGauge,
  BigValue,
  GlobalStyles,
  PanelChrome,
  Table,
  TimeSeries,
  VizRepeater,
} from '@grafana/ui';
import { eventsOf, framesOf } from './frames.js';

const theme = createTheme({ colors: { mode: 'light' } });
const GRID_WIDTH = 1400;
const CELL = { width: GRID_WIDTH / 24, height: 30, gap: 8 };
const h = React.createElement;

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map(
    (transformation) => ({ id: transformation.id, name: transformation.name, transformation })
  )
);

const CUSTOM = [
  'align', 'cellOptions', 'drawStyle', 'fillOpacity', 'filterable', 'inspect', 'lineStyle',
  'lineWidth', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle',
  'width',
];
const fieldConfigRegistry = new FieldConfigOptionsRegistry(() => [
  ...CUSTOM.map((path) => property(path, identityOverrideProcessor, true)),
  property('unit', unitOverrideProcessor),
  property('decimals', numberOverrideProcessor),
  property('min', numberOverrideProcessor),
  property('max', numberOverrideProcessor),
  property('displayName', displayNameOverrideProcessor),
  property('color', identityOverrideProcessor),
  property('links', dataLinksOverrideProcessor),
  property('mappings', valueMappingsOverrideProcessor),
  property('thresholds', thresholdsOverrideProcessor),
]);

function property(path, process, isCustom = false) {
  const id = isCustom ? `custom.${path}` : path;
  return { id, path, isCustom, name: id, process, shouldApply: () => true, override: () => null };
}

// ── panels ──────────────────────────────────────────────────────────────────────────────────────

function values(panel, frames) {
  return getFieldDisplayValues({
    data: frames,
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
}

function stat(panel, frames, size) {
  const named = panel.options.textMode === 'value_and_name';
  return h(VizRepeater, {
    ...size,
    source: frames,
    orientation: 'auto',
    getValues: () => values(panel, frames),
    renderValue: ({ value, width, height }) =>
      h(BigValue, {
        value: value.display,
        width,
        height,
        theme,
        colorMode: panel.options.colorMode,
        graphMode: 'none',
        justifyMode: 'auto',
        textMode: named ? 'value_and_name' : 'value',
      }),
  });
}

function bargauge(panel, frames, size) {
  return h(VizRepeater, {
    ...size,
    source: frames,
    orientation: 'horizontal',
    itemSpacing: 10,
    minVizHeight: 16,
    maxVizHeight: 40,
    getValues: () => values(panel, frames),
    getAlignmentFactors: getDisplayValueAlignmentFactors,
    renderValue: ({ value, width, height, alignmentFactors }) =>
      h(BarGauge, {
        value: value.display,
        width,
        height,
        theme,
        field: value.field,
        display: value.view?.getFieldDisplayProcessor(value.colIndex),
        orientation: 'horizontal',
        displayMode: 'basic',
        showUnfilled: true,
        text: panel.options.text ?? {},
        alignmentFactors,
        itemSpacing: 10,
        lcdCellWidth: 12,
      }),
  });
}

function timeseries(panel, frames, size, shown, events) {
  const prepare = (config) => {
    config.setPadding([null, 20, null, null]); // the last label of the time axis has room
    config.addHook('draw', (u) => {
      const { ctx, bbox } = u;
      ctx.save();
      for (const { color, at } of events) {
        const x = u.valToPos(at, 'x', true);
        ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(color);
        ctx.setLineDash([4, 4]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    });
    return null;
  };
  return h(TimeSeries, {
    ...size,
    frames,
    timeRange: shown.range,
    timeZone: 'utc',
    structureRev: 1,
    legend: panel.options.legend,
    children: prepare,
  });
}

function table(panel, frames, size) {
  const sortBy = panel.options.sortBy?.map(({ displayName, desc }) => ({ displayName, desc }));
  return h(Table, {
    ...size,
    data: frames[0],
    columnMinWidth: 60,
    initialSortBy: sortBy,
    fieldConfig: panel.fieldConfig,
    cellHeight: 'sm',
  });
}

const DRAW = { stat, bargauge, timeseries, table };

async function prepared(panel, shown) {
  let frames = await framesOf(panel, shown);
  if (panel.transformations?.length) {
    frames = await lastValueFrom(
      transformDataFrame(panel.transformations, frames, { interpolate: (text) => text })
    );
  }
  return applyFieldOverrides({
    data: frames,
    fieldConfig: panel.fieldConfig,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
    fieldConfigRegistry,
  });
}

class Caught extends React.Component {
  state = {};

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    const { error } = this.state;
    return error ? h('div', { 'data-error': true }, String(error)) : this.props.children;
  }
}

// What Grafana's application says in the place of a panel that got no series.
function isEmpty(frames) {
  return !frames.some(({ length, fields }) => length > 0 && fields.length > 0);
}

function Panel({ panel, result, shown, events }) {
  const { x, y, w, h: rows } = panel.gridPos;
  const width = w * CELL.width - CELL.gap;
  const height = rows * (CELL.height + CELL.gap) - CELL.gap;
  const place = { left: x * CELL.width, top: y * (CELL.height + CELL.gap), width, height };
  let inner;
  if (panel.type === 'row') {
    inner = h('h3', { style: { margin: 0, padding: '8px 4px', fontSize: 16 } }, panel.title);
  } else {
    const chrome = { title: panel.title, description: panel.description, width, height };
    inner = h(PanelChrome, { ...chrome, padding: panel.type === 'table' ? 'none' : 'sm' }, (iw, ih) =>
      result.error
        ? h('div', { 'data-error': true }, result.error)
        : isEmpty(result.frames)
          ? h('div', { style: { display: 'grid', placeItems: 'center', height: ih } }, 'No data')
          : h(Caught, null, DRAW[panel.type](panel, result.frames, { width: iw, height: ih }, shown, events))
    );
  }
  const attributes = { 'data-panel': panel.id, 'data-type': panel.type, 'data-title': panel.title };
  return h('div', { className: 'place', style: place, ...attributes }, inner);
}

function Board({ board, results, shown, events }) {
  const bottom = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const size = { height: bottom * (CELL.height + CELL.gap) + 56, width: GRID_WIDTH };
  const title = h('h2', { style: { margin: '0 0 8px', fontSize: 20, lineHeight: '40px' } }, board.title);
  const panels = board.panels.map((panel, i) =>
    h(Panel, { key: panel.id, panel, result: results[i], shown, events })
  );
  return h(
    ThemeContext.Provider,
    { value: theme },
    h(GlobalStyles, { hackNoBackdropBlur: true, isExtensionSidebarOpen: false }),
    h('div', { id: 'page', style: { ...size, padding: 12 } }, title, h('div', { style: { position: 'relative' } }, panels))
  );
}

// JSON has no -Infinity, so the lowest threshold is null there; Grafana mends it when it loads a
// dashboard.
function mendThresholds(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const changed = overrides.flatMap(({ properties }) => properties);
  const found = changed.filter(({ id }) => id === 'thresholds').map(({ value }) => value);
  for (const { steps } of [defaults.thresholds, ...found]) {
    steps[0].value ??= -Infinity;
  }
}

async function main() {
  const shown = await (await fetch('shown.json')).json();
  const { board } = shown;
  board.panels.filter(({ type }) => type !== 'row').forEach(mendThresholds);
  const [from, to] = [dateTime(shown.begin * 1000), dateTime(shown.end * 1000)];
  shown.range = { from, to, raw: { from, to } };
  const events = (
    await Promise.all(
      (board.annotations.list ?? []).map(async (annotation) =>
        (await eventsOf(annotation, shown)).map((at) => ({ at, color: annotation.iconColor }))
      )
    )
  ).flat();
  const results = await Promise.all(
    board.panels.map(async (panel) => {
      if (panel.type === 'row') {
        return {};
      }
      try {
        return { frames: await prepared(panel, shown), state: LoadingState.Done };
      } catch (error) {
        return { error: String(error) };
      }
    })
  );
  createRoot(document.getElementById('board')).render(h(Board, { board, results, shown, events }));
  window.drawn = { events: events.length, units: results.length };
}

main().catch((error) => {
  window.failed = String(error?.stack ?? error);
});
