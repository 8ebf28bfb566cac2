"""`realtime_status`: what runs, how far it is, and an exit code that a script can use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.models.functions import Now

from realtime.event_log import leadership
from realtime.management.commands import realtime_status
from realtime.models import DeadLetter, LogHead, Process, WalEntry
from realtime.ops import status
from realtime.process.registry import Registration, Report
from realtime.util.database_threads import in_database_thread
from realtime.wal.clock import now_us_sql
from tests.support.handler_rows import age, dead_letter, handler
from tests.support.log import number_all
from tests.support.partitions import ranges, small_partitions
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


@pytest.fixture
def server() -> Iterator[Registration]:
    registration = Registration("default", "server-1", Process.Kind.SERVER)
    yield registration
    registration.leave()


def lead(id_: str, seconds: float = 30) -> None:
    """The head row says that this tailer leads, by a lease that is good or has run out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE realtime_head SET term = 1, leader = %s, lease_until_us = "
            f"{now_us_sql(connection)} + %s",
            [id_, int(seconds * 1_000_000)],
        )


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("realtime_status", *args, stdout=out)
    return out.getvalue()


def shown(*args: str) -> Any:
    return json.loads(run("--json", *args))


def test_an_idle_installation_has_a_head_and_no_lag() -> None:
    Note.objects.create(title="a")
    number_all()
    found = shown()
    assert found["numbering"]["head"] == 1
    assert found["numbering"]["backlog"] == found["numbering"]["lag_ms"] == 0
    assert found["numbering"]["epoch"] == LogHead.objects.get().epoch
    assert found["stored"]["entries"] == found["stored"]["oldest_seq"] == 1
    assert found["layer"]["state"] == "in-memory"


def test_the_lag_is_the_age_of_the_oldest_entry_without_a_number() -> None:
    lead("somebody")
    Note.objects.bulk_create([Note(title="a"), Note(title="b")])
    oldest = WalEntry.objects.order_by("id").first()
    assert oldest is not None
    WalEntry.objects.filter(pk=oldest.pk).update(captured_us=oldest.captured_us - 90_000_000)
    numbering = shown()["numbering"]
    assert numbering["backlog"] == 2
    assert 90_000 <= numbering["lag_ms"] < 150_000


def test_a_backlog_that_nobody_numbers_is_an_error_of_one_line() -> None:
    Note.objects.create(title="a")
    with pytest.raises(CommandError, match="Nobody numbers the log and 1 entry waits") as caught:
        run()
    assert caught.value.returncode == 1
    assert "\n" not in str(caught.value)


def test_a_backlog_that_somebody_numbers_is_none() -> None:
    lead("somebody")
    Note.objects.create(title="a")
    assert "backlog   1" in run()


def test_a_leader_whose_lease_ran_out_is_none_once_entries_wait() -> None:
    lead("somebody", seconds=-1)
    Note.objects.create(title="a")
    WalEntry.objects.update(captured_us=1)
    assert status.read("default").leaderless


@pytest.mark.skipif(connection.vendor != "sqlite", reason="renews while idle elsewhere")
def test_an_idle_leader_need_not_renew_on_sqlite() -> None:
    lead(leadership.new_id(), seconds=-60)
    assert status.read("default").numbering.leader is not None
    gone = leadership.new_id().split(":")
    gone[1] = "4194304"
    lead(":".join(gone), seconds=-60)
    assert status.read("default").numbering.leader is None


def test_a_server_is_listed_with_what_it_serves_and_how_far_behind_it_is(
    server: Registration,
) -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(5)])
    number_all()
    server.renew(
        Report(position=3, connections=7, channels=9, subscriptions=8, counters={"heals": 2})
    )
    found = shown()
    (listed,) = found["processes"]
    assert listed["kind"] == "server"
    assert (listed["position"], listed["behind"]) == (3, 2)
    assert (listed["connections"], listed["channels"], listed["subscriptions"]) == (7, 9, 8)
    assert found["heals"] == 2
    page = run()
    assert "behind" in page
    assert f"server {listed['host']}:{listed['pid']}" in page


