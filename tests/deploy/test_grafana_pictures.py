"""The pictures of the README: there, small, and of the dashboards as they are."""

from __future__ import annotations

import pytest

from dashboards import GRAFANA, NAMES
from e2e.grafana_pictures import PICTURES, hash_of, pictured


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_has_its_picture(name: str) -> None:
    picture = (PICTURES / f"{name}.png").read_bytes()

    assert f"(pictures/{name}.png)" in (GRAFANA / "README.md").read_text()
    assert 5_000 < len(picture) < 150_000
    assert pictured(picture) == hash_of(name), "out of date: run `make pictures`"
