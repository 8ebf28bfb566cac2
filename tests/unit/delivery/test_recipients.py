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

from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import SharedFrame, websocket_frame
from realtime.delivery.outbox import Outgoing
from realtime.delivery.recipients import Recipients
from realtime.delivery.write_group import WRITE_BYTES
from realtime.delivery.write_scheduler import scheduler_of

# A control frame that the server sends when it likes.
PING = b"\x89\x03..."
MEMBERS = 40
# Of all members, by start and step: large and small, and everybody is in several.
ROOMS = ((0, 1), (0, 2), (3, 4))


class Transport(asyncio.Transport):
    """Over one end of a pair of real sockets. It holds what it is given while `slow`. One that is
    `alone` has a descriptor that nobody else may write to, as with TLS."""

    def __init__(self, end: socket.socket, alone: bool = False) -> None:
        super().__init__({"socket": end, "sslcontext": alone or None})
        self._end = end
        self.slow = False
        self.line: DirectOutbox | None = None
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
                self.line.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def drain(self, whole: bool = True) -> None:
        """Send on what is held: all of it, or what the other end has room for."""
        self.slow = False
        if self.held:
            with suppress(BlockingIOError):
                self.held = self.held[self._end.send(self.held) :]
            assert self.line is not None
            assert not (whole and self.held)
            if not self.held:
                self.line.resume_writing()


@dataclass(eq=False)
class Member:
    """One socket and both its ends."""

    outlet: Any
    transport: Transport
    client: socket.socket

    def read(self) -> bytes:
        """All that has come until now."""
        found = b""
        while True:
            try:
                found += self.client.recv(1 << 20)
            except BlockingIOError:
                return found

    def received(self) -> bytes:
        """The same without the pings."""
        return self.read().replace(PING, b"")


class Queue:
    """An outlet that cannot be written to with others."""

    direct = None

    def __init__(self) -> None:
        self.frames: list[str] = []

    def put(self, frame: Outgoing) -> None:
        assert isinstance(frame, SharedFrame)
        self.frames.append(str(frame.message))


@contextmanager
def sockets(count: int, compressed: int = 0, alone: int = 0) -> Iterator[list[Member]]:
    """So many, of which every so-manieth takes what is compressed, and every so-manieth has no
    descriptor that others may write to."""
    members = []
    for place in range(count):
        server, client = socket.socketpair()
        server.setblocking(False)
        client.setblocking(False)
        if alone:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)
        transport = Transport(server, bool(alone) and place % alone == 5)
        takes = bool(compressed) and place % compressed == 0
        line = transport.line = DirectOutbox(transport, None, lambda failure: None, takes)
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
            recipients.send(SharedFrame(message))
        assert all(member.received() == b"" for member in members)
        await turns()
        assert all(member.received() == frames("a", "b") for member in members)
        assert not any(member.transport.written for member in members)


async def test_one_may_be_left_out() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        recipients.send(SharedFrame("a"), without=members[7])
        recipients.send(SharedFrame("b"), without=members[7])
        recipients.send(SharedFrame("c"))
        await turns()
        for place, member in enumerate(members):
            assert member.received() == (frames("c") if place == 7 else frames("a", "b", "c"))


async def test_who_leaves_gets_what_was_sent_before_and_nothing_after() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        recipients.send(SharedFrame("a"))
        recipients.discard(members[3])
        members[3].outlet.put("bye")
        recipients.send(SharedFrame("b"))
        await turns()
        assert members[3].received() == frames("a", "bye")
        assert all(
            member.received() == frames("a", "b") for member in members if member is not members[3]
        )


async def test_who_comes_gets_nothing_that_was_sent_before() -> None:
    with sockets(40) as members:
        recipients = everybody(members[:-1])
        recipients.send(SharedFrame("a"))
        recipients.add(members[-1])
        recipients.send(SharedFrame("b"))
        await turns()
        assert members[-1].received() == frames("b")
        assert members[0].received() == frames("a", "b")


async def test_what_a_socket_gets_by_itself_keeps_its_place() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        members[0].outlet.put("first")
        recipients.send(SharedFrame("shared"))
        members[0].outlet.put("last")
        members[1].outlet.put("last")
        await turns()
        assert members[0].received() == frames("first", "shared", "last")
        assert members[1].received() == frames("shared", "last")


async def test_a_slow_one_holds_up_nobody_and_gets_it_all_later() -> None:
    with sockets(300) as members:
        recipients = everybody(members)
        slow = members[150]
        recipients.send(SharedFrame("a"))
        await turns()
        slow.transport.slow = True
        slow.transport.write(PING)
        for message in ("b", "c"):
            recipients.send(SharedFrame(message))
            await turns()
        assert all(
            member.received() == frames("a", "b", "c") for member in members if member is not slow
        )
        slow.transport.drain()
        recipients.send(SharedFrame("d"))
        await turns()
        assert slow.received() == frames("a", "b", "c", "d")