def test_the_leader_and_the_standbys_are_named(server: Registration) -> None:
    leader = leadership.new_id()
    tailer = Registration("default", leader, Process.Kind.TAILER)
    tailer.renew(Report(tailing=True, leading=True))
    server.renew(Report(tailing=True))
    Process.objects.filter(pk=server.id).update(host="elsewhere", pid=7)
    lead(leader)
    try:
        lines = run().splitlines()
    finally:
        tailer.leave()
    assert any(line.startswith("leader    tailer ") and "(term 1)" in line for line in lines)
    assert "standby   server elsewhere:7" in lines


def test_a_process_whose_lease_ran_out_is_not_listed(server: Registration) -> None:
    server.renew(Report())
    Process.objects.update(lease="2020-01-01T00:00:00Z")
    assert shown()["processes"] == []


def test_a_database_that_is_away_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(alias: str) -> None:
        raise OperationalError("connection refused\n\tIs the server running?")

    monkeypatch.setattr(status, "read", fail)
    with pytest.raises(CommandError, match="connection refused Is the server running") as caught:
        run()
    assert caught.value.returncode == 1


def test_watching_without_a_terminal_is_a_line_a_second(server: Registration) -> None:
    server.renew(Report(connections=3))

    class Thrice(realtime_status.Command):
        every_seconds = 0.0
        looks = 0

        async def look(self) -> Any:
            self.looks += 1
            if self.looks == 2:
                raise CommandError("The database cannot be read: it is away")
            if self.looks == 4:
                raise KeyboardInterrupt
            await in_database_thread(Note.objects.count)
            return await super().look()

    out = io.StringIO()
    call_command(Thrice(), "--watch", stdout=out)
    first, away, second, *rest = out.getvalue().splitlines()
    assert "connections=3" in first
    assert away == "The database cannot be read: it is away"
    assert "layer=in-memory" in second
    assert "".join(rest) == ""


@on_postgresql
def test_entries_for_which_no_partition_was_made_are_told_with_the_reasons() -> None:
    with small_partitions() as partitions:
        Note.objects.bulk_create([Note(title="n") for _ in range(150)])
        number_all()
        assert shown()["stored"]["strays"] == 0
        assert "strays" not in run()
        Note.objects.bulk_create([Note(title="n") for _ in range(150)])
        number_all()
        assert "strays    101 entries in the default partition" in run()
        stored = shown()["stored"]
        assert (stored["partitions"], stored["strays"]) == (len(ranges(partitions)), 101)


def write(count: int) -> None:
    Note.objects.bulk_create([Note(title=str(number)) for number in range(count)])
    number_all()


def test_handlers_are_shown_with_how_far_they_are_behind() -> None:
    write(3)
    handler("invoices", seq=3, handled=7, failures=2)
    handler(
        "search", seq=1, stopped="failed", attempts=5, last_error="Traceback\n  x\nOSError: gone"
    )
    age(60)
    invoices, search = shown()["handlers"]
    assert (invoices["name"], invoices["state"], invoices["lag"]) == ("invoices", "running", 0)
    assert (invoices["handled"], invoices["failures"], invoices["lag_ms"]) == (7, 2, 0)
    assert (search["state"], search["lag"], search["attempts"]) == ("stopped", 2, 5)
    assert 60_000 <= search["lag_ms"] < 120_000
    lines = [line.split() for line in run().splitlines()]
    assert lines[-2][:4] == ["invoices", "running", "3", "0"]
    assert lines[-1][:4] == ["search", "stopped", "1", "2"]
    assert lines[-1][-2:] == ["OSError:", "gone"]


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "running"),
        ({"attempts": 2}, "retrying"),
        ({"owner": ""}, "waiting"),
        ({"lease": Now()}, "waiting"),
        ({"paused": True, "owner": ""}, "paused"),
        ({"paused": True, "stopped": "failed"}, "stopped"),
    ],
)
def test_the_state_of_a_handler(fields: dict[str, Any], state: str) -> None:
    handler("invoices", **fields)
    (found,) = shown()["handlers"]
    assert found["state"] == state


def test_the_oldest_dead_letter_of_a_handler_is_told() -> None:
    handler("invoices")
    handler("search")
    dead_letter("invoices", 1)
    dead_letter("invoices", 2)
    DeadLetter.objects.filter(seq=2).update(failed_at=Now() - timedelta(hours=1))
    invoices, search = shown()["handlers"]
    assert invoices["dead_letters"] == 2
    assert 3_600_000 <= invoices["oldest_dead_letter_ms"] < 3_700_000
    assert (search["dead_letters"], search["oldest_dead_letter_ms"]) == (0, None)
