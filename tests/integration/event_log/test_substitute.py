"""A substitute numbers while nobody leads, and never takes the lead."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from realtime.event_log.batch import Batch
from realtime.event_log.leadership import Leadership
from realtime.event_log.sequencer import Sequencer
from realtime.event_log.substitute import Substitute
from realtime.event_log.tailer import Tailer
from realtime.wal.vendor import vendor_of
from tests.support.tailers import RunningTailer
from tests.support.waiting import until
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


def numbers(substitute: Substitute) -> bool:
    look = Sequencer().look(connection)
    return substitute.consider(connection, look.lease, look.head.seq, look.waiting)


def lead() -> Leadership:
    leader = Leadership()
    look = Sequencer().look(connection)
    assert leader.consider(connection, look.lease, look.head.seq, look.waiting)
    return leader


def test_it_numbers_where_nobody_leads() -> None:
    Note.objects.create(title="a")
    assert numbers(Substitute())


def test_it_leaves_the_numbering_to_a_leader() -> None:
    leader = lead()
    Note.objects.create(title="a")
    substitute = Substitute()
    assert not numbers(substitute)
    leader.release(connection)
    assert numbers(substitute)


def test_it_numbers_for_a_leader_whose_lease_ran_out() -> None:
    lead()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE realtime_head SET lease_until_us = 1")
    substitute = Substitute(grace_seconds=0.0)
    # An idle leader does not renew its lease on SQLite, and has a while for what waits.
    assert numbers(substitute) is vendor_of(connection).renews_idle_leases
    Note.objects.create(title="a")
    assert not vendor_of(connection).renews_idle_leases or numbers(Substitute())
    assert numbers(substitute)


def test_a_tailer_that_is_one_publishes_and_leaves_the_lead_alone() -> None:
    batches: list[Batch] = []
    tailer = Tailer("default", 0.005, batches.append, substitute=True)
    thread = threading.Thread(target=tailer.run)
    thread.start()
    try:
        until(lambda: tailer.leading, "it numbers")
        Note.objects.create(title="a")
        until(lambda: batches, "it is published")
        leader = RunningTailer()
        try:
            until(lambda: any(role.leading for role in leader.roles), "somebody leads")
            until(lambda: not tailer.leading, "it does not number")
            Note.objects.create(title="b")
            until(lambda: len(leader.seqs) == 1, "the leader published")
            until(lambda: sum(len(batch.rows) for batch in batches) == 2, "it publishes")
        finally:
            leader.stop()
    finally:
        tailer.stop()
        thread.join(15)
