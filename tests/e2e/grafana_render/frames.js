// From Prometheus' answers to data frames, as Grafana's Prometheus data source makes them.

import { FieldType, toDataFrame } from '@grafana/data';

const METRIC = '__name__';

export async function ask(prometheus, path, asked) {
  const reply = await fetch(`${prometheus}/api/v1/${path}`, {
    method: 'POST',
    body: new URLSearchParams(asked),
  });
  const answer = await reply.json();
  if (answer.status !== 'success') {
    throw new Error(`${answer.error}: ${asked.query}`);
  }
  return answer.data;
}

function legend(format, labels) {
  if (format && format !== '__auto') {
    return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
  }
  const pairs = Object.entries(labels).filter(([name]) => name !== METRIC);
  return pairs.length ? `{${pairs.map(([name, value]) => `${name}="${value}"`).join(', ')}}` : 'Value';
}

function series(target, labels, points, shown) {
  const values = new Map(points.map(([at, value]) => [Math.round(at * 1000), parseFloat(value)]));
  let times = [...values.keys()];
  if (!target.instant) {
    times = []; // steps without a value are gaps, not lines
    for (let at = shown.begin * 1000; at <= shown.end * 1000; at += shown.step * 1000) {
      times.push(at);
    }
  }
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times, config: {} },
      {
        name: 'Value',
        type: FieldType.number,
        values: times.map((at) => values.get(at) ?? null),
        labels,
        config: { displayNameFromDS: legend(target.legendFormat, labels) },
      },
    ],
  });
}

function table(target, rows, tables) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.metric)))].sort();
  const value = tables > 1 ? `Value #${target.refId}` : 'Value';
  return toDataFrame({
    refId: target.refId,
    fields: [
      {
        name: 'Time',
        type: FieldType.time,
        values: rows.map((row) => row.value[0] * 1000),
        config: {},
      },
      ...names.map((name) => ({
        name,
        type: FieldType.string,
        values: rows.map((row) => row.metric[name] ?? ''),
        config: { filterable: true },
      })),
      {
        name: value,
        type: FieldType.number,
        values: rows.map((row) => parseFloat(row.value[1])),
        config: {},
      },
    ],
  });
}

// All frames of a panel's queries.
export async function framesOf(panel, shown) {
  const tables = panel.targets.filter((target) => target.format === 'table').length;
  const found = await Promise.all(
    panel.targets.map(async (target) => {
      if (target.instant) {
        const data = await ask(shown.prometheus, 'query', { query: target.expr, time: shown.end });
        if (target.format === 'table') {
          return [table(target, data.result, tables)];
        }
        return data.result.map((row) => series(target, row.metric, [row.value], shown));
      }
      const data = await ask(shown.prometheus, 'query_range', {
        query: target.expr,
        start: shown.begin,
        end: shown.end,
        step: shown.step,
      });
      return data.result.map((row) => series(target, row.metric, row.values, shown));
    })
  );
  return found.flat();
}

// The instants of an annotation's events.
export async function eventsOf(annotation, shown) {
  const data = await ask(shown.prometheus, 'query_range', {
    query: annotation.expr,
    start: shown.begin,
    end: shown.end,
    step: 60,
  });
  return data.result.flatMap((row) => row.values.map(([at]) => at * 1000));
}
