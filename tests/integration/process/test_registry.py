"""The rows of the processes that run: renewed while they do, gone when they do not."""

from __future__ import annotations

import asyncio
import atexit
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from realtime.event_log.read_holds import ReadHolds, holds
from realtime.models import Process
from realtime.ops import status
from realtime.process import registry
from realtime.process.heartbeat import HeartbeatTiming, keep_row
from realtime.process.hub import close_hub, hub
from realtime.process.registry import Registration, Report
from realtime.util.database_threads import close_connections
from tests.support.processes import managing
from tests.support.socket_client import Client, db
from tests.support.waiting import PATIENCE_SECONDS, auntil, until
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


@pytest.fixture(autouse=True)
def no_rows(wal: Any) -> None:
    Process.objects.all().delete()


@pytest.fixture
async def pool() -> AsyncIterator[None]:
    yield
    await close_connections()


QUICK = HeartbeatTiming(renew=0.02, announce=0.01)


async def row_that(is_so: Callable[[Process], bool]) -> Process:
    """The one row, once this holds of it."""

    def look() -> Process | None:
        found = Process.objects.first()
        return found if found is not None and is_so(found) else None

    row: Process = await auntil(lambda: db(look), "such a row")
    return row


def registration(id_: str = "one") -> Registration:
    return Registration("default", id_, Process.Kind.SERVER)


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_says_who_runs_and_until_when_it_is_good() -> None:
    assert registration().renew(Report(position=5, leading=True, counters={"heals": 1})) is False
    row = registry.alive("default").get()
    assert (row.kind, row.position, row.leading, row.counters) == ("server", 5, True, {"heals": 1})
    assert row.version
    assert row.pid
    assert (row.lease - row.seen_at).total_seconds() == pytest.approx(registry.LEASE_SECONDS)


def test_renewing_keeps_the_row_and_extends_its_lease() -> None:
    one = registration()
    one.renew(Report())
    before = Process.objects.get()
    assert one.renew(Report(position=9)) is True
    after = Process.objects.get()
    assert after.position == 9
    assert after.started_at == before.started_at
    assert after.lease >= before.lease


