"""One server for many tests that do not change it."""

from __future__ import annotations

import pytest

from serving import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with serving(tmp_path_factory.mktemp("s") / "api.sock") as it:
        yield it
