"""Schemas of the Prometheus operator's ServiceMonitor and PrometheusRule, as far as ours use them.

Written after its API reference (prometheus-operator/prometheus-operator,
Documentation/api-reference/api.md, and the CRDs in example/prometheus-operator-crd, 0.82).
Unlike the API server, which drops fields that it does not know, these refuse them.
"""

from __future__ import annotations

from typing import Any

DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?"
    r"(([0-9]+)ms)?)$",
}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
LABEL_NAME = {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _of(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": STRINGS}
    return _object(
        {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": kind},
            "metadata": _object(meta, "name"),
            "spec": spec,
        },
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    )


RELABEL = _object(
    {
        "action": {
            "enum": [
                "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep",
                "lowercase", "uppercase", "keepequal", "dropequal",
            ]
        },
        "modulus": {"type": "integer"},
        "regex": {"type": "string"},
        "replacement": {"type": "string"},
        "separator": {"type": "string"},
        "sourceLabels": {"type": "array", "items": LABEL_NAME},
        "targetLabel": {"type": "string"},
    }
)  # fmt: skip
ENDPOINT = _object(
    {
        "port": {"type": "string"},
        "path": {"type": "string"},
        "scheme": {"enum": ["http", "https"]},
        "interval": DURATION,
        "scrapeTimeout": DURATION,
        "honorLabels": {"type": "boolean"},
        "honorTimestamps": {"type": "boolean"},
        "relabelings": {"type": "array", "items": RELABEL},
        "metricRelabelings": {"type": "array", "items": RELABEL},
        "tlsConfig": {"type": "object"},
        "basicAuth": {"type": "object"},
    }
)
SERVICE_MONITOR = _of(
    "ServiceMonitor",
    _object(
        {
            "selector": _object({"matchLabels": STRINGS, "matchExpressions": {"type": "array"}}),
            "namespaceSelector": {"type": "object"},
            "jobLabel": {"type": "string"},
            "targetLabels": {"type": "array", "items": {"type": "string"}},
            "endpoints": {"type": "array", "items": ENDPOINT, "minItems": 1},
        },
        "selector",
        "endpoints",
    ),
)
RULE = _object(
    {
        "alert": {"type": "string"},
        "annotations": STRINGS,
        "expr": {"type": ["string", "integer"]},
        "for": DURATION,
        "keep_firing_for": DURATION,
        "labels": STRINGS,
        "record": {"type": "string"},
    },
    "expr",
)
GROUP = _object(
    {
        "name": {"type": "string", "minLength": 1},
        "interval": DURATION,
        "limit": {"type": "integer"},
        "query_offset": DURATION,
        "rules": {"type": "array", "items": RULE},
    },
    "name",
)
PROMETHEUS_RULE = _of(
    "PrometheusRule", _object({"groups": {"type": "array", "items": GROUP, "minItems": 1}})
)
SCHEMAS = {"ServiceMonitor": SERVICE_MONITOR, "PrometheusRule": PROMETHEUS_RULE}
