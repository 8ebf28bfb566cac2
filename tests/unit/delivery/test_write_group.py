"""Write groups: what is written to many at once is what each would have got by itself."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.delivery.frame import SharedFrame
from realtime.delivery.write_group import WriteBounds
from realtime.delivery.write_scheduler import scheduler_of
from tests.support.socket_pairs import PING, Member, everybody, frames, sockets, turns

MEMBERS = 40
# Of all members, by start and step: large and small, and everybody is in several.
ROOMS = ((0, 1), (0, 2), (3, 4))


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
        found = slow.drain()
        recipients.send(SharedFrame("d"))
        await turns()
        found += slow.read()
        assert found.replace(PING, b"") == frames("a", "b", "c", "d")


async def test_a_socket_whose_buffer_is_full_gets_the_rest_by_its_transport() -> None:
    with sockets(40, buffer=65_536) as members:
        recipients = everybody(members)
        large = "x" * (WriteBounds().write_bytes - 100)
        messages = [large, large, "y"]
        for message in messages:
            recipients.send(SharedFrame(message))
        await turns()
        assert all(member.transport.held for member in members)
        wanted, found = frames(*messages), dict.fromkeys(members, b"")
        for member in members:
            while member.transport.held:
                found[member] += member.drain()
                await turns(1)
            found[member] += member.read()
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


async def test_what_is_sent_while_a_batch_is_half_written_follows_it() -> None:
    scheduler_of(asyncio.get_running_loop()).bounds = WriteBounds(seconds=-1.0, sockets=128)
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


async def test_sockets_that_take_it_compressed_share_that_in_the_same_iteration() -> None:
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
        # A turn writes to a few at a time, so that things happen while a batch is under way.
        scheduler = scheduler_of(asyncio.get_running_loop())
        scheduler.bounds = WriteBounds(seconds=-1.0, sockets=look, write_bytes=write, few=few)
        # Some take frames compressed, some have no descriptor of their own, some are twins.
        with sockets(MEMBERS, compressed=3, alone=11, buffer=4_608) as alone:
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
                elif deed == "part" and line not in gone:
                    received[line] += member.read()
                    member.transport.send_on()
                elif deed == "drain" and line not in gone:
                    received[line] += member.drain()
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
                waiting = bool(scheduler.outboxes or scheduler.batches)
                for member in alone:
                    received[member.outlet] += member.read()
                    if member.outlet not in gone:
                        member.transport.send_on()
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

    asyncio.run(run())
