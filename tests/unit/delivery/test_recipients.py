"""Recipients: each member gets all that is sent while it is one, once and in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from realtime.delivery.frame import SharedFrame
from tests.support.socket_pairs import Member, Queue, everybody, frames, sockets, turns


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


@pytest.mark.parametrize("places", [{7}, {0, 7, 39}], ids=["one", "several"])
@pytest.mark.parametrize("count", [40, 8], ids=["a group", "each by itself"])
async def test_some_may_get_another_frame_in_the_same_place(places: set[int], count: int) -> None:
    with sockets(count) as members:
        places = {place for place in places if place < count}
        recipients = everybody(members)
        recipients.send(SharedFrame("a"))
        own = [members[place] for place in places]
        recipients.send_apart(SharedFrame("b"), own, SharedFrame("mine"))
        recipients.send(SharedFrame("c"))
        await turns()
        for place, member in enumerate(members):
            second = "mine" if place in places else "b"
            assert member.received() == frames("a", second, "c")


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
