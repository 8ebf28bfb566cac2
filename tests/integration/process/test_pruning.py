"""Pruning: what is old goes, what somebody still needs stays, and the numbers go on."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.utils import timezone

from realtime.event_log.read_holds import holds
from realtime.management.commands import prune_wal
from realtime.models import Message, Process, Receipt, WalEntry, WalNumber, WalRelation
from realtime.process import pruning, registry
from realtime.process.pruning import Pace
from realtime.process.registry import Registration, Report
from realtime.wal import triggers
from realtime.wal.head import read_head
from realtime.wal.postgresql.vendor import PRUNING_LOCK
from tests.support.log import number_all
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

# A moment ahead: timestamps of one batch rise by microseconds, maybe past the clock.
ALL = timedelta(seconds=-1)


def write(count: int, *, hours_ago: float = 0) -> None:
    """Commit and number this many changes, as of some hours ago."""
    Note.objects.bulk_create([Note(title=str(n)) for n in range(count)])
    if hours_ago:
        backlog = WalEntry.objects.filter(seq=None)
        for entry in backlog:
            aged = entry.captured_us - int(hours_ago * 3_600_000_000)
            backlog.filter(pk=entry.pk).update(captured_us=aged)
    number_all()


def kept() -> list[int | None]:
    return list(WalEntry.objects.order_by("seq").values_list("seq", flat=True))


def run(*args: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("prune_wal", *args, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Callable[..., Registration]:
    """Registers a process and forgets it afterwards."""

    def register(kind: Process.Kind, **said: Any) -> Registration:
        registration = Registration("default", f"test-{Process.objects.count()}", kind)
        registration.renew(Report(**said))
        request.addfinalizer(registration.leave)
        return registration

    return register


def test_only_what_is_older_than_retention_goes() -> None:
    write(5, hours_ago=73)
    write(3, hours_ago=71)
    pruned = pruning.prune()
    assert (pruned.entries, pruned.total) == (5, 5)
    assert kept() == [6, 7, 8]


def test_the_age_can_be_given() -> None:
    write(5, hours_ago=3)
    write(3)
    assert "Deleted 5 entries" in run("--older-than", "2.5")
    assert kept() == [6, 7, 8]


def test_numbers_go_on_after_everything_was_pruned() -> None:
    write(4)
    before = read_head(connection)
    pruning.prune(ALL)
    assert kept() == []
    write(2)
    after = read_head(connection)
    assert (after.epoch, after.seq) == (before.epoch, 6)
    assert after.commit_us > before.commit_us
    assert kept() == [5, 6]


def test_numbers_whose_entries_are_gone_are_pruned_too() -> None:
    write(3, hours_ago=25)
    write(1)
    number = WalNumber.objects.get(seq=1)
    WalEntry.objects.filter(pk=number.entry_id).delete()
    number.save(force_insert=True)
    pruning.prune(timedelta(hours=2))
    assert list(WalNumber.objects.values_list("seq", flat=True)) == kept() == [4]


def test_an_entry_without_a_number_stays_however_old() -> None:
    write(2, hours_ago=100)
    Note.objects.create(title="not numbered")
    WalEntry.objects.filter(seq=None).update(captured_us=1)
    pruning.prune(ALL)
    assert kept() == [None]


def test_a_dry_run_counts_and_deletes_nothing() -> None:
    write(4, hours_ago=100)
    assert "Would delete 4 entries" in run("--dry-run")
    assert len(kept()) == 4


def test_nothing_is_pruned_past_a_running_replay(process: Callable[..., Registration]) -> None:
    write(10, hours_ago=100)
    with holds.reading(after=4) as hold:
        reader = process(Process.Kind.WORKER)
        assert registry.lowest_needed("default") == 5
        pruned = pruning.prune()
        assert (pruned.entries, pruned.held_at) == (4, 5)
        assert kept()[0] == 5
        hold.move(7)
        reader.renew(Report())
        assert pruning.prune().held_at == 8
    reader.renew(Report())
    assert pruning.prune().held_at is None
    assert kept() == []


def test_a_replay_that_begins_meanwhile_is_respected(
    process: Callable[..., Registration],
) -> None:
    write(10, hours_ago=100)
    steps = pruning.steps("default", pace=Pace(first=2, most=2))
    next(steps)
    assert kept()[0] == 3
    with holds.reading(after=5):
        process(Process.Kind.WORKER)
        outcome = list(steps)[-1]
    assert outcome.held_at == 6
    assert kept()[0] == 6


def test_what_a_server_has_not_handed_on_stays(process: Callable[..., Registration]) -> None:
    write(10)
    process(Process.Kind.SERVER, position=6)
    assert "From seq 7 on" in run("--older-than", "0")
    assert kept() == [7, 8, 9, 10]


def test_a_dead_process_holds_nothing(process: Callable[..., Registration]) -> None:
    write(6, hours_ago=100)
    with holds.reading(after=0):
        process(Process.Kind.WORKER)
    Process.objects.update(lease="2020-01-01T00:00:00Z")
    assert pruning.prune().entries == 6


def test_many_entries_go_in_chunks_that_are_reported() -> None:
    write(175, hours_ago=100)
    reported: list[tuple[int, int]] = []
    pace = Pace(first=50, most=50)
    pruning.prune(progress=lambda p: reported.append((p.entries, p.total)), pace=pace)
    assert reported[:2] == [(50, 175), (100, 175)]
    assert reported[-1] == (175, 175)


def test_a_relation_goes_when_no_entry_and_no_trigger_names_it() -> None:
    write(1, hours_ago=100)
    used = WalRelation.objects.get(pk=WalEntry.objects.get().relation_id)
    old = WalRelation.objects.create(
        id="0" * 32, schema_name="public", table_name="zoo_note", definition=used.definition
    )
    still = WalRelation.objects.create(
        id="1" * 32, schema_name="public", table_name="zoo_note", definition=used.definition
    )
    write(1)
    WalEntry.objects.filter(seq=2).update(relation_id=still.pk)
    assert pruning.prune().relations == 1
    assert not WalRelation.objects.filter(pk=old.pk).exists()
    assert WalRelation.objects.filter(pk=still.pk).exists()
    # Its entries are gone, but its triggers are installed.
    assert WalRelation.objects.filter(pk=used.pk).exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_a_relation_stays_while_a_writer_may_still_commit_entries_of_it() -> None:
    WalRelation.objects.create(id="0" * 32, schema_name="public", table_name="t", definition="{}")
    writer = connection.copy()
    try:
        writer.set_autocommit(False)
        with writer.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")
        assert pruning.prune(pace=Pace(wait=0.001)).relations == 0
        writer.rollback()
    finally:
        writer.close()
    assert pruning.prune().relations == 1


def test_no_relation_of_an_installed_trigger_ever_goes() -> None:
    before = set(WalRelation.objects.values_list("pk", flat=True))
    assert before
    triggers.reconcile()
    pruning.prune(ALL)
    assert set(WalRelation.objects.values_list("pk", flat=True)) == before


def test_progress_is_shown_as_lines_where_there_is_no_terminal() -> None:
    class Talkative(prune_wal.Command):
        line_seconds = 0.0
        pace = Pace(first=10, most=10)

    write(30, hours_ago=100)
    out = io.StringIO()
    call_command(Talkative(), stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("10 of 30 entries deleted, ")
    assert lines[-1].startswith("Deleted 30 entries")
    assert "\x1b" not in "".join(lines)


def test_a_quiet_run_says_nothing() -> None:
    write(3, hours_ago=100)
    assert run(verbosity=0) == ""
    assert kept() == []


@pytest.mark.parametrize("hours", ["-1", "soon", "nan", "1e999"])
def test_an_age_that_is_none_is_refused(hours: str) -> None:
    with pytest.raises(CommandError, match="not a number of hours"):
        run(f"--older-than={hours}")


def test_a_database_that_fails_is_one_clear_line() -> None:
    def fail(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("no such table:\n  realtime_wal")

    with (
        connection.execute_wrapper(fail),
        pytest.raises(CommandError, match=r"cannot be pruned: no such table: realtime_wal\. "),
    ):
        run()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite serves one writer at a time")
def test_only_one_prunes_at_a_time() -> None:
    write(3, hours_ago=100)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [PRUNING_LOCK])
        with pytest.raises(CommandError, match="Another process prunes"):
            run()
        other.rollback()
    finally:
        other.close()
    assert "Deleted 3 entries" in run()


def test_stored_broadcasts_go_with_the_entries_of_their_age() -> None:
    old = Message.objects.create(topic="room", event="old", payload=1)
    Message.objects.create(topic="room", event="new", payload=2)
    Message.objects.filter(pk=old.pk).update(inserted_at=timezone.now() - timedelta(hours=100))
    write(0)
    before = WalEntry.objects.count()
    assert pruning.prune(timedelta(hours=72), dry_run=True).messages == 1
    assert pruning.prune(timedelta(hours=72)).messages == 1
    assert list(Message.objects.values_list("event", flat=True)) == ["new"]
    # The log tells of messages that come, and of nothing that becomes of them.
    write(0)
    assert WalEntry.objects.count() == before


# --- by size --------------------------------------------------------------------------------------


def write_large(count: int, size: int) -> None:
    Note.objects.bulk_create([Note(title="t", body=os.urandom(size // 2).hex())] * count)
    number_all()


@pytest.fixture
def kept_by_size(settings: Any) -> None:
    settings.REALTIME = {"RETENTION": {"gigabytes": 0.000_2}}


def receipt_of(hours_ago: float) -> int:
    taken = Now() - timedelta(hours=hours_ago)
    number = Receipt.objects.count()
    return Receipt.objects.create(
        txid=number, actor="7", text=str(number), epoch="", after_seq=0, taken_at=taken
    ).pk


def test_receipts_go_with_the_entries_of_their_age() -> None:
    receipt_of(hours_ago=73)
    young = receipt_of(hours_ago=71)
    write(1)
    run()
    assert list(Receipt.objects.values_list("pk", flat=True)) == [young]


def test_in_a_log_that_is_bounded_by_its_size_receipts_have_an_age_too(settings: Any) -> None:
    settings.REALTIME = {"RETENTION": {"gigabytes": 1}}
    receipt_of(hours_ago=31 * 24)
    young = receipt_of(hours_ago=29 * 24)
    run()
    assert list(Receipt.objects.values_list("pk", flat=True)) == [young]


@pytest.mark.usefixtures("kept_by_size")
def test_the_oldest_entries_go_until_the_rest_fits() -> None:
    write_large(100, 8_000)
    pruning.prune()
    first, last = kept()[0], kept()[-1]
    assert last == 100
    assert first is not None
    # 200 kB hold 24 such entries, or a little less.
    assert 70 <= first <= 85
    # What fits stays.
    before = kept()
    assert pruning.prune().entries == 0
    assert kept() == before


@pytest.mark.usefixtures("kept_by_size")
def test_small_entries_stay_in_large_numbers() -> None:
    write(200)
    assert pruning.prune().entries == 0


@pytest.mark.usefixtures("kept_by_size")
def test_what_is_still_read_stays_however_large(process: Callable[..., Registration]) -> None:
    write_large(100, 8_000)
    process(Process.Kind.SERVER, position=30)
    assert pruning.prune().held_at == 31
    assert kept()[0] == 31


@pytest.mark.usefixtures("kept_by_size")
def test_stored_broadcasts_stay_as_long_as_the_changes_of_their_time() -> None:
    Message.objects.create(topic="room", event="old", payload=1)
    write_large(100, 8_000)
    Message.objects.create(topic="room", event="new", payload=2)
    write(1)
    Message.objects.filter(event="old").update(inserted_at=timezone.now() - timedelta(minutes=1))
    pruning.prune()
    assert list(Message.objects.values_list("event", flat=True)) == ["new"]


def test_an_age_and_a_size_count_whichever_is_reached_first(settings: Any) -> None:
    settings.REALTIME = {"RETENTION": {"hours": 1, "gigabytes": 0.000_2}}
    write(5, hours_ago=2)
    write(5)
    pruning.prune()
    assert kept() == [6, 7, 8, 9, 10]
    write_large(100, 8_000)
    pruning.prune()
    assert kept()[0] is not None and kept()[0] > 60  # type: ignore[operator]


def test_an_age_given_by_hand_replaces_the_size() -> None:
    write_large(50, 8_000)
    assert pruning.prune(timedelta(hours=1)).entries == 0
