"""Every host project, on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.acceptance import accept
from tests.hosts.support import NAMES, Host, sqlite_databases

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.mark.parametrize("name", NAMES)
async def test_a_host_gets_what_the_documentation_says(
    name: str, installed: Path, tmp_path: Path
) -> None:
    host = Host(name, tmp_path, installed, sqlite_databases(tmp_path), "fanout")
    try:
        await accept(host)
    finally:
        host.close()
