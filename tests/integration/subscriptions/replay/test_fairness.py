"""What one address asks for costs others nothing: snapshots and replays are served in turn."""

from __future__ import annotations

import asyncio

import pytest

from auth_rls import Subject
from realtime.event_log.position import Position
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.request import Request
from realtime.util.payer_queue import Payer
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

GREEDY = Payer("192.0.2.1", "greedy")
OTHER = Payer("192.0.2.2", "other")


async def started(notes: int, body: str = "", **bounds: float) -> Server:
    server = Server(ring=1, bounds=ReplayBounds(**bounds))  # type: ignore[arg-type]
    await server.start()
    rows = [Note(title=str(number), body=body) for number in range(notes)]
    await db(Note.objects.bulk_create, rows)
    await server.feed()
    return server


class Subscriber(FakeSubscriber):
    """Notes in `done` when it has what it asked for, so that the order can be asked later."""

    def __init__(self, id_: str, done: list[str]) -> None:
        super().__init__(id_)
        self._done = done

    def caught_up(self, at: Position) -> None:
        super().caught_up(at)
        self._done.append(self.id)

    def snapshot(self, at: Position, count: int, complete: bool) -> None:
        super().snapshot(at, count, complete)
        self._done.append(self.id)


async def ask(
    server: Server, payer: Payer, id_: str, done: list[str] | None = None, **binding: object
) -> FakeSubscriber:
    subscriber = Subscriber(id_, [] if done is None else done)
    request = Request(Subject.service(), bindings(**binding), payer=payer)
    await server.subscriptions.add(subscriber, request)
    return subscriber


async def test_a_snapshot_does_not_wait_for_those_of_another_address() -> None:
    server = await started(50)
    nothing = {"snapshot": True, "filter": "title=eq.nothing"}
    done: list[str] = []
    *greedy, other = await asyncio.gather(
        *(ask(server, GREEDY, str(number), done, **nothing) for number in range(120)),
        ask(server, OTHER, "other", done, snapshot=True),
    )
    await auntil(lambda: len(done) == 121)
    assert other.notices == ["snapshot 50"]
    assert all(subscriber.notices == ["snapshot 0"] for subscriber in greedy)
    # In the order of asking it would have been the last.
    assert done[-1] != "other"


@pytest.mark.slow
async def test_a_replay_does_not_wait_for_those_of_another_address() -> None:
    server = await started(3_000)
    begin = server.log.seq - 3_000
    done: list[str] = []
    *greedy, other = await asyncio.gather(
        *(
            ask(server, GREEDY, str(number), done, since=begin + number * 20)
            for number in range(60)
        ),
        ask(server, OTHER, "other", done, since=server.log.seq - 20),
    )
    await auntil(lambda: len(done) == 61)
    assert len(other.frames) == 20
    assert [len(subscriber.frames) for subscriber in greedy] == [
        3_000 - number * 20 for number in range(60)
    ]
    assert done[-1] != "other"


async def test_clients_that_take_no_rows_of_their_snapshots_hold_up_nobody() -> None:
    server = await started(600, body="x" * 1_000)
    stuck = [FakeSubscriber(str(number), stuck=True) for number in range(20)]
    for subscriber in stuck:
        request = Request(Subject.service(), bindings(snapshot=True), payer=GREEDY)
        await server.subscriptions.add(subscriber, request)
    await auntil(lambda: all(subscriber.frames for subscriber in stuck))
    other = await ask(server, OTHER, "other", snapshot=True)
    await auntil(lambda: other.notices)
    assert other.notices == ["snapshot 600"]
    assert not any(subscriber.notices for subscriber in stuck)
    for subscriber in stuck:
        server.channels.remove(subscriber)


async def test_a_live_set_whose_client_takes_no_rows_is_given_up_in_words(
    granted: object,
) -> None:
    server = await started(600, body="x" * 1_000, patience_seconds=0.05, slowest_link=10**8)
    subscriber = FakeSubscriber("live")
    await db(granted, "view_note", using={"title": "nothing"})  # type: ignore[arg-type]
    await server.feed()
    await server.subscriptions.add(subscriber, Request(Subject.anonymous(), bindings(live=True)))
    subscriber.stuck = True

    def widen() -> None:
        from auth_rls.models import Policy

        Policy.objects.update(using=True)

    await db(widen)
    await server.feed()
    await auntil(lambda: "resync" in subscriber.notices)
    await auntil(lambda: not server.channels.replaying(subscriber))
