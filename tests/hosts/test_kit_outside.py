"""The test kit in a project outside of the repository, on the installed wheel: by pytest, which
finds the plugin itself, and by unittest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.support import HERE, ROOT, postgresql_databases
from tests.support.postgres import Postgres

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
PAGE = ROOT / "docs" / "how-to" / "testing.md"


def run(folder: Path, installed: Path, database: dict[str, Any] | None, *command: str) -> None:
    """Run a program of the project, with every warning an error."""
    project = folder / "project"
    if not project.exists():
        shutil.copytree(HERE / "testkit", project)
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=project,
        env={
            **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
            "DJANGO_SETTINGS_MODULE": "settings",
            "HOST_DATABASE": json.dumps(database),
            "PYTHONPATH": os.pathsep.join([str(project), str(installed)]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_on_sqlite_in_memory(installed: Path, tmp_path: Path) -> None:
    run(tmp_path, installed, None, "-m", "pytest", "-q")
    run(tmp_path, installed, None, "manage.py", "test")


ON_ASYNCIO = """
import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_where_anyio_runs_the_async_tests(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(HERE / "testkit", project)
    (project / "conftest.py").write_text(ON_ASYNCIO)
    ini = project / "pytest.ini"
    ini.write_text(re.sub(r"asyncio_.*\n", "", ini.read_text()))
    tests = project / "tests" / "pytest_kit.py"
    tests.write_text(tests.read_text().replace("mark.asyncio", "mark.anyio"))
    run(tmp_path, installed, None, "-m", "pytest", "-q", "-p", "no:asyncio")


def test_on_postgresql(installed: Path, tmp_path: Path, postgresql: Postgres) -> None:
    database = postgresql_databases(postgresql, "testkit")["default"]
    run(tmp_path, installed, database, "-m", "pytest", "-q")
    run(tmp_path, installed, database, "manage.py", "test")


def test_with_a_test_database_that_no_migration_built(installed: Path, tmp_path: Path) -> None:
    run(tmp_path, installed, None, "-m", "pytest", "-q", "--nomigrations")


def test_the_page_about_testing_runs(installed: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    policies, *tests = blocks
    project = tmp_path / "project"
    shutil.copytree(HERE / "testkit", project)
    (project / "desk" / "policies.py").write_text(policies)
    (project / "tests" / "pytest_page.py").write_text("\n\n".join(tests))
    run(tmp_path, installed, None, "-m", "pytest", "-q", "tests/pytest_page.py")
