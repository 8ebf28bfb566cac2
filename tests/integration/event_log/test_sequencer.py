"""Numbering: gapless, whole transactions, rising timestamps, and nothing by halves."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TransactionTestCase

from realtime.event_log import sequencer
from realtime.event_log.event import to_event
from realtime.event_log.table import Relations, read_rows, seq_at
from realtime.models import WalEntry, WalNumber
from realtime.wal.clock import now_us
from realtime.wal.entry import Relation
from realtime.wal.head import begin_epoch, read_head, renew_epoch
from tests.support.log import empty_log, number_all
from tests.support.postgresql_tables import another
from tests.support.threads import at_once
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

POSTGRESQL = connection.vendor == "postgresql"
several_writers = pytest.mark.skipif(
    not POSTGRESQL, reason="SQLite has one writer at a time: transactions cannot interleave"
)


def entry(**fields: Any) -> WalEntry:
    values = {
        "op": "DELETE",
        "relation_id": "r",
        "captured_us": 1_000,
        **fields,
    }
    return WalEntry.objects.create(**values)


def numbered() -> list[tuple[int, int]]:
    rows = WalEntry.objects.filter(seq__isnull=False).order_by("seq")
    return list(rows.values_list("seq", "id"))


def test_committed_changes_are_numbered_from_one_without_a_gap() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(5)])
    assert sequencer.number(connection) == 5
    assert [seq for seq, _ in numbered()] == [1, 2, 3, 4, 5]
    assert read_head(connection).seq == 5
    assert sequencer.number(connection) == 0


def test_a_rolled_back_change_gets_no_number_and_leaves_no_gap() -> None:
    Note.objects.create(title="a")
    with pytest.raises(RuntimeError), transaction.atomic():
        Note.objects.create(title="b")
        raise RuntimeError
    Note.objects.create(title="c")
    sequencer.number(connection)
    titles = [json.loads(row)["title"] for row in WalEntry.objects.values_list("new", flat=True)]
    assert titles == ["a", "c"]
    assert [seq for seq, _ in numbered()] == [1, 2]


def test_numbers_go_on_where_the_log_was_pruned() -> None:
    Note.objects.create(title="a")
    sequencer.number(connection)
    WalEntry.objects.all().delete()
    Note.objects.create(title="b")
    sequencer.number(connection)
    assert [seq for seq, _ in numbered()] == [2]


@several_writers
def test_a_transaction_stays_together_and_comes_where_its_last_entry_stands() -> None:
    # Two interleaved transactions, as PostgreSQL's ids may leave them: 7 finished after 8.
    ids = [entry(txid=tx).id for tx in (7, 8, 8, 7, 9)]
    sequencer.number(connection)
    assert [id_ for _, id_ in numbered()] == [ids[1], ids[2], ids[0], ids[3], ids[4]]


@several_writers
def test_a_batch_never_ends_inside_a_transaction() -> None:
    for tx in (1, 1, 2, 2, 2, 3):
        entry(txid=tx)
    assert sequencer.number(connection, limit=3) == 5
    assert sequencer.number(connection, limit=3) == 1
    assert [seq for seq, _ in numbered()] == [1, 2, 3, 4, 5, 6]


def test_a_batch_is_no_larger_than_asked_for() -> None:
    for _ in range(7):
        entry()
    assert [sequencer.number(connection, limit=3) for _ in range(4)] == [3, 3, 1, 0]


def test_an_entry_deleted_while_it_is_numbered_leaves_no_gap() -> None:
    ids = [entry().id for _ in range(3)]
    thief = _Thief("UPDATE realtime_head\nSET seq", ids[2])
    with pytest.raises(OperationalError, match="deleted"), connection.execute_wrapper(thief):
        sequencer.number(connection)
    assert numbered() == []
    assert sequencer.number(connection) == 3


class _Thief:
    """Takes an entry away, as another session might, before a statement is executed."""

    def __init__(self, before: str, id_: int) -> None:
        self._before, self._id = before, id_

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.strip().startswith(self._before):
            execute("DELETE FROM realtime_wal WHERE id = %s", [self._id], False, context)
        return execute(sql, params, many, context)


@pytest.mark.parametrize(
    "captured", [[100, 100, 100], [300, 200, 100], [100, 5_000, 200], [0, 0, 10**15]]
)
def test_timestamps_rise_whatever_the_clocks_say_and_never_precede_the_capture(
    captured: list[int],
) -> None:
    for moment in captured:
        entry(captured_us=moment)
    for _ in captured:
        sequencer.number(connection, limit=1)
    rows = list(WalEntry.objects.order_by("seq").values_list("commit_us", "captured_us"))
    stamps = [commit_us for commit_us, _ in rows]
    assert stamps == sorted(set(stamps))
    assert all(commit_us >= captured_us for commit_us, captured_us in rows)
    assert read_head(connection).commit_us == stamps[-1]


@several_writers
def test_a_late_entry_is_numbered_late_and_holds_nobody_up() -> None:
    early = entry(id=10)
    late = entry(id=12)
    sequencer.number(connection)
    straggler = entry(id=11)  # its id was drawn before, its transaction committed after
    sequencer.number(connection)
    assert [id_ for _, id_ in numbered()] == [early.id, late.id, straggler.id]


@pytest.mark.skipif(POSTGRESQL, reason="PostgreSQL draws ids before the commit, in any order")
def test_ids_rise_on_sqlite_whatever_was_deleted_or_rolled_back() -> None:
    ids = [entry().id for _ in range(3)]
    sequencer.number(connection)
    with pytest.raises(RuntimeError), transaction.atomic():
        entry()
        raise RuntimeError
    WalEntry.objects.all().delete()
    ids.append(entry().id)
    assert ids == sorted(set(ids))
    assert sequencer.number(connection) == 1
    assert numbered() == [(4, ids[-1])]


def test_numbering_writes_to_no_entry() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(5)])
    before = versions()
    sequencer.number(connection)
    assert [seq for seq, _ in numbered()] == [1, 2, 3, 4, 5]
    assert versions() == before


def versions() -> list[Any]:
    """The entries as the table has them; on PostgreSQL with who wrote this version, and where."""
    version = "xmin::text, ctid::text, *" if POSTGRESQL else "*"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {version} FROM realtime_wal ORDER BY id")
        return list(cursor.fetchall())


def test_a_number_goes_with_its_entry_also_if_sql_deletes_that() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(4)])
    sequencer.number(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM realtime_wal WHERE id IN (SELECT entry_id FROM realtime_wal_number"
            " WHERE seq <= 2)"
        )
    assert list(WalNumber.objects.values_list("seq", flat=True).order_by("seq")) == [3, 4]


def test_a_log_that_was_emptied_by_hand_numbers_ids_that_come_again() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(4)])
    sequencer.number(connection)
    with connection.cursor() as cursor:
        if POSTGRESQL:
            cursor.execute("TRUNCATE realtime_wal RESTART IDENTITY")
        else:
            cursor.execute("DELETE FROM realtime_wal")
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = 'realtime_wal'")
    assert not WalNumber.objects.exists()
    Note.objects.create(title="after")
    assert WalEntry.objects.get().id == 1
    assert sequencer.number(connection) == 1
    assert [seq for seq, _ in numbered()] == [5]


@several_writers
def test_entries_of_another_server_are_numbered_once_and_not_looked_at_again() -> None:
    """As after a restore: their transactions have ids that are still to come here."""
    own = sequencer.Sequencer()
    Note.objects.create(title="own")
    assert own.number(connection) == 1
    foreign = [entry(txid=2**50 + n).id for n in range(3)]
    assert not own.look(connection).waiting
    with connection.cursor() as cursor:
        # A restored head row names its own writer, which is another than the row's.
        cursor.execute("UPDATE realtime_head SET stamp = '1:2.3.4'")
    before = read_head(connection)
    restored = sequencer.Sequencer()
    assert restored.look(connection).waiting
    assert restored.number(connection) == 3
    assert [id_ for _, id_ in numbered()][1:] == foreign
    assert read_head(connection).epoch == before.epoch
    Note.objects.create(title="later")
    with CaptureQueriesContext(connection) as captured:
        assert restored.look(connection).waiting
    assert "w.txid <" in captured[-1]["sql"]
    assert restored.number(connection) == 1
    assert not sequencer.Sequencer().look(connection).waiting


@several_writers
def test_a_new_sequencer_begins_where_the_last_one_stood() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(3)])
    assert sequencer.number(connection) == 3
    with connection.cursor() as cursor:
        cursor.execute("SELECT split_part(seen, ':', 2) FROM realtime_head")
        (following,) = cursor.fetchone()
    with CaptureQueriesContext(connection) as captured:
        assert not sequencer.Sequencer().look(connection).waiting
    assert f"w.txid >= {following}" in captured[-1]["sql"].replace("'", "")


@several_writers
@pytest.mark.parametrize("running", [False, True])
def test_a_look_reads_by_index_also_where_one_transaction_wrote_most_of_the_log(
    running: bool,
) -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(5_000)])
    number_all()
    own = sequencer.Sequencer()
    with another() as writer:
        if running:
            writer.execute("BEGIN")
            writer.execute("INSERT INTO zoo_note (title, body, is_public) VALUES ('n', '', false)")
        Note.objects.create(title="later")
        own.number(connection)
        own.look(connection)
        with CaptureQueriesContext(connection) as captured:
            own.look(connection)
        assert "unnest(" in captured[-1]["sql"] or not running
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE realtime_wal, realtime_wal_number")
        cursor.execute(f"EXPLAIN {captured[-1]['sql']}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    whole = set(re.findall(r"Seq Scan on (\w+)", plan))
    # Partitions without entries aside.
    assert not whole & {"realtime_wal", "realtime_wal_first", "realtime_wal_number"}, plan


def test_a_crash_before_the_commit_leaves_everything_as_it_was() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(3)])
    head = read_head(connection)
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        assert sequencer.number(connection) == 3
        raise KeyboardInterrupt
    assert numbered() == []
    assert read_head(connection) == head
    assert sequencer.number(connection) == 3
    assert [seq for seq, _ in numbered()] == [1, 2, 3]


def test_two_sequencers_at_once_number_nothing_twice() -> None:
    def work() -> None:
        while count := sequencer.number(connection, limit=7):
            counts.append(count)

    for _ in range(200):
        entry()
    counts: list[int] = []
    at_once(3, work)
    assert sum(counts) == 200
    assert [seq for seq, _ in numbered()] == list(range(1, 201))


def test_a_log_that_went_back_begins_a_new_epoch() -> None:
    Note.objects.create(title="a")
    sequencer.number(connection)
    seen = read_head(connection)
    assert renew_epoch(connection, seen) == seen
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM realtime_wal")
        cursor.execute("UPDATE realtime_head SET seq = 0")
    renewed = renew_epoch(connection, seen)
    assert renewed.epoch != seen.epoch
    assert renewed.seq == 0


def test_an_epoch_begins_by_the_clock_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    Note.objects.create(title="a")
    sequencer.number(connection)
    before = read_head(connection)
    # This machine is in the year 2100.
    monkeypatch.setattr(time, "time_ns", lambda: 4_102_444_800 * 10**9)
    head = begin_epoch(connection)
    assert head.epoch != before.epoch
    assert before.commit_us <= head.epoch_us <= now_us(connection)


def test_a_moment_is_found_by_halving_also_where_entries_were_pruned() -> None:
    for moment in (1_000, 2_000, 3_000, 4_000):
        entry(captured_us=moment)
    sequencer.number(connection)
    stamps = dict(WalEntry.objects.values_list("seq", "commit_us"))
    for seq, stamp in stamps.items():
        assert seq_at(connection, stamp) == seq
        assert seq_at(connection, stamp + 1) == seq
    WalEntry.objects.filter(seq__lte=2).delete()
    assert seq_at(connection, stamps[2]) is None
    assert seq_at(connection, stamps[3]) == 3


@pytest.mark.skipif(POSTGRESQL, reason="PostgreSQL stores no text that is not valid")
def test_a_text_that_is_not_utf8_does_not_stop_the_log() -> None:
    Note.objects.create(title="a")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_note SET title = CAST(x'ff41' AS TEXT)")
    sequencer.number(connection)
    rows = read_rows("default", 0, 10)
    assert [row.seq for row in rows] == [1, 2]
    assert b"\xef\xbf\xbdA" in (rows[1].new or b"")


def test_reading_the_log_twice_gives_equal_events() -> None:
    note = Note.objects.create(title="a", price="1.10")
    note.title = "b"
    note.save()
    note.delete()
    sequencer.number(connection)
    readings = []
    for _ in range(2):
        rows = read_rows("default", 0, 10)
        relations = Relations()
        relations.load("default", {row.relation_id for row in rows})
        readings.append(relations.events(rows))
    assert readings[0] == readings[1]
    assert [event.op for event in readings[0]] == ["INSERT", "UPDATE", "DELETE"]


def test_an_entry_is_read_with_no_other_relation_than_its_own() -> None:
    Note.objects.create(title="a")
    sequencer.number(connection)
    (row,) = read_rows("default", 0, 1)
    stranger = Relation("other", "public", "t", (), ())
    with pytest.raises(ValueError, match=f"entry 1 names relation {row.relation_id}, not other"):
        to_event(row, stranger)


@pytest.mark.slow
@several_writers
class AnyHistory(TransactionTestCase):
    """Random interleavings of transactions, in random batches."""

    @given(
        txids=st.lists(st.integers(1, 6), max_size=40),
        limits=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    )
    def test_every_history_is_numbered_whole_and_once(
        self, txids: list[int], limits: list[int]
    ) -> None:
        empty_log()
        for number, tx in enumerate(txids):
            entry(txid=tx, captured_us=number)
        step = 0
        while sequencer.number(connection, limits[step % len(limits)]):
            step += 1
        rows = list(WalEntry.objects.order_by("seq").values_list("seq", "id", "txid"))
        assert [seq for seq, _, _ in rows] == list(range(1, len(txids) + 1))
        order = [tx for _, _, tx in rows]
        # Contiguous, and ordered by the last id of each transaction.
        seen = list(dict.fromkeys(order))
        assert order == [tx for tx in seen for _ in range(order.count(tx))]
        last = {tx: max(id_ for _, id_, t in rows if t == tx) for tx in seen}
        assert seen == sorted(seen, key=lambda tx: last[tx])
        for tx in seen:
            ids = [id_ for _, id_, t in rows if t == tx]
            assert ids == sorted(ids)