def test_a_row_whose_lease_ran_out_is_deleted_by_the_next_process_that_renews(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registration("dead").renew(Report())
    Process.objects.update(lease="2020-01-01T00:00:00Z")
    registration("alive").renew(Report())
    assert [row.pk for row in Process.objects.all()] == ["alive"]
    assert [record.action for record in caplog.records] == ["lease_expired"]


def test_a_lease_from_before_the_clock_was_set_back_ends_as_any_other() -> None:
    registration("ended").renew(Report())
    Process.objects.filter(pk="ended").update(lease="2100-01-01T00:00:00Z")
    registration().renew(Report())
    ended, other = Process.objects.order_by("pk")
    assert ended.lease <= other.lease


def test_a_process_that_was_taken_for_dead_learns_of_it_and_has_a_row_again() -> None:
    paused = registration()
    paused.renew(Report())
    # As another process does that takes this one for dead.
    Process.objects.filter(pk=paused.id).delete()
    assert paused.renew(Report()) is False
    assert Process.objects.get().pk == "one"


def test_a_renewal_that_comes_after_the_end_brings_nothing_back() -> None:
    one = registration()
    one.renew(Report())
    one.leave()
    assert one.renew(Report()) is True
    assert not Process.objects.filter(pk=one.id).exists()


def test_who_leaves_has_no_row() -> None:
    one = registration()
    one.renew(Report())
    one.leave()
    assert not Process.objects.exists()


def test_a_process_that_the_autoreloader_ends_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    registration("server").renew(Report())
    monkeypatch.setenv(DJANGO_AUTORELOAD_ENV, "true")
    registration("reloaded").renew(Report())
    # One that nothing restarts ends by itself, and leaves its row then.
    (leave,) = at_exit
    leave()
    assert [row.pk for row in Process.objects.all()] == ["server"]
    leave()


def test_renewing_is_one_small_write() -> None:
    one = registration()
    one.renew(Report())
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as caught:
        one.renew(Report())
    words = [query["sql"].split()[0] for query in caught]
    assert [word for word in words if word not in ("BEGIN", "COMMIT")] == [
        "SELECT",
        "SELECT",
        "UPDATE",
    ]


# --- holds ----------------------------------------------------------------------------------------


def test_the_lowest_of_several_readers_counts_and_moves_as_they_do() -> None:
    held = ReadHolds()
    assert held.lowest is None
    with held.reading(after=10) as first, held.reading(after=20):
        assert held.lowest == 11
        first.move(30)
        assert held.lowest == 21
    assert held.lowest is None


def test_a_watcher_is_told_when_the_lowest_sinks_and_only_then() -> None:
    held = ReadHolds()
    told: list[int | None] = []
    end = held.on_lower(lambda: told.append(held.lowest))
    with held.reading(after=10), held.reading(after=20), held.reading(after=5):
        pass
    end()
    with held.reading(after=0):
        pass
    assert told == [11, 6]


async def test_a_hold_is_announced_at_once(pool: None) -> None:
    seldom = HeartbeatTiming(renew=3_600.0, announce=0.01)
    task = asyncio.create_task(keep_row(registration(), Report, timing=seldom))
    await row_that(lambda row: row.holding_seq is None)
    with holds.reading(after=4):
        await row_that(lambda row: row.holding_seq == 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not await db(Process.objects.exists)


async def test_a_lead_that_is_taken_right_after_the_start_is_shown_at_once(pool: None) -> None:
    seldom = HeartbeatTiming(renew=3_600.0, announce=0.01)
    leading = iter([False])
    task = asyncio.create_task(
        keep_row(registration(), lambda: Report(leading=next(leading, True)), timing=seldom)
    )
    await row_that(lambda row: row.leading)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- a server -------------------------------------------------------------------------------------


async def test_a_server_says_what_it_serves_and_leaves_when_it_stops(
    closing_hub: None, granted: Any
) -> None:
    hub().heartbeat_timing = QUICK
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    await row_that(lambda row: (row.connections, row.channels, row.subscriptions) == (1, 1, 1))
    await db(Note.objects.create, title="a")
    await client.change()
    here = hub()
    row = await row_that(lambda row: row.position == here.position.seq and row.leading)
    assert (row.pk, row.kind, row.tailing) == (hub().id, "server", True)
    assert "heals" in row.counters
    await client.close()
    await row_that(lambda row: (row.connections, row.channels, row.subscriptions) == (0, 0, 0))
    await close_hub()
    assert not await db(Process.objects.exists)


async def test_a_database_that_goes_away_is_logged_once_and_outlived(
    pool: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime.processes")
    one = registration()
    works = one.renew
    calls = 0

    def fail(report: Report) -> bool:
        nonlocal calls
        calls += 1
        raise OperationalError("away")

    monkeypatch.setattr(one, "renew", fail)
    task = asyncio.create_task(keep_row(one, Report, timing=QUICK))
    await auntil(lambda: calls > 2)
    monkeypatch.setattr(one, "renew", works)
    await row_that(lambda row: row.pk == "one")
    await auntil(lambda: len(caplog.records) == 2)
    assert [record.action for record in caplog.records] == ["lease_failing", "lease_works"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_error_of_any_kind_does_not_end_the_renewals(
    pool: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def fails_once(written: Report) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("anything")

    task = asyncio.create_task(keep_row(registration(), Report, fails_once, timing=QUICK))
    await auntil(lambda: calls > 2, "more renewals")
    assert [record.action for record in caplog.records] == ["lease_failing"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- a tailer -------------------------------------------------------------------------------------


def test_a_tailer_says_that_it_leads_and_leaves_when_it_is_asked_to_stop(tmp_path: Path) -> None:
    with managing(tmp_path, "tail_wal") as program:
        rows = Process.objects.filter(kind=Process.Kind.TAILER, leading=True, tailing=True)
        until(lambda: rows.exists() or program.process.poll() is not None, "its row")
        row = rows.get()
        assert row.pid == program.process.pid
        assert status.read("default").numbering.leader == row.pk
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
    assert not Process.objects.exists()


# --- the admin ------------------------------------------------------------------------------------


def test_the_admin_shows_processes_and_changes_none() -> None:
    from django.contrib.auth import get_user_model

    registration().renew(Report(connections=4_711))
    client = HttpClient()
    client.force_login(get_user_model().objects.create_superuser("root"))
    listed = client.get(reverse("admin:realtime_process_changelist"))
    assert b"4711" in listed.content or b"4,711" in listed.content
    url = reverse("admin:realtime_process_change", args=["one"])
    assert b'name="_save"' not in client.get(url).content
    assert client.post(url, {"pid": 1}).status_code == 403
