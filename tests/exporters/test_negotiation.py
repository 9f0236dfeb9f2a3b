"""Which page a client gets, by its Accept and Accept-Encoding headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_exporters.http.negotiate import OPENMETRICS_TYPES, TEXT_TYPE, choose

OM = OPENMETRICS_TYPES["1.0.0"]
OM_001 = OPENMETRICS_TYPES["0.0.1"]
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;"
    "escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT_TYPE),
        ("*/*", TEXT_TYPE),
        ("text/*", TEXT_TYPE),
        (BROWSER, TEXT_TYPE),
        (PROMETHEUS_3, OM),
        (PROMETHEUS_2_42, OM),
        (PROTOBUF_FIRST, OM),
        ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5", OM_001),
        ("application/openmetrics-text", OM),
        ("Application/OpenMetrics-Text; Version=1.0.0", OM),
        ('application/openmetrics-text; version="1.0.0"; charset=utf-8', OM),
        ("application/*", OM),
        ("application/*, text/plain", TEXT_TYPE),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.9", TEXT_TYPE),
        ("application/openmetrics-text;q=0.9, text/plain;q=0.5", OM),
        ("application/openmetrics-text, text/plain", OM),
        ("text/plain, application/openmetrics-text", TEXT_TYPE),
        ("application/openmetrics-text;q=0, */*", TEXT_TYPE),
        ("application/openmetrics-text;q=0", TEXT_TYPE),
        ("text/plain;q=0, application/*;q=0.1", OM),
        ("text/plain;version=0.0.4;q=0, application/openmetrics-text;q=0.001", OM),
        ("application/openmetrics-text;version=abc", TEXT_TYPE),
        ("application/openmetrics-text;version=9.9.9", TEXT_TYPE),
        ("application/openmetrics-text;version=", TEXT_TYPE),
        ("application/openmetrics-text;version", TEXT_TYPE),
        ("application/openmetrics-text;q=nan", OM),
        ("application/openmetrics-text;q=-1;;;", OM),
        ("application/json", TEXT_TYPE),
        (",,,;;;===", TEXT_TYPE),
        ("text/plain;version=1.0.0", TEXT_TYPE),
    ],
)
def test_format(accept: str, content_type: str) -> None:
    chosen = choose(accept, "")
    assert chosen.content_type == content_type
    assert chosen.openmetrics is (content_type != TEXT_TYPE)


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("gzip;q=0.5, identity;q=1", False),
        ("gzip, identity;q=0.5", True),
        ("br, zstd", False),
        ("gzip;q=oops", True),
    ],
)
def test_encoding(accept_encoding: str, gzip: bool) -> None:
    assert choose("", accept_encoding).gzip is gzip


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_header_is_too_odd_and_none_is_echoed(accept: str, accept_encoding: str) -> None:
    assert choose(accept, accept_encoding).content_type in (TEXT_TYPE, OM, OM_001)
