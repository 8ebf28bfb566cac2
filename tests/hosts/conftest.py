"""The wheel, built once for the run, and the databases of host projects."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.support import build_wheel
from tests.support import postgres
from tests.support.at_hand import without
from tests.support.postgres import Postgres

# Projects of their own, whose tests run in them.
collect_ignore = ["projects", "recipes", "testkit"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder that the built wheel is unpacked in, for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder = shared / "installed"
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build_wheel(shared / "wheel", folder)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    if reason := postgres.missing():
        without(reason)
    with postgres.running() as server:
        yield server