async def test_a_socket_whose_buffer_is_full_gets_the_rest_by_its_transport() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        large = "x" * (WRITE_BYTES - 100)
        messages = [large, large, "y"]
        for message in messages:
            recipients.send(SharedFrame(message))
        await turns()
        assert all(member.transport.held for member in members)
        wanted, found = frames(*messages), dict.fromkeys(members, b"")
        for member in members:
            while member.transport.held:
                found[member] += member.received()
                member.transport.slow = False
                sent = member.transport.get_extra_info("socket").send(member.transport.held)
                member.transport.held = member.transport.held[sent:]
            member.outlet.resume_writing()
            await turns(1)
            found[member] += member.received()
            while member.transport.held:
                member.transport.drain()
                found[member] += member.received()
        assert all(text == wanted for text in found.values())


async def test_a_descriptor_that_was_given_up_is_never_written_to() -> None:
    with sockets(300) as members:
        recipients = everybody(members)
        recipients.send(SharedFrame("a"))
        gone = members[200]
        gone.outlet.drop()
        # The number is somebody else's at once, as it is when a connection comes.
        number = gone.transport.get_extra_info("socket").fileno()
        gone.transport.get_extra_info("socket").close()
        server, client = socket.socketpair()
        client.setblocking(False)
        try:
            assert number in (server.fileno(), client.fileno())
            recipients.send(SharedFrame("b"))
            await turns()
            for end in (server, client):
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)
        finally:
            server.close()
            client.close()


async def test_what_is_sent_while_a_batch_is_half_written_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realtime.delivery.write_scheduler.FLUSH_SECONDS", -1.0)
    with sockets(300) as members:
        recipients = everybody(members)
        recipients.send(SharedFrame("a"))
        await turns(1)
        # A slice is over after 128: these have it, the others do not yet.
        heard = [bool(member.received()) for member in members]
        assert heard.count(True) == 128
        recipients.send(SharedFrame("b"))
        for member in (members[0], members[-1]):
            recipients.discard(member)
            member.outlet.put("bye")
        await turns(20)
        for member, had in zip(members, heard, strict=True):
            ending = ("bye",) if member in (members[0], members[-1]) else ()
            messages = ("b", *ending) if had else ("a", "b", *ending)
            assert member.received() == frames(*messages)
            assert not member.transport.written


async def test_those_who_take_it_compressed_share_that_in_the_same_turn() -> None:
    with sockets(60, compressed=3) as members:
        recipients = everybody(members)
        messages = SharedFrame("a" * 1_000), SharedFrame("b" * 1_000), SharedFrame("short")
        for message in messages:
            recipients.send(message)
        members[0].outlet.put("c" * 1_000)
        recipients.discard(members[3])
        recipients.send(SharedFrame("d" * 1_000))
        await turns()
        for place, member in enumerate(members):
            own = [SharedFrame("c" * 1_000)] if place == 0 else []
            after = [SharedFrame("d" * 1_000)] if place != 3 else []
            wanted = [message.form(place % 3 == 0) for message in (*messages, *own, *after)]
            assert member.received() == b"".join(wanted)
            assert not member.transport.written
        assert len(messages[0].form(True)) < 50


async def test_members_of_other_servers_are_handed_each_frame() -> None:
    with sockets(20) as members:
        others = [Other(Queue()) for _ in range(20)]
        recipients = everybody([*others, *members])
        recipients.send(SharedFrame("a"))
        recipients.send(SharedFrame("b"), without=others[0])
        await turns()
        assert others[0].outlet.frames == ["a"]
        assert all(other.outlet.frames == ["a", "b"] for other in others[1:])
        assert all(member.received() == frames("a", "b") for member in members)
        assert len(recipients) == 40 and list(recipients)[:20] == others


@dataclass(eq=False)
class Other:
    """A member over an outlet of any kind."""

    outlet: Any


async def test_who_is_no_member_is_left_out_of_nothing() -> None:
    with sockets(20) as members:
        recipients = everybody(members)
        recipients.send(SharedFrame("a"), without=Other(Queue()))
        recipients.send(SharedFrame("b"), without=Other(members[0].outlet))
        await turns()
        assert all(member.received() == frames("a", "b") for member in members)


async def test_a_transport_that_fails_takes_nothing_from_the_others() -> None:
    with sockets(40) as members:
        recipients = everybody(members)
        broken = members[7]
        broken.transport.slow = True
        broken.transport.write(PING)

        def fail(data: Any) -> None:
            raise RuntimeError("it is broken")

        broken.transport.write = fail  # type: ignore[method-assign]
        broken.transport.abort = lambda: None  # type: ignore[method-assign]
        broken.outlet.resume_writing()
        broken.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        for message in ("a", "b"):
            recipients.send(SharedFrame(message))
            await turns()
        others = [member for member in members if member is not broken]
        assert all(member.received() == frames("a", "b") for member in others)


async def test_what_cannot_be_encoded_is_told_to_who_puts_it_and_nobody_else() -> None:
    with sockets(20) as members:
        members[0].outlet.put("fine")
        with pytest.raises(UnicodeEncodeError):
            members[1].outlet.put("\ud800")
        members[2].outlet.put("fine")
        await turns()
        assert [member.received() for member in members[:3]] == [
            frames("fine"),
            b"",
            frames("fine"),
        ]


