"""A log that came to harm: noticed, never jammed, and mended by `realtime_repair`."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log import sequencer
from realtime.event_log.leadership import Leadership
from realtime.event_log.sequencer import Sequencer
from realtime.event_log.table import read_rows
from realtime.event_log.tailer import Tailer
from realtime.models import LogHead, Message, PresenceMember, Process, WalEntry, WalRelation
from realtime.wal import triggers
from realtime.wal.head import disown, read_head
from tests.support.log import number_all
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


def write(count: int = 1) -> None:
    for number in range(count):
        Note.objects.create(title=str(number))
    number_all()


def lead() -> None:
    """What a tailer does at its start: look, and take the lead."""
    look = Sequencer().look(connection)
    Leadership().consider(connection, look.lease, look.head.seq, look.waiting)


def run(*args: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("realtime_repair", *args, stdout=out, **options)
    return out.getvalue()


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def check_sound() -> None:
    assert run("--check") == "The log is as it should be.\n"


def test_a_log_that_is_sound_is_left_alone() -> None:
    write(3)
    before = read_head(connection)
    check_sound()
    assert run() == "The log is as it should be.\n"
    assert read_head(connection) == before


def test_a_head_that_knows_less_than_the_log_never_stops_numbering() -> None:
    write(5)
    before = read_head(connection)
    sql("UPDATE realtime_head SET seq = 2")
    Note.objects.create(title="after")
    assert sequencer.number(connection) == 1
    after = read_head(connection)
    assert (after.seq, after.epoch == before.epoch) == (6, False)
    assert after.commit_us > before.commit_us
    assert [row.seq for row in read_rows("default", 0, 10)] == [1, 2, 3, 4, 5, 6]


def test_the_command_says_that_the_head_is_behind_and_moves_it() -> None:
    write(5)
    sql("UPDATE realtime_head SET seq = 2")
    with pytest.raises(CommandError, match="not as it should be"):
        run("--check")
    assert LogHead.objects.get().seq == 2
    # Who wrote the row, or the file's evidence, may say it first.
    assert "The head " in run()
    assert read_head(connection).seq == 5
    check_sound()


def test_entries_before_a_gap_are_never_replayed_over_it() -> None:
    write(6)
    WalEntry.objects.filter(seq=3).delete()
    assert [row.seq for row in read_rows("default", 0, 10)] == [1, 2]
    assert "Numbers are missing after seq 2: 2 entries" in run()
    assert list(WalEntry.objects.order_by("seq").values_list("seq", flat=True)) == [4, 5, 6]
    check_sound()


def test_entries_that_are_missing_right_before_the_head_are_a_gap_too() -> None:
    write(6)
    WalEntry.objects.filter(seq__gte=5).delete()
    assert "Numbers are missing after seq 4" in run()
    assert not WalEntry.objects.exists()
    write(1)
    assert read_head(connection).seq == 7
    check_sound()


def test_entries_that_were_restored_without_their_numbers_are_mended() -> None:
    write(3)
    before = read_head(connection)
    # One in the middle: behind the last one it would only wait.
    sql("DELETE FROM realtime_wal_number WHERE seq = 2")
    assert "1 entries have no number and never get one" in run()
    assert read_head(connection).epoch != before.epoch
    check_sound()


def test_entries_without_their_relation_are_passed_by_a_tailer_and_mended() -> None:
    write(2)
    epoch = read_head(connection).epoch
    WalEntry.objects.update(relation_id="f" * 32)
    published: list[Any] = []
    tailer = Tailer("default", 0.01, published.append)
    tailer.drain()
    Note.objects.create(title="c")
    WalEntry.objects.filter(seq=None).update(relation_id="f" * 32)
    tailer.drain()
    assert published[-1].epoch != epoch
    Note.objects.create(title="d")
    tailer.drain()
    assert [row.seq for batch in published for row in batch.rows] == [4]
    assert "name a shape of their table that is not recorded" in run()
    assert list(WalEntry.objects.values_list("seq", flat=True)) == [4]
    check_sound()


def test_triggers_that_are_missing_are_made_and_clients_read_again() -> None:
    write(1)
    epoch = read_head(connection).epoch
    triggers.uninstall()
    assert "Capture triggers are missing" in run()
    assert read_head(connection).epoch != epoch
    check_sound()


def test_a_new_epoch_can_be_asked_for() -> None:
    write(1)
    before = read_head(connection)
    assert "A new epoch begins after seq 1." in run("--new-epoch")
    assert read_head(connection).epoch != before.epoch


@on_postgresql
def test_ids_that_are_taken_are_passed_over() -> None:
    write(3)
    sql("SELECT setval(pg_get_serial_sequence('realtime_wal', 'id'), 1, false)")
    most = max(WalEntry.objects.values_list("id", flat=True))
    sql("UPDATE realtime_wal SET id = id - %s", most - 3)
    sql("UPDATE realtime_wal_number SET entry_id = entry_id - %s", most - 3)
    assert "New entries would get ids that are taken" in run()
    check_sound()
    write(1)


# --- whose the head is ---------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize(
    "harm",
    [
        # As a restore of data, a fixture, another program or a copy by replication writes it.
        "UPDATE realtime_head SET seq = seq",
        "WITH old AS (DELETE FROM realtime_head RETURNING *) SELECT count(*) FROM old",
    ],
)
def test_a_head_that_the_log_did_not_write_begins_an_epoch(harm: str) -> None:
    lead()
    write(2)
    before = read_head(connection)
    assert read_head(connection) == before
    if harm.startswith("UPDATE"):
        sql(harm)
    else:
        row = LogHead.objects.values().get()
        sql(harm)
        LogHead(**row).save(force_insert=True)
    after = read_head(connection)
    assert after.epoch != before.epoch
    assert after.seq == before.seq
    # Once, and not again.
    assert read_head(connection) == after
    lead()
    write(2)
    assert read_head(connection).epoch == after.epoch


def test_what_leads_numbers_and_stops_in_turn_keeps_the_epoch() -> None:
    epoch = read_head(connection).epoch
    for _ in range(3):
        worker, leadership = Sequencer(), Leadership()
        look = worker.look(connection)
        leadership.consider(connection, look.lease, look.head.seq, look.waiting)
        Note.objects.create(title="a")
        worker.number(connection, lead=leadership.lead)
        leadership.release(connection)
        write(1)
    assert read_head(connection).epoch == epoch
    check_sound()


# --- fixtures ------------------------------------------------------------------------------------


def test_a_dump_of_everything_leaves_the_log_out(tmp_path: Path) -> None:
    write(2)
    Message.objects.create(topic="a", event="e")
    out = io.StringIO()
    call_command("dumpdata", stdout=out)
    assert '"zoo.note"' in out.getvalue()
    assert '"realtime.' not in out.getvalue()


def test_a_fixture_that_has_the_log_is_loaded_without_it(tmp_path: Path) -> None:
    write(3)
    Message.objects.create(topic="a", event="e")
    process = Process.objects.create(
        id="p", kind="server", host="h", pid=1, version="", started_at="2020-01-01T00:00:00Z",
        seen_at="2020-01-01T00:00:00Z", lease="2020-01-01T00:00:00Z",
    )  # fmt: skip
    PresenceMember.objects.create(
        id="m", process=process, topic="a", private=False, key="k", version=1, meta={}
    )
    path = tmp_path / "dump.json"
    call_command("dumpdata", "realtime", "zoo.note", use_base_manager=True, output=str(path),
                 exclude=["realtime.topic"])  # fmt: skip
    assert '"realtime.walentry"' in path.read_text()
    PresenceMember.objects.all().delete()
    process.delete()
    Message.objects.all().delete()
    Note.objects.all().delete()
    number_all()
    before = read_head(connection)
    entries = WalEntry.objects.count()
    relations = WalRelation.objects.count()
    call_command("loaddata", str(path), verbosity=0)
    assert Note.objects.count() == 3
    assert (Message.objects.count(), Process.objects.count()) == (0, 0)
    assert PresenceMember.objects.count() == 0
    assert WalRelation.objects.count() == relations
    assert WalEntry.objects.count() == entries + 3
    assert set(WalEntry.objects.filter(seq=None).values_list("table_name", "op")) == {
        ("zoo_note", "INSERT")
    }
    assert read_head(connection) == before
    assert sequencer.number(connection) == 3
    assert read_head(connection).epoch == before.epoch
    check_sound()


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Any]:
    """A SQLite file with a log in it; opened anew by each call of `open_`."""
    path = tmp_path / "db.sqlite3"
    opened: list[BaseDatabaseWrapper] = []

    def open_() -> BaseDatabaseWrapper:
        while opened:
            opened.pop().close()
        settings = {**connections["default"].settings_dict, "NAME": str(path)}
        wrapper = type(connections["default"])(settings, alias="kept")
        opened.append(wrapper)
        connections["kept"] = wrapper
        return wrapper

    source = connections["default"]
    source.ensure_connection()
    made = sqlite3.connect(path)
    source.connection.backup(made)
    made.close()
    open_.path = path  # type: ignore[attr-defined]
    yield open_
    while opened:
        opened.pop().close()
    del connections["kept"]


def numbered(wrapper: BaseDatabaseWrapper, count: int) -> Any:
    """A tailer's start on this file, with so many entries numbered; the head."""
    worker, leadership = Sequencer(), Leadership()
    look = worker.look(wrapper)
    leadership.consider(wrapper, look.lease, look.head.seq, look.waiting)
    with wrapper.cursor() as cursor:
        for number in range(count):
            cursor.execute(
                "INSERT INTO zoo_note (title, body, is_public) VALUES (%s, '', 0)", [number]
            )
    worker.number(wrapper, lead=leadership.lead)
    leadership.release(wrapper)
    return read_head(wrapper)


