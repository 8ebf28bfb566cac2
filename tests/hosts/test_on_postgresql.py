"""Every host project, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.acceptance import accept
from tests.hosts.support import NAMES, Host, postgresql_databases
from tests.support.postgres import Postgres

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.mark.parametrize("name", NAMES)
async def test_a_host_gets_what_the_documentation_says(
    name: str, installed: Path, tmp_path: Path, postgresql: Postgres
) -> None:
    databases = postgresql_databases(postgresql, name)
    host = Host(name, tmp_path, installed, databases, "daphne")
    try:
        await accept(host)
    finally:
        host.close()
