"""The tailer: publishes what is committed, in order, and outlives its database."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import IntegrityError, OperationalError

from realtime.event_log import sequencer
from realtime.event_log.batch import Batch
from realtime.event_log.table import BATCH
from realtime.event_log.tailer import Tailer
from realtime.models import WalEntry, WalRelation
from realtime.wal.head import read_head
from realtime.wal.sqlite.change_detector import SqliteChangeDetector
from realtime.wal.vendor import vendor_of
from tests.support.tailers import RunningTailer
from tests.support.vendors import on_postgresql
from tests.support.waiting import until
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite's file and locks")


@pytest.fixture
def running() -> Iterator[RunningTailer]:
    made = RunningTailer()
    yield made
    made.stop()


def test_what_is_committed_is_published_in_order_with_its_relations(running: RunningTailer) -> None:
    for n in range(3):
        Note.objects.create(title=str(n))
    until(lambda: len(running.seqs) >= 3, "publication")
    assert running.seqs == [1, 2, 3]
    for batch in running.batches:
        named = {relation.id for relation in batch.relations}
        assert {row.relation_id for row in batch.rows} == named
    assert running.batches[0].after == 0


def test_what_was_committed_while_nobody_tailed_is_published_first() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(2_500)])
    running = RunningTailer()
    until(lambda: len(running.seqs) == 2_500, "the backlog")
    running.stop()
    assert running.seqs == list(range(1, 2_501))
    # One message per batch, none of them unbounded.
    assert max(len(batch.rows) for batch in running.batches) <= BATCH


def test_what_another_process_numbered_is_published_too(running: RunningTailer) -> None:
    Note.objects.create(title="a")
    until(lambda: running.seqs == [1])
    Note.objects.create(title="b")
    sequencer.number(connection)
    until(lambda: running.seqs == [1, 2])


def test_a_publication_that_fails_is_logged_once_and_holds_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    works = threading.Event()

    def publish(batch: Batch) -> None:
        calls.append(batch.after)
        if not works.is_set():
            raise ConnectionError("no layer")

    caplog.set_level(logging.INFO, "realtime.tailer")
    running = RunningTailer(publish)
    for n in range(2):
        Note.objects.create(title=str(n))
        until(lambda wanted=n: len(calls) > wanted)
    works.set()
    Note.objects.create(title="c")
    until(lambda: len(calls) == 3)
    running.stop()
    actions = [record.action for record in caplog.records]
    assert actions == ["publish_failed", "publish_works"]
    assert read_head(connection).seq == 3


@sqlite
def test_a_locked_database_is_waited_for_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime.tailer")
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 0.01)
    Note.objects.create(title="a")
    lock = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    running = RunningTailer()
    try:
        until(lambda: running.tailer.failing, "the tailer to notice")
        lock.execute("ROLLBACK")
        until(lambda: running.seqs == [1], "publication")
        until(lambda: not running.tailer.failing)
    finally:
        lock.close()
        running.stop()
    assert [record.action for record in caplog.records] == ["tail_failing", "tail_works"]


def test_a_log_that_was_restored_is_announced_as_a_new_epoch(running: RunningTailer) -> None:
    Note.objects.create(title="a")
    until(lambda: running.seqs == [1])
    old = running.batches[-1].epoch
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM realtime_wal")
        cursor.execute("UPDATE realtime_head SET seq = 0")
    until(lambda: running.batches[-1].epoch != old, "a new epoch")
    assert running.batches[-1].rows == []
    Note.objects.create(title="b")
    until(lambda: running.seqs == [1, 1])


def test_a_relation_that_is_damaged_stops_no_tailer(running: RunningTailer) -> None:
    """As after a restore by hand, or of a newer version."""
    Note.objects.create(title="a")
    until(lambda: running.seqs == [1])
    old = running.batches[-1].epoch
    WalRelation.objects.create(
        id="damaged", schema_name="public", table_name="zoo_note", definition='{"id": 1}'
    )
    Note.objects.create(title="unreadable")
    WalEntry.objects.create(op="INSERT", new="{}", relation_id="damaged", captured_us=1)
    until(lambda: running.batches[-1].epoch != old, "a new epoch behind it")
    Note.objects.create(title="b")
    until(lambda: bool(running.batches[-1].rows), "publication")
    assert b'"b"' in (running.batches[-1].rows[-1].new or b"")


def test_an_error_of_any_kind_ends_no_tailer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[object] = []
    look = sequencer.Sequencer.look

    def fails_once(self: sequencer.Sequencer, connection: BaseDatabaseWrapper) -> sequencer.Look:
        looks.append(connection)
        if len(looks) == 1:
            raise RuntimeError("anything")
        return look(self, connection)

    monkeypatch.setattr(sequencer.Sequencer, "look", fails_once)
    Note.objects.create(title="a")
    running = RunningTailer()
    until(lambda: len(looks) > 1, "another look")
    running.stop()
    assert "anything" in caplog.text


def test_a_stop_waits_for_one_batch_and_not_for_a_backlog() -> None:
    published: list[int] = []

    def publish(batch: Batch) -> None:
        published.append(len(batch.rows))
        tailer.stop()

    tailer = Tailer("default", 0.005, publish)
    tailer.drain()
    Note.objects.bulk_create([Note(title=str(n)) for n in range(3 * BATCH)])
    # Another process numbers them, so this one has them all to publish.
    sequencer.number(connection, 3 * BATCH)
    tailer.drain()
    assert published == [BATCH]


def test_a_stop_that_comes_before_the_start_is_not_lost() -> None:
    tailer = Tailer("default", 0.005, lambda batch: None)
    tailer.stop()
    tailer.run()
    assert tailer.stopping


@sqlite
def test_looking_costs_no_query_of_the_log_until_something_was_committed() -> None:
    wake = SqliteChangeDetector(connection)
    wake.changed()
    assert not wake.changed()
    other = sqlite3.connect(connection.settings_dict["NAME"])
    other.execute("UPDATE realtime_head SET seq = seq + 1")
    other.commit()
    other.close()
    assert wake.changed()
    wake.forget()
    assert wake.changed()


@sqlite
def test_a_database_that_is_named_by_a_uri_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"file:{connection.settings_dict['NAME']}"
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "NAME", name)
    wake = SqliteChangeDetector(connection)
    assert wake.changed()
    assert not wake.changed()
    connection.close()


@sqlite
def test_a_missing_file_is_an_error_and_no_empty_database_takes_its_place(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"{tmp_path}/gone.sqlite3"
    monkeypatch.setitem(connection.settings_dict, "NAME", missing)
    wake = SqliteChangeDetector(connection)
    with pytest.raises(OperationalError, match="is missing"):
        wake.changed()
    monkeypatch.undo()
    connection.close()


@on_postgresql
def test_ids_that_a_restore_made_taken_are_passed_over_by_the_tailer() -> None:
    for n in range(3):
        Note.objects.create(title=str(n))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('realtime_wal', 'id'), MIN(id), false)"
            " FROM realtime_wal"
        )
    with pytest.raises(IntegrityError):
        Note.objects.create(title="taken")
    running = RunningTailer()
    try:
        until(lambda: not vendor_of(connection).ids_behind(connection), "free ids")
        Note.objects.create(title="free")
        until(lambda: len(running.seqs) >= 4, "publication")
    finally:
        running.stop()
    assert running.seqs == [1, 2, 3, 4]
