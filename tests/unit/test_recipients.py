"""Frames for many: each member gets all of its own, once, in order, on whatever way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.line import Line
from realtime.prepared import Outgoing, Prepared, websocket_frame
from realtime.recipients import Recipients
from realtime.turn import WRITE_BYTES

# A control frame that the server sends when it likes.
PING = b"\x89\x03..."
MEMBERS = 40


class Transport(asyncio.Transport):
    """Over one end of a pair of real sockets. It holds what it is given while `slow`."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__({"socket": end})
        self._end = end
        self.slow = False
        self.line: Line | None = None
        self.held = b""
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += 1
        if not self.slow and not self.held:
            with suppress(BlockingIOError):
                data = data[self._end.send(data) :]
        if data:
            began = not self.held
            self.held += bytes(data)
            assert self.line is not None
            if began:
                self.line.hold()

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def drain(self) -> None:
        self.slow = False
        if self.held:
            self._end.sendall(self.held)
            self.held = b""
            assert self.line is not None
            self.line.resume()


@dataclass(eq=False)
class Member:
    """One socket and both its ends."""

    outlet: Any
    transport: Transport
    client: socket.socket

    def received(self) -> bytes:
        """All that has come until now, without the pings."""
        found = b""
        while True:
            try:
                found += self.client.recv(1 << 20)
            except BlockingIOError:
                return found.replace(PING, b"")


class Queue:
    """An outlet that cannot be written to with others."""

    direct = None

    def __init__(self) -> None:
        self.frames: list[str] = []

    def put(self, frame: Outgoing) -> None:
        assert isinstance(frame, Prepared)
        self.frames.append(str(frame.message))


@contextmanager
def sockets(count: int, compressed: int = 0) -> Iterator[list[Member]]:
    """So many, of which every so-manieth takes what is compressed."""
    members = []
    for place in range(count):
        server, client = socket.socketpair()
        server.setblocking(False)
        client.setblocking(False)
        transport = Transport(server)
        takes = bool(compressed) and place % compressed == 0
        line = transport.line = Line(transport, None, lambda failure: None, takes)
        members.append(Member(line, transport, client))
    try:
        yield members
    finally:
        for member in members:
            member.outlet.drop()
            member.client.close()
            member.transport.get_extra_info("socket").close()


def everybody(members: list[Any]) -> Recipients[Any]:
    recipients: Recipients[Any] = Recipients(attrgetter("outlet"))
    for member in members:
        recipients.add(member)
    return recipients


def frames(*messages: str) -> bytes:
    return b"".join(map(websocket_frame, messages))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_all_get_what_is_sent_and_in_one_turn_it_is_sent_together() -> None:
    with sockets(300) as members:
        recipients = everybody(members)
        for message in ("a", "b"):
            recipients.send(Prepared(message))
        assert all(member.received() == b"" for member in members)
        await turns()
        assert all(member.received() == frames("a", "b") for member in members)
        assert not any(member.transport.written for member in members)


async def test_one_may_be_left_out() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        recipients.send(Prepared("a"), without=members[7])
        recipients.send(Prepared("b"), without=members[7])
        recipients.send(Prepared("c"))
        await turns()
        for place, member in enumerate(members):
            assert member.received() == (frames("c") if place == 7 else frames("a", "b", "c"))


async def test_who_leaves_gets_what_was_sent_before_and_nothing_after() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        recipients.send(Prepared("a"))
        recipients.discard(members[3])
        members[3].outlet.put("bye")
        recipients.send(Prepared("b"))
        await turns()
        assert members[3].received() == frames("a", "bye")
        assert all(
            member.received() == frames("a", "b") for member in members if member is not members[3]
        )


async def test_who_comes_gets_nothing_that_was_sent_before() -> None:
    with sockets(40) as members:
        recipients = everybody(members[:-1])
        recipients.send(Prepared("a"))
        recipients.add(members[-1])
        recipients.send(Prepared("b"))
        await turns()
        assert members[-1].received() == frames("b")
        assert members[0].received() == frames("a", "b")


async def test_what_a_socket_gets_by_itself_keeps_its_place() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        members[0].outlet.put("first")
        recipients.send(Prepared("shared"))
        members[0].outlet.put("last")
        members[1].outlet.put("last")
        await turns()
        assert members[0].received() == frames("first", "shared", "last")
        assert members[1].received() == frames("shared", "last")


async def test_a_slow_one_holds_up_nobody_and_gets_it_all_later() -> None:
    with sockets(300) as members:
        recipients = everybody(members)
        slow = members[150]
        recipients.send(Prepared("a"))
        await turns()
        slow.transport.slow = True
        slow.transport.write(PING)
        for message in ("b", "c"):
            recipients.send(Prepared(message))
            await turns()
        assert all(
            member.received() == frames("a", "b", "c") for member in members if member is not slow
        )
        slow.transport.drain()
        recipients.send(Prepared("d"))
        await turns()
        assert slow.received() == frames("a", "b", "c", "d")


async def test_a_socket_whose_buffer_is_full_gets_the_rest_by_its_transport() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        large = "x" * (WRITE_BYTES - 100)
        messages = [large, large, "y"]
        for message in messages:
            recipients.send(Prepared(message))
        await turns()
        assert all(member.transport.held for member in members)
        wanted, found = frames(*messages), dict.fromkeys(members, b"")
        for member in members:
            while member.transport.held:
                found[member] += member.received()
                member.transport.slow = False
                sent = member.transport.get_extra_info("socket").send(member.transport.held)
                member.transport.held = member.transport.held[sent:]
            member.outlet.resume()
            await turns(1)
            found[member] += member.received()
            while member.transport.held:
                member.transport.drain()
                found[member] += member.received()
        assert all(text == wanted for text in found.values())


