"""Fixtures that every test may use."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings

from realtime.event_log import sequencer

# As the plugin of the wheel gives it, which is not installed here.
from realtime.testing.plugin import pytest_runtest_call, realtime_client  # noqa: F401
from tests.acceptance.support.devtools import Browser, find_browser
from tests.support import redis as redises
from tests.support.at_hand import without
from tests.support.log import empty_log
from tests.support.redis import Redis

# Behaviour, not speed: a busy machine is no reason to fail. The blob reproduces a failure.
settings.register_profile(
    "rowcast",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rowcast")

# Modules that take longest, in this order: with several workers they must not begin last.
_LONGEST = [
    "test_failures",
    "test_demo_browser",
    "test_demo_people_browser",
    "test_many_processes",
    "test_worker_command",
    "test_overload",
    "test_leaders",
    "test_client_js",
    "test_official_clients",
    "test_official_channels",
    "test_wire",
    "test_wire_limits",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, then the other acceptance tests, then modules with a slow test."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        if item.path.stem in _LONGEST:
            return _LONGEST.index(item.path.stem)
        if "acceptance" in item.path.parts:
            return len(_LONGEST)
        return len(_LONGEST) + (1 if item.path in slow else 2)

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Keep what was collected, which stays to the end, out of garbage collections. They are quicker
    by that, and a host that freezes objects has the collector left to it: tests ask it to look at
    everything that came since."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """At the end no thread's connection may keep the test database from being dropped."""
    yield
    if connection.vendor != "postgresql":
        return
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(scope="module", autouse=True)
def no_connections_of_other_modules() -> None:
    """The threads for database work outlive a test. A connection that one of them has left open is
    looked at after the next work of its thread, which a test without a database may not do."""
    from realtime.util.database_threads import close_connections

    # A thread that is still busy with work of an earlier test keeps its connection.
    with contextlib.suppress(threading.BrokenBarrierError):
        asyncio.run(close_connections())


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis of the module's own."""
    with redises.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        without("no page is looked at: there is no Chromium on the PATH")
    opened = Browser(program, tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def wal(transactional_db: None) -> Iterator[type]:
    """The log as a new database has it: empty, at a new epoch. Commits are real."""
    empty_log()
    yield sequencer
    empty_log()


@pytest.fixture
async def closing_hub() -> AsyncIterator[None]:
    """Stops what the test's server side started on its event loop."""
    from realtime.process.hub import close_hub
    from realtime.util.database_threads import close_connections

    yield
    await close_hub()
    await close_connections()


@pytest.fixture
def granted(transactional_db: None) -> Callable[..., Any]:
    """Makes a policy: `granted("view_note", using={...}, audience="anyone")`."""
    from django.contrib.auth.models import Permission

    from auth_rls.models import Policy

    def grant(codename: str, **fields: Any) -> Policy:
        permission = Permission.objects.get(codename=codename, content_type__app_label="zoo")
        number = Policy.objects.count() + 1
        values = {"name": f"policy {number}", "using": True, "audience": "anyone", **fields}
        return Policy.objects.create(permission=permission, **values)

    return grant


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged can be sent to the process that gathers the reports, also half of a
    surrogate pair."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