@on_sqlite
def test_a_file_that_is_stopped_and_started_keeps_its_epoch(kept: Any) -> None:
    first = numbered(kept(), 3)
    second = numbered(kept(), 2)
    assert (second.epoch, second.seq) == (first.epoch, first.seq + 2)


def test_a_log_that_has_moved_since_its_head_was_read_is_not_taken_for_another() -> None:
    write(3)
    seen = read_head(connection)
    write(1)
    # What shows whose log it is was read after the head, and is that of the later one.
    found = disown(connection, seen)
    assert (found.epoch, found.seq) == (seen.epoch, seen.seq + 1)


@on_sqlite
@pytest.mark.parametrize("proof", ["kept", "lost"])
@pytest.mark.parametrize("how", ["anew", "in place"])
def test_a_file_that_was_put_back_begins_an_epoch(kept: Any, how: str, proof: str) -> None:
    numbered(kept(), 3)
    path = kept.path
    kept().close()
    backup = path.with_name("backup")
    shutil.copy(path, backup)
    lost = numbered(kept(), 4)
    kept().close()
    if how == "anew":
        path.unlink()
    if proof == "lost":
        path.with_name(f"{path.name}-rowcast").unlink()
    shutil.copy(backup, path)
    found = numbered(kept(), 9)
    assert found.epoch != lost.epoch
    assert found.epoch_us > lost.commit_us
    again = numbered(kept(), 1)
    assert again.epoch == found.epoch


@on_sqlite
def test_a_copy_in_another_place_is_another_log(kept: Any) -> None:
    first = numbered(kept(), 3)
    kept().close()
    copy = kept.path.with_name("copy.sqlite3")
    shutil.copy(kept.path, copy)
    kept.path = copy
    settings = {**connections["default"].settings_dict, "NAME": str(copy)}
    wrapper = type(connections["default"])(settings, alias="kept")
    connections["kept"] = wrapper
    try:
        assert numbered(wrapper, 1).epoch != first.epoch
    finally:
        wrapper.close()
