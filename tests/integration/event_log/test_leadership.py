"""Leadership: one numbers at a time, by the database's clock; who was replaced numbers nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from realtime.event_log import leadership, sequencer
from realtime.event_log.leadership import Deposed, Lead, Leadership, Role, Timing
from realtime.event_log.sequencer import Sequencer
from realtime.wal.head import read_head
from tests.support.tailers import RunningTailer
from tests.support.waiting import until
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

SQLITE = connection.vendor == "sqlite"


class Contender:
    """A tailer's leadership, without its loop, and the roles it had."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.roles: list[Role] = []
        self.leadership = Leadership(self.roles.append, timing)
        self.sequencer = Sequencer()

    @property
    def id(self) -> str:
        return self.leadership.id

    @property
    def lead(self) -> Lead | None:
        return self.leadership.lead

    def consider(self) -> bool:
        look = self.sequencer.look(connection)
        return self.leadership.consider(connection, look.lease, look.head.seq, look.waiting)

    def release(self) -> None:
        self.leadership.release(connection)


def set_head(**values: Any) -> None:
    marks = ", ".join(f"{name} = %s" for name in values)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE realtime_head SET {marks}", [*values.values()])


def expire() -> None:
    set_head(lease_until_us=1)


def ended_process() -> int:
    """The number of a process that was, and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def elsewhere(id_: str) -> str:
    """The same tailer, as it looks from another machine."""
    host, pid, _, unique = id_.rsplit(":", 3)
    return f"{host}:{pid}:00000000:{unique}"


def test_the_first_to_ask_leads_and_the_next_stands_by() -> None:
    first, second = Contender(), Contender()
    assert first.consider()
    assert not second.consider()
    assert first.consider()
    assert first.lead == Lead(1, first.id)
    assert first.roles == [Role(True, first.id)]
    assert second.roles == [Role(False, first.id)]


def test_who_is_released_is_followed_at_once() -> None:
    first, second = Contender(), Contender()
    first.consider()
    second.consider()
    first.release()
    assert second.consider()
    assert second.lead == Lead(2, second.id)
    assert not first.consider()
    assert first.roles[-1] == Role(False, second.id)


def test_a_leader_that_was_replaced_numbers_nothing() -> None:
    first, second = Contender(), Contender()
    first.consider()
    Note.objects.create(title="a")
    first.release()
    second.consider()
    paused = Lead(1, first.id)
    with pytest.raises(Deposed):
        first.sequencer.number(connection, lead=paused)
    assert read_head(connection).seq == 0
    assert second.sequencer.number(connection, lead=second.lead) == 1


def test_a_term_of_a_log_that_was_made_anew_is_nobody_elses() -> None:
    first, second = Contender(), Contender()
    first.consider()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM realtime_head")
    second.consider()
    Note.objects.create(title="a")
    assert first.lead is not None
    assert second.lead is not None
    assert first.lead.term == second.lead.term
    with pytest.raises(Deposed):
        first.sequencer.number(connection, lead=first.lead)


def test_numbering_renews_the_lease() -> None:
    first = Contender()
    first.consider()
    expire()
    assert first.sequencer.look(connection).lease.run_out
    Note.objects.create(title="a")
    assert first.sequencer.number(connection, lead=first.lead) == 1
    assert not first.sequencer.look(connection).lease.run_out


def test_numbering_without_a_claim_touches_no_lease() -> None:
    first = Contender()
    first.consider()
    expire()
    Note.objects.create(title="a")
    assert sequencer.number(connection) == 1
    assert first.sequencer.look(connection).lease.run_out


def test_a_lease_that_reaches_too_far_was_given_by_another_clock() -> None:
    first, second = Contender(), Contender()
    first.consider()
    Note.objects.create(title="a")
    set_head(leader=elsewhere(first.id), lease_until_us=2**60)
    assert second.consider()


@pytest.mark.skipif(SQLITE, reason="a leader on SQLite does not renew while it is idle")
def test_a_lease_that_ran_out_is_taken_at_once() -> None:
    first, second = Contender(), Contender()
    first.consider()
    second.consider()
    expire()
    assert second.consider()
    assert not first.consider()


@pytest.mark.skipif(SQLITE, reason="a leader on SQLite does not renew while it is idle")
def test_an_idle_leader_renews_before_its_lease_runs_out() -> None:
    first, second = Contender(Timing(renew=0.0)), Contender()
    first.consider()
    expire()
    assert first.consider()
    assert not second.consider()


@pytest.mark.skipif(SQLITE, reason="a leader on SQLite does not renew while it is idle")
def test_a_leader_finds_out_while_renewing_that_it_was_replaced() -> None:
    first = Contender(Timing(renew=0.0))
    first.consider()
    set_head(term=7, leader="another")
    first.leadership.renew(connection)
    assert first.lead is None


@pytest.mark.skipif(not SQLITE, reason="a leader on PostgreSQL renews also while it is idle")
def test_an_idle_leader_writes_nothing_and_keeps_the_lead_while_there_is_nothing_to_number() -> (
    None
):
    first, second = Contender(), Contender()
    first.consider()
    expire()
    with connection.cursor() as cursor:
        cursor.execute("SELECT lease_until_us FROM realtime_head")
        before = cursor.fetchall()
        for _ in range(3):
            assert first.consider()
            assert not second.consider()
        cursor.execute("SELECT lease_until_us FROM realtime_head")
        assert cursor.fetchall() == before


@pytest.mark.skipif(not SQLITE, reason="a leader on PostgreSQL renews also while it is idle")
def test_a_leader_that_leaves_entries_waiting_after_its_lease_is_replaced() -> None:
    first, patient, second = Contender(), Contender(), Contender(Timing(grace=0.0))
    first.consider()
    patient.consider()
    second.consider()
    expire()
    Note.objects.create(title="a")
    assert not patient.consider()
    assert second.consider()


@pytest.mark.skipif(not SQLITE, reason="a leader on PostgreSQL renews also while it is idle")
def test_who_starts_takes_a_lead_that_ran_out_where_nobody_can_tell_whether_its_holder_lives() -> (
    None
):
    first, second, third = Contender(), Contender(), Contender()
    first.consider()
    second.consider()
    set_head(leader=elsewhere(first.id), lease_until_us=1)
    assert not second.consider()
    assert third.consider()


def test_a_leader_whose_process_ended_is_replaced_without_waiting_for_its_lease() -> None:
    first, second = Contender(), Contender()
    first.consider()
    host, _, place, unique = first.id.rsplit(":", 3)
    set_head(leader=f"{host}:{ended_process()}:{place}:{unique}")
    assert second.consider()


def test_of_a_process_on_another_machine_nothing_is_concluded() -> None:
    first, second = Contender(), Contender()
    first.consider()
    host, _, _, unique = first.id.rsplit(":", 3)
    set_head(leader=f"{host}:{ended_process()}:00000000:{unique}")
    assert not second.consider()
    for strange in ("", "x", "a:b:c:d", "h:99999999999999999999:p:u", f"h:{os.getpid()}::u"):
        assert not leadership.is_gone(strange)


def test_an_id_fits_its_column() -> None:
    assert len(leadership.new_id()) <= 64
    assert leadership.new_id() != leadership.new_id()
    assert not leadership.is_gone(leadership.new_id())


# --- tailers --------------------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Any]:
    made: list[RunningTailer] = []

    def run(follow: bool = True) -> RunningTailer:
        made.append(RunningTailer(follow=follow))
        until(lambda: made[-1].roles, "a role")
        return made[-1]

    yield run
    for running in made:
        running.stop()


def test_a_standby_publishes_what_the_leader_numbered_where_servers_do_not_hear_it(
    start: Any,
) -> None:
    leader, follower, standby = start(), start(), start(follow=False)
    assert leader.tailer.leading
    assert not follower.tailer.leading
    assert not standby.tailer.leading
    for n in range(5):
        Note.objects.create(title=str(n))
    until(lambda: leader.seqs == follower.seqs == [1, 2, 3, 4, 5])
    until(lambda: standby.tailer.position == 5)
    assert standby.batches == []
    assert len(leader.roles) == len(follower.roles) == len(standby.roles) == 1


def test_a_leader_that_stops_hands_over_and_the_next_says_where_the_log_stands(start: Any) -> None:
    leader, standby = start(follow=False), start(follow=False)
    Note.objects.create(title="a")
    until(lambda: leader.seqs == [1])
    until(lambda: standby.tailer.position == 1)
    leader.stop()
    until(lambda: standby.tailer.leading)
    # What the old leader may have numbered and not published, servers now know to read.
    until(lambda: [(batch.after, batch.rows) for batch in standby.batches] == [(1, [])])
    Note.objects.create(title="b")
    until(lambda: standby.seqs == [2])
    assert [role.leading for role in standby.roles] == [False, True]


def test_a_leader_that_was_replaced_stands_by_and_leads_again_later(start: Any) -> None:
    running = start()
    other = Contender()
    with connection.cursor() as cursor:
        lease = leadership.renewal(connection)
        cursor.execute(
            f"UPDATE realtime_head SET term = 50, leader = %s, lease_until_us = {lease}",
            [other.id],
        )
    Note.objects.create(title="a")
    until(lambda: Role(False, other.id) in running.roles, "standing by")
    set_head(leader="", lease_until_us=0)
    until(lambda: running.seqs == [1])
    assert running.tailer.leading


@pytest.mark.slow
def test_a_standby_takes_over_from_a_leader_that_does_not_number(start: Any) -> None:
    paused = Contender()
    paused.consider()
    set_head(leader=elsewhere(paused.id))
    standby = start()
    assert not standby.tailer.leading
    Note.objects.create(title="a")
    until(lambda: standby.seqs == [1], "a takeover")
    with pytest.raises(Deposed):
        paused.sequencer.number(connection, lead=Lead(1, elsewhere(paused.id)))