async def test_two_members_of_one_socket_each_get_theirs() -> None:
    with sockets(20) as members:
        twin = Member(members[0].outlet, members[0].transport, members[0].client)
        recipients = everybody([*members, twin])
        recipients.send(SharedFrame("a"))
        recipients.send(SharedFrame("b"), without=members[0])
        await turns()
        assert members[0].received() == frames("a", "a", "b")
        recipients.discard(members[0])
        recipients.send(SharedFrame("c"))
        await turns()
        assert members[0].received() == frames("c")


# What is sent to many, what to one, who comes and goes, and what happens to a socket.
DEEDS = ("send", "send", "send", "without", "put", "join", "leave", "flush", "turn", "turn")
TROUBLE = ("slow", "part", "drain", "drop", "close", "finish")
TWINS = 4
# Most of it happens to a few.
whom = st.one_of(st.integers(TWINS, TWINS + 3), st.integers(0, MEMBERS + TWINS - 1))
deeds = st.lists(
    st.tuples(st.sampled_from(DEEDS + TROUBLE), whom, st.sampled_from(range(len(ROOMS)))),
    min_size=20,
    max_size=70,
)


@given(
    deeds=deeds,
    look=st.sampled_from((1, 3, 7)),
    few=st.sampled_from((1, 4, 64)),
    write=st.sampled_from((300, 5_000)),
)
def test_whatever_happens_each_gets_what_was_sent_while_it_was_there(
    deeds: list[Any], look: int, few: int, write: int
) -> None:
    async def run() -> None:
        # Some take frames compressed, some have no descriptor of their own, some are twins.
        with sockets(MEMBERS, compressed=3, alone=11) as alone:
            twins = [Member(one.outlet, one.transport, one.client) for one in alone[:TWINS]]
            members = [*alone, *twins]
            rooms = [everybody(members[start::step]) for start, step in ROOMS]
            wanted: dict[Any, list[str]] = {member.outlet: [] for member in alone}
            received = dict.fromkeys(wanted, b"")
            gone: set[Any] = set()
            ended: set[Any] = set()
            for number, (deed, place, room) in enumerate(deeds):
                member, recipients = members[place], rooms[room]
                line = member.outlet
                # Some are worth compressing, some fill a buffer.
                text = f"{deed} {number}" + "x" * (0, 100, 300, 3_000)[number % 4]
                if deed in ("send", "without"):
                    without = member if deed == "without" else None
                    recipients.send(SharedFrame(text), without)
                    for one in recipients:
                        if one is not without and one.outlet not in ended:
                            wanted[one.outlet].append(text)
                elif deed == "put":
                    line.put(text)
                    if line not in ended:
                        wanted[line].append(text)
                elif deed == "join":
                    recipients.add(member)
                elif deed == "leave":
                    recipients.discard(member)
                elif deed == "flush":
                    line.flush()
                elif deed == "slow" and line not in gone:
                    member.transport.slow = True
                    member.transport.write(PING)
                elif deed in ("part", "drain") and line not in gone:
                    received[line] += member.read()
                    member.transport.drain(whole=False)
                    while deed == "drain" and member.transport.held:
                        # The buffer between the two ends is small.
                        received[line] += member.read()
                        member.transport.drain(whole=False)
                elif deed == "drop":
                    # It has got some of it, perhaps; from here on it gets nothing.
                    line.drop()
                    gone.add(line)
                    ended.add(line)
                elif deed in ("close", "finish") and line not in ended:
                    getattr(line, deed)()
                    ended.add(line)
                elif deed == "turn":
                    await turns(1)
            waiting = True
            while waiting:
                await turns(1)
                scheduler = scheduler_of(asyncio.get_running_loop())
                waiting = bool(scheduler.outboxes or scheduler.batches)
                for member in alone:
                    received[member.outlet] += member.read()
                    if member.outlet not in gone:
                        member.transport.drain(whole=False)
                        waiting = waiting or bool(member.transport.held or member.outlet.first)
            for member in alone:
                line = member.outlet
                received[line] += member.read()
                found = received[line].replace(PING, b"")
                expected = b"".join(
                    SharedFrame(text).form(line.compressed) for text in wanted[line]
                )
                if line in gone:
                    assert expected.startswith(found)
                else:
                    assert found == expected

    with pytest.MonkeyPatch.context() as patch:
        # A turn writes to a few at a time, so that things happen while a batch is under way.
        patch.setattr("realtime.delivery.write_scheduler.FLUSH_SECONDS", -1.0)
        patch.setattr("realtime.delivery.write_group.SOCKETS_A_LOOK", look)
        patch.setattr("realtime.delivery.write_scheduler.SOCKETS_A_LOOK", look)
        patch.setattr("realtime.delivery.write_scheduler.FEW", few)
        patch.setattr("realtime.delivery.write_group.WRITE_BYTES", write)
        asyncio.run(run())