async def test_a_descriptor_that_was_given_up_is_never_written_to() -> None:
    with sockets(300) as members:
        recipients = everybody(members)
        recipients.send(Prepared("a"))
        gone = members[200]
        gone.outlet.drop()
        # The number is somebody else's at once, as it is when a connection comes.
        number = gone.transport.get_extra_info("socket").fileno()
        gone.transport.get_extra_info("socket").close()
        server, client = socket.socketpair()
        client.setblocking(False)
        try:
            assert number in (server.fileno(), client.fileno())
            recipients.send(Prepared("b"))
            await turns()
            for end in (server, client):
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)
        finally:
            server.close()
            client.close()


async def test_a_batch_that_is_half_written_takes_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realtime.turn._SLICE_SECONDS", -1.0)
    with sockets(300) as members:
        recipients = everybody(members)
        recipients.send(Prepared("a"))
        await turns(1)
        # A slice is over after 128: these have it, the others do not yet.
        heard = [bool(member.received()) for member in members]
        assert heard.count(True) == 128
        recipients.send(Prepared("b"))
        for member in (members[0], members[-1]):
            recipients.discard(member)
            member.outlet.put("bye")
        await turns(20)
        for member, had in zip(members, heard, strict=True):
            ending = ("bye",) if member in (members[0], members[-1]) else ()
            messages = ("b", *ending) if had else ("a", "b", *ending)
            assert member.received() == frames(*messages)


async def test_those_who_take_it_compressed_share_that_in_the_same_turn() -> None:
    with sockets(60, compressed=3) as members:
        recipients = everybody(members)
        messages = Prepared("a" * 1_000), Prepared("b" * 1_000), Prepared("short")
        for message in messages:
            recipients.send(message)
        members[0].outlet.put("c" * 1_000)
        recipients.discard(members[3])
        recipients.send(Prepared("d" * 1_000))
        await turns()
        for place, member in enumerate(members):
            own = [Prepared("c" * 1_000)] if place == 0 else []
            after = [Prepared("d" * 1_000)] if place != 3 else []
            wanted = [message.form(place % 3 == 0) for message in (*messages, *own, *after)]
            assert member.received() == b"".join(wanted)
            assert not member.transport.written
        assert len(messages[0].form(True)) < 50


async def test_members_of_other_servers_are_handed_each_frame() -> None:
    @dataclass(eq=False)
    class Other:
        outlet: Queue

    with sockets(20) as members:
        others = [Other(Queue()) for _ in range(20)]
        recipients = everybody([*others, *members])
        recipients.send(Prepared("a"))
        recipients.send(Prepared("b"), without=others[0])
        await turns()
        assert others[0].outlet.frames == ["a"]
        assert all(other.outlet.frames == ["a", "b"] for other in others[1:])
        assert all(member.received() == frames("a", "b") for member in members)
        assert len(recipients) == 40 and list(recipients)[:20] == others


async def test_two_members_of_one_socket_each_get_theirs() -> None:
    with sockets(20) as members:
        twin = Member(members[0].outlet, members[0].transport, members[0].client)
        recipients = everybody([*members, twin])
        recipients.send(Prepared("a"))
        recipients.send(Prepared("b"), without=members[0])
        await turns()
        assert members[0].received() == frames("a", "a", "b")
        recipients.discard(members[0])
        recipients.send(Prepared("c"))
        await turns()
        assert members[0].received() == frames("c")


DEEDS = ("send", "send", "send", "without", "other", "put", "join", "leave", "turn", "turn")
TROUBLE = ("slow", "drain", "drop")
deeds = st.lists(
    st.tuples(st.sampled_from(DEEDS + TROUBLE), st.integers(0, MEMBERS - 1)), max_size=60
)


@given(deeds)
def test_whatever_happens_each_gets_what_was_sent_while_it_was_there(deeds: list[Any]) -> None:
    async def run() -> None:
        with sockets(MEMBERS, compressed=3) as members:
            first, second = everybody(members), everybody(members[::2])
            wanted: dict[Member, list[str]] = {member: [] for member in members}
            gone: set[Member] = set()
            for number, (deed, place) in enumerate(deeds):
                # Some are worth compressing.
                member, text = members[place], f"{deed} {number}" + "x" * 100 * (number % 4)
                if deed in ("send", "without", "other"):
                    recipients = second if deed == "other" else first
                    without = member if deed == "without" and member in first else None
                    recipients.send(Prepared(text), without)
                    for one in recipients:
                        if one is not without:
                            wanted[one].append(text)
                elif deed == "put":
                    member.outlet.put(text)
                    wanted[member].append(text)
                elif deed == "join" and member not in gone:
                    first.add(member)
                elif deed == "leave":
                    first.discard(member)
                elif deed == "slow" and member not in gone:
                    member.transport.slow = True
                    member.transport.write(PING)
                elif deed == "drain":
                    member.transport.drain()
                elif deed == "drop":
                    # It has got some of it, perhaps; from here on it gets nothing.
                    member.outlet.drop()
                    gone.add(member)
                elif deed == "turn":
                    await turns(1)
            for member in members:
                if member not in gone:
                    member.transport.drain()
            await turns(30)
            for member in members:
                takes, received = member.outlet.compressed, member.received()
                expected = b"".join(Prepared(text).form(takes) for text in wanted[member])
                if member in gone:
                    assert expected.startswith(received)
                else:
                    assert received == expected

    with pytest.MonkeyPatch.context() as patch:
        # A turn writes to a few at a time, so that things happen while a batch is under way.
        patch.setattr("realtime.turn._SLICE_SECONDS", -1.0)
        patch.setattr("realtime.turn._SOCKETS_A_LOOK", 7)
        asyncio.run(run())
