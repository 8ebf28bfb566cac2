"""Entries whose ids come out of order, because the sequence of ids was set or keeps some ready."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from realtime.event_log.sequencer import Sequencer
from realtime.event_log.table import backlog
from realtime.models import WalEntry, WalNumber
from tests.support.postgresql_tables import another, sql
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = [on_postgresql, pytest.mark.usefixtures("wal")]

WRITE = "INSERT INTO zoo_note (title, body, is_public) VALUES ('n', '', false)"


@pytest.fixture
def sequencer() -> Sequencer:
    return Sequencer()


def settle(sequencer: Sequencer) -> None:
    """As a tailer does that looks again and again."""
    for _ in range(4):
        sequencer.look(connection)
        sequencer.number(connection)


def seen(sequencer: Sequencer) -> None:
    assert sequencer.look(connection).waiting
    assert backlog(connection) == 1
    assert sequencer.number(connection) == 1


@pytest.fixture
def cached(wal: None) -> Iterator[None]:
    (name,) = sql("SELECT pg_get_serial_sequence('realtime_wal', 'id')")[0]
    sql(f"ALTER SEQUENCE {name} CACHE 50")
    yield
    sql(f"ALTER SEQUENCE {name} CACHE 1")


@pytest.mark.usefixtures("cached")
def test_a_session_that_keeps_ids_ready_writes_entries_that_are_numbered(
    sequencer: Sequencer,
) -> None:
    with another() as one, another() as other:
        for session in (one, other):
            session.execute(WRITE)
            session.commit()
        settle(sequencer)
        one.execute(WRITE)
        one.commit()
    seen(sequencer)


def test_ids_below_those_of_what_was_rolled_back_are_numbered(sequencer: Sequencer) -> None:
    Note.objects.create(title="a")
    with pytest.raises(RuntimeError), transaction.atomic():
        Note.objects.bulk_create([Note(title="b") for _ in range(20)])
        raise RuntimeError
    settle(sequencer)
    out = io.StringIO()
    call_command("sqlsequencereset", "realtime", no_color=True, stdout=out)
    sql(out.getvalue())
    Note.objects.create(title="c")
    seen(sequencer)


def test_ids_that_begin_anew_in_an_empty_log_are_numbered(sequencer: Sequencer) -> None:
    Note.objects.bulk_create([Note(title="b") for _ in range(20)])
    settle(sequencer)
    WalEntry.objects.all().delete()
    out = io.StringIO()
    call_command("sqlsequencereset", "realtime", no_color=True, stdout=out)
    sql(out.getvalue())
    Note.objects.create(title="c")
    seen(sequencer)


def test_ids_drawn_again_between_two_looks_are_found_by_a_check(sequencer: Sequencer) -> None:
    Note.objects.create(title="a")
    with pytest.raises(RuntimeError), transaction.atomic():
        Note.objects.bulk_create([Note(title="b") for _ in range(20)])
        raise RuntimeError
    settle(sequencer)
    assert not sequencer.check_ids(connection)
    (name,) = sql("SELECT pg_get_serial_sequence('realtime_wal', 'id')")[0]
    sql(f"SELECT setval('{name}', (SELECT MAX(id) FROM realtime_wal))")
    Note.objects.bulk_create([Note(title="c") for _ in range(30)])
    settle(sequencer)
    assert sequencer.check_ids(connection)
    settle(sequencer)
    assert WalNumber.objects.count() == 31
    assert not sequencer.check_ids(connection)
