"""Every host project, on PostgreSQL; one of them behind a pooler, where that is at hand."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts.acceptance import accept
from tests.hosts.support import NAMES, Host, postgresql_databases
from tests.support import pooler
from tests.support.postgres import Postgres

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.mark.parametrize("name", NAMES)
async def test_a_host_gets_what_the_documentation_says(
    name: str, installed: Path, tmp_path: Path, postgresql: Postgres
) -> None:
    databases = postgresql_databases(postgresql, name)
    with ExitStack() as used:
        if name == "transaction_pooler" and pooler.program() is not None:
            folder = tmp_path / "pooler"
            port = used.enter_context(pooler.transaction_pooler(folder, postgresql.port))
            for place in databases.values():
                place["PORT"] = str(port)
        host = Host(name, tmp_path, installed, databases, "daphne")
        used.callback(host.close)
        await accept(host)
