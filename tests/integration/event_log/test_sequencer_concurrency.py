"""Numbering among concurrent writers on PostgreSQL: nothing lost, torn, swapped or held up.

Every history ends with the same proof: played back in order, each entry finds the row as its old
image says, and what is left at the end is the table.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError, InterfaceError
from django.test.utils import CaptureQueriesContext

from realtime.event_log import sequencer
from realtime.event_log.sequencer import Sequencer
from realtime.event_log.table import backlog
from realtime.models import WalEntry
from realtime.wal.head import read_head
from realtime.wal.postgresql.numbering import PostgresqlNumbering
from realtime.wal.postgresql.visibility import Visibility
from tests.zoo.models import Note

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("wal"),
    pytest.mark.skipif(
        connection.vendor != "postgresql",
        reason="SQLite has one writer at a time: none of these races exists there",
    ),
]

INSERT = "INSERT INTO zoo_note (title, body, is_public) VALUES (%s, '', false)"


class Session:
    """Another connection, with a transaction of its own."""

    def __init__(self) -> None:
        self.connection: BaseDatabaseWrapper = connection.copy()
        self.connection.set_autocommit(False)

    def __call__(self, sql: str, *parameters: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        if self.connection.connection is not None:
            self.connection.rollback()
        self.connection.close()


@pytest.fixture
def sessions() -> Iterator[Any]:
    made: list[Session] = []

    def make() -> Session:
        made.append(Session())
        return made[-1]

    yield make
    for session in made:
        session.close()


def titles() -> list[str]:
    """What each numbered entry wrote, in order."""
    images = WalEntry.objects.exclude(seq=None).order_by("seq").values_list("new", flat=True)
    return [json.loads(image)["title"] for image in images if image]


def check_log() -> None:
    """Raises AssertionError unless the log is what RT-E2 and RT-E4 say."""
    entries = WalEntry.objects.filter(table_name="zoo_note").order_by("seq")
    rows = list(entries.values_list("seq", "txid", "op", "pk_text", "old", "new", "commit_us"))
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert read_head(connection).seq == len(rows)
    stamps = [row[-1] for row in rows]
    assert stamps == sorted(set(stamps))
    runs = [tx for tx, _ in itertools.groupby(row[1] for row in rows)]
    assert len(runs) == len(set(runs)), "a transaction is torn"
    state: dict[str, Any] = {}
    for seq, _, op, key, old, new, _ in rows:
        before = None if op == "INSERT" else json.loads(old)
        assert state.pop(key, None) == before, f"entry {seq} does not continue its row's history"
        if op != "DELETE":
            state[key] = json.loads(new)
    table = {str(row["id"]): row for row in Note.objects.values("id", "title", "score")}
    left = {
        key: {name: image[name] for name in ("id", "title", "score")}
        for key, image in state.items()
    }
    assert left == table


def test_an_insert_that_froze_before_its_commit_is_numbered_when_it_commits(sessions: Any) -> None:
    frozen, quick = sessions(), sessions()
    frozen(INSERT, "frozen")
    quick(INSERT, "quick")
    quick.commit()
    assert sequencer.number(connection) == 1
    assert sequencer.number(connection) == 0
    frozen.commit()
    assert sequencer.number(connection) == 1
    assert titles() == ["quick", "frozen"]
    first, second = WalEntry.objects.order_by("seq")
    assert first.id > second.id, "the ids were not drawn in the order this is about"
    check_log()


def test_a_transaction_that_wrote_first_and_committed_last_does_not_undo_a_row(
    sessions: Any,
) -> None:
    first, second = sessions(), sessions()
    note = Note.objects.create(title="0")
    first(INSERT, "early")
    second("UPDATE zoo_note SET title = 'second' WHERE id = %s", note.pk)
    second.commit()
    first("UPDATE zoo_note SET title = 'first' WHERE id = %s", note.pk)
    first.commit()
    sequencer.number(connection)
    assert titles() == ["0", "second", "early", "first"]
    check_log()


def test_an_idle_transaction_holds_up_nobody(sessions: Any) -> None:
    idle, quick = sessions(), sessions()
    idle(INSERT, "idle")
    working = Sequencer()
    for number in range(20):
        quick(INSERT, str(number))
        quick.commit()
        assert working.look(connection).waiting
        assert working.number(connection) == 1
        assert not working.look(connection).waiting
    idle.commit()
    assert working.look(connection).waiting
    assert working.number(connection) == 1
    assert titles() == [*map(str, range(20)), "idle"]
    check_log()


def test_a_writer_never_waits_for_a_sequencer_at_work(sessions: Any) -> None:
    Note.objects.create(title="before")
    writer = sessions()
    writer("SET lock_timeout = '5s'")
    with transaction.atomic():
        assert sequencer.number(connection) == 1
        writer(INSERT, "meanwhile")
        writer("UPDATE zoo_note SET score = 1")
        writer.commit()
    assert sequencer.number(connection) == 3
    check_log()


def test_a_look_reads_neither_what_is_numbered_nor_what_an_open_transaction_wrote(
    sessions: Any,
) -> None:
    many = "INSERT INTO zoo_note (title, body, is_public) SELECT 'n', '', false FROM {} AS n"
    idle = sessions()
    idle(many.format("generate_series(1, 3000)"))
    with connection.cursor() as cursor:
        cursor.execute(many.format("generate_series(1, 3000)"))
    working = Sequencer()
    assert working.look(connection).waiting
    assert working.number(connection, 4_000) == 3_000
    assert not working.look(connection).waiting
    with CaptureQueriesContext(connection) as captured:
        working.look(connection)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {captured[-1]['sql']}")
        ((plan,),) = cursor.fetchall()
    assert plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"] < 30
    idle.commit()
    assert working.number(connection, 4_000) == 3_000


def test_a_server_that_has_lived_less_is_looked_at_as_a_new_one() -> None:
    Note.objects.create(title="a")
    working = Sequencer(numbering=PostgresqlNumbering(Visibility(2**50, {})))
    assert working.look(connection).waiting
    assert working.number(connection) == 1


def test_a_jump_of_the_sequence_leaves_no_gap() -> None:
    Note.objects.create(title="a")
    with connection.cursor() as cursor:
        # As after a crash of the server, which forgets the ids it had set aside.
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('realtime_wal', 'id'),"
            " nextval(pg_get_serial_sequence('realtime_wal', 'id')) + 32)"
        )
    Note.objects.create(title="b")
    sequencer.number(connection)
    assert titles() == ["a", "b"]
    check_log()


class Killer:
    """Ends the session that executes statement number `at` of a transaction, before or after it."""

    def __init__(self, other: Session, at: int, after: bool) -> None:
        self._other, self._at, self._after = other, at, after
        self.seen = 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            self._pid = cursor.fetchone()[0]

    def __call__(self, execute: Any, *call: Any) -> Any:
        if not connection.in_atomic_block:
            return execute(*call)
        self.seen += 1
        if self.seen == self._at and not self._after:
            self._kill()
        done = execute(*call)
        if self.seen == self._at and self._after:
            self._kill()
        return done

    def _kill(self) -> None:
        self._other("SELECT pg_terminate_backend(%s, 5000)", self._pid)
        self._other.commit()


STATEMENTS = 3  # lock, number, advance


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, STATEMENTS + 1))
def test_a_sequencer_that_dies_at_any_statement_leaves_all_or_nothing(
    sessions: Any, at: int, after: bool
) -> None:
    for number in range(3):
        Note.objects.create(title=str(number))
    head = read_head(connection)
    killer = Killer(sessions(), at, after)
    with (
        pytest.raises((DatabaseError, InterfaceError)),
        connection.execute_wrapper(killer),
    ):
        sequencer.number(connection)
    assert killer.seen >= at
    assert read_head(connection) == head
    assert not WalEntry.objects.exclude(seq=None).exists()
    counter = Killer(sessions(), STATEMENTS + 1, after)
    with connection.execute_wrapper(counter):
        assert sequencer.number(connection) == 3
    assert counter.seen == STATEMENTS, "a statement of number() is not killed here"
    check_log()


def test_a_sequencer_that_stands_still_inside_its_transaction_is_ended_by_the_server() -> None:
    locked, resume = threading.Event(), threading.Event()
    said: list[BaseException] = []

    def stand_still() -> None:
        try:
            with transaction.atomic():
                sequencer.number(connections["default"])
                locked.set()
                resume.wait(60)
                with connections["default"].cursor() as cursor:
                    cursor.execute("SELECT 1")
        except (DatabaseError, InterfaceError) as error:
            said.append(error)
        finally:
            connections.close_all()

    Note.objects.create(title="a")
    thread = threading.Thread(target=stand_still)
    thread.start()
    try:
        assert locked.wait(15)
        assert sequencer.number(connection) == 1
    finally:
        resume.set()
        thread.join(15)
    assert "idle-in-transaction" in str(said[0])
    check_log()


# --- random histories ---------------------------------------------------------------------------

WRITERS = 4
TRANSACTIONS = 25
ROWS = 6


def deed(dice: random.Random, keys: list[int]) -> None:
    """One statement or several on rows that others write too."""
    key = dice.choice(keys)
    match dice.randrange(6):
        case 0:
            Note.objects.create(title=f"new {dice.random()}")
        case 1:
            Note.objects.filter(pk=key).update(score=dice.randrange(1_000))
        case 2:
            Note.objects.filter(pk__in=dice.sample(keys, 3)).update(title=f"t {dice.random()}")
        case 3:
            Note.objects.filter(pk=key).delete()
        case 4:
            # The key comes back, as another row.
            Note.objects.filter(pk=key).delete()
            Note.objects.create(pk=key, title="again")
        case 5:
            with connections["default"].cursor() as cursor:
                cursor.execute(
                    "INSERT INTO zoo_note (id, title, body, is_public) VALUES (%s, 'up', '', false)"
                    " ON CONFLICT (id) DO UPDATE SET title = 'upserted', score = %s",
                    [key, dice.randrange(1_000)],
                )


class Regret(Exception):
    """Makes a transaction or a savepoint roll back."""


def write(seed: int, keys: list[int]) -> None:
    dice = random.Random(seed)
    try:
        for _ in range(TRANSACTIONS):
            try:
                with transaction.atomic():
                    for _ in range(dice.randint(1, 4)):
                        try:
                            with transaction.atomic(savepoint=dice.random() < 0.5):
                                deed(dice, keys)
                                if dice.random() < 0.1:
                                    raise Regret
                        except Regret:
                            if dice.random() < 0.3:
                                raise
            except (Regret, DatabaseError):
                # A deadlock, a broken unique key, a change of mind: all rolled back.
                continue
    finally:
        connections.close_all()


def keep_numbering(seed: int, over: threading.Event, failures: list[BaseException]) -> None:
    dice = random.Random(seed)
    mine = Sequencer()
    try:
        while True:
            last = over.is_set()
            if mine.look(connections["default"]).waiting:
                mine.number(connections["default"], dice.choice((1, 2, 7, 1_000)))
            elif last:
                break
    except BaseException as error:
        failures.append(error)
    finally:
        connections.close_all()


@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_concurrent_writers_is_numbered_whole_and_in_order(seed: int) -> None:
    keys = [Note.objects.create(title=str(n)).pk for n in range(ROWS)]
    with connection.cursor() as cursor:
        # Keys that writers choose and those that the sequence draws must not meet.
        cursor.execute("SELECT setval(pg_get_serial_sequence('zoo_note', 'id'), 1000000)")
    over = threading.Event()
    failures: list[BaseException] = []
    writers = [threading.Thread(target=write, args=(seed * 100 + n, keys)) for n in range(WRITERS)]
    # Two at once, one of them always behind the other: both are right at any moment.
    numbering = [
        threading.Thread(target=keep_numbering, args=(seed * 100 + 50 + n, over, failures))
        for n in range(2)
    ]
    for thread in [*writers, *numbering]:
        thread.start()
    for thread in writers:
        thread.join(120)
    over.set()
    for thread in numbering:
        thread.join(120)
    assert not failures
    assert backlog(connection) == 0
    assert WalEntry.objects.count() > ROWS + WRITERS * TRANSACTIONS / 2
    check_log()


def test_what_a_transaction_writes_after_it_numbered_itself_is_numbered_too(sessions: Any) -> None:
    """No snapshot of a transaction names that transaction."""
    inside = Sequencer()
    other = sessions()
    with transaction.atomic():
        Note.objects.create(title="a")
        other(INSERT, "b")
        other.commit()
        assert sequencer.number(connection) == 2
        assert not inside.look(connection).waiting
        other(INSERT, "c")
        other.commit()
        Note.objects.create(title="d")
        assert inside.look(connection).waiting
    # One that ends after its first batch, so that the next begins with what the head row says.
    assert sequencer.number(connection, limit=1) == 1
    assert Sequencer().look(connection).waiting
    assert sequencer.number(connection) == 1
    assert titles() == ["a", "b", "c", "d"]


def test_a_sequencer_begins_late_also_where_very_many_transactions_were_running(
    sessions: Any,
) -> None:
    running = [sessions() for _ in range(70)]
    for session in running:
        session("SELECT pg_current_xact_id()")
    Note.objects.create(title="a")
    assert sequencer.number(connection) == 1
    with CaptureQueriesContext(connection) as captured:
        assert not Sequencer().look(connection).waiting
    assert "w.txid >=" in captured[-1]["sql"]
    running[0](INSERT, "b")
    running[-1](INSERT, "c")
    for session in (running[0], running[-1]):
        session.commit()
    assert sequencer.number(connection) == 2
    assert titles() == ["a", "b", "c"]
