"""Broadcasts of processes that no layer connects with the servers: a table beside the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

import realtime
from realtime.models import PassingBroadcast, WalEntry
from realtime.process import broadcast_sender
from realtime.protocol.serializer import Encoding
from realtime.topics import passing
from realtime.topics.broadcast import Broadcast, PassingBatch
from realtime.topics.passing import PassingReader
from tests.support.socket_client import Client, db
from tests.support.topics import TOPIC, heard

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


def cast(event: str, payload: bytes = b"1", **more: Any) -> Broadcast:
    return Broadcast("room", False, event, payload, Encoding.JSON, **more)


class Bus:
    """Keeps what is published, unless it is down."""

    def __init__(self) -> None:
        self.batches: list[PassingBatch] = []
        self.down = False

    def publish(self, batch: PassingBatch) -> None:
        if self.down:
            raise ConnectionError("down")
        self.batches.append(batch)

    @property
    def events(self) -> list[str | None]:
        found = [broadcast.event for batch in self.batches for broadcast in batch.broadcasts]
        self.batches.clear()
        return found


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def look(bus: Bus) -> Callable[..., bool]:
    reader = PassingReader(bus.publish, shared=True)
    reader.look(connection, True)
    return lambda leading=True: reader.look(connection, leading)


def test_each_is_published_once_and_in_order(bus: Bus, look: Callable[..., bool]) -> None:
    passing.put(cast("a"), cast("b"))
    passing.put(cast("c"))
    assert look()
    assert bus.events == ["a", "b", "c"]
    assert not look()
    assert bus.events == []


def test_what_is_published_is_what_was_sent(bus: Bus, look: Callable[..., bool]) -> None:
    digits = b'{"n":12345678901234567890.123456789012345678}'
    sent = [
        cast("a", digits),
        Broadcast("other", True, "b", b"\0\xff", Encoding.BINARY, user_id="7"),
    ]
    passing.put(*sent)
    look()
    assert [broadcast for batch in bus.batches for broadcast in batch.broadcasts] == sent


def test_one_that_commits_late_is_not_missed(bus: Bus, look: Callable[..., bool]) -> None:
    passing.put(cast("early"))
    look()
    late = PassingBroadcast.objects.get()
    # Its number was drawn before the other's.
    late.pk, late.event = late.pk - 1_000, "late"
    late.save(force_insert=True)
    look()
    assert bus.events == ["early", "late"]


def test_one_with_the_number_of_another_is_not_taken_for_it(
    bus: Bus, look: Callable[..., bool]
) -> None:
    passing.put(cast("before"))
    look()
    # The database crashed, or was flushed: the table is empty, and numbers begin anew.
    number = PassingBroadcast.objects.get().pk
    PassingBroadcast.objects.all().delete()
    passing.put(cast("after"))
    PassingBroadcast.objects.update(number=number)
    look()
    assert bus.events == ["before", "after"]


def test_what_a_layer_that_is_down_did_not_take_is_sent_again(
    bus: Bus, look: Callable[..., bool]
) -> None:
    bus.down = True
    passing.put(cast("a"))
    # The reader has nothing to do until the layer works again.
    assert not look()
    bus.down = False
    look()
    assert bus.events == ["a"]


def test_of_what_waits_for_a_layer_the_newest_is_kept(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    reader = PassingReader(bus.publish, shared=True, most_waiting=3)
    reader.look(connection, True)
    bus.down = True
    passing.put(*(cast(str(number)) for number in range(5)))
    reader.look(connection, True)
    assert PassingBroadcast.objects.count() == 3
    assert "2 broadcasts that could not be sent were dropped" in caplog.text
    bus.down = False
    reader.look(connection, True)
    assert bus.events == ["2", "3", "4"]


def test_the_leader_deletes_what_everybody_has_had(bus: Bus) -> None:
    reader = PassingReader(bus.publish, shared=False, keep_seconds=0.0)
    reader.begin(connection)
    passing.put(cast("a"))
    reader.look(connection, False)
    reader.look(connection, False)
    assert PassingBroadcast.objects.exists()
    reader.look(connection, True)
    assert not PassingBroadcast.objects.exists()
    assert bus.events == ["a"]


def test_a_new_leader_sends_again_what_may_not_have_been_sent_and_nothing_older(
    bus: Bus, look: Callable[..., bool]
) -> None:
    passing.put(cast("old"), cast("new"))
    PassingBroadcast.objects.filter(event="old").update(sent_at="2020-01-01T00:00:00Z")
    assert not look(False)
    assert bus.events == []
    look()
    assert bus.events == ["new"]


def test_a_server_that_reads_for_itself_begins_behind_what_is_there(bus: Bus) -> None:
    passing.put(cast("before"))
    reader = PassingReader(bus.publish, shared=False)
    reader.begin(connection)
    passing.put(cast("after"))
    reader.look(connection, False)
    assert bus.events == ["after"]


# --- from a program to a socket -------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process sends as one that is no server, with a layer of its own."""
    monkeypatch.setattr(broadcast_sender, "server_sender", lambda: None)


async def test_a_program_without_a_layer_reaches_a_socket_and_the_log_stays_as_it_is(
    elsewhere: None,
) -> None:
    client = await Client().connect()
    await client.join(TOPIC)

    def log() -> tuple[int, int]:
        return realtime.head(), WalEntry.objects.count()

    before = await db(log)
    for number in range(3):
        await db(realtime.broadcast, "room", "e", {"n": number})
    await db(realtime.broadcast, "room", "elsewhere", {}, private=True)
    await realtime.abroadcast("room", "bytes", b"\0\1")
    found = [await heard(client) for _ in range(4)]
    assert [told["payload"]["n"] for told in found[:3]] == [0, 1, 2]
    assert all("meta" not in told for told in found[:3])
    assert found[3].endswith(b"\0\1")
    assert await client.silent()
    assert await db(log) == before
    await client.close()


async def test_what_is_rolled_back_is_not_sent(elsewhere: None) -> None:
    client = await Client().connect()
    await client.join(TOPIC)

    @transaction.atomic
    def fails() -> None:
        realtime.broadcast("room", "never", {})
        passing.put(cast("neither"))
        raise LookupError

    with pytest.raises(LookupError):
        await db(fails)
    await db(realtime.broadcast, "room", "after", {})
    assert (await heard(client))["event"] == "after"
    await client.close()
