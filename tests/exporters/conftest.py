"""One server for many tests that do not change it; certificates and web configuration files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with serving(tmp_path_factory.mktemp("s") / "api.sock") as it:
        yield it


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certify(authority: trustme.CA, tmp_path: Path) -> Callable[[str], None]:
    """Write cert.pem for these names, its key.pem, and the authority's ca.pem."""

    def write_files(*names: str) -> None:
        certificate = authority.issue_cert(*names)
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    return write_files


@pytest.fixture
def write(certify: Callable[[str], None], tmp_path: Path) -> Callable[[str], Path]:
    """Write web.yml, beside certificates for localhost."""
    certify("localhost")

    def write_file(text: str) -> Path:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return path

    return write_file
