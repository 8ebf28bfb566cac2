"""The outbox: order, bound, and an end, whether frames are sent at once or by a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime.delivery.asgi_outbox import AsgiOutbox
from realtime.delivery.frame import SharedFrame, websocket_frame
from realtime.delivery.server_adapter import ServerAdapter


class Socket:
    """Takes frames while it is open; holds the sender up while it is not."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.open = asyncio.Event()
        self.taken = asyncio.Event()
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.ended: list[Exception | None] = []
        self.end = asyncio.Event()

    async def send(self, frame: str | bytes) -> None:
        self.taken.set()
        self.tasks.add(asyncio.current_task())
        await self.open.wait()
        # A server may wait more than once.
        await asyncio.sleep(0)
        self.sent.append(frame)

    def when_ended(self, error: Exception | None) -> None:
        self.ended.append(error)
        self.end.set()


class Eager(Socket):
    """Waits for nothing while it is open."""

    async def send(self, frame: str | bytes) -> None:
        self.taken.set()
        self.tasks.add(asyncio.current_task())
        if not self.open.is_set():
            await self.open.wait()
        self.sent.append(frame)


eagerness = pytest.mark.parametrize("eager", [False, True])


@eagerness
async def test_frames_leave_in_order_and_closing_sends_what_waits(eager: bool) -> None:
    socket = Socket()
    socket.open.set()
    outbox = AsgiOutbox(socket.send, 1_000, socket.when_ended, ServerAdapter(eager))
    for frame in ("a", b"b", SharedFrame("c")):
        outbox.put(frame)
    outbox.close()
    outbox.put("too late")
    await socket.end.wait()
    assert socket.sent == ["a", b"b", "c"]
    assert socket.ended == [None]
    assert outbox.size == 0


@eagerness
async def test_more_than_the_bound_gives_the_socket_up_and_frees_the_memory(eager: bool) -> None:
    socket = Socket()
    outbox = AsgiOutbox(socket.send, 10, socket.when_ended, ServerAdapter(eager))
    outbox.put("12345678")
    await socket.taken.wait()
    assert not outbox.overflowed
    outbox.put("9abc")
    assert outbox.overflowed
    assert socket.ended == [None]
    assert outbox.size == 0
    await outbox.stop()
    assert socket.sent == []


async def test_a_burst_before_the_writer_had_its_turn_is_nobodys_slowness() -> None:
    socket = Socket()
    socket.open.set()
    outbox = AsgiOutbox(socket.send, 3, socket.when_ended)
    frames = [f"frame {n}" for n in range(20)]
    for frame in frames:
        outbox.put(frame)
    outbox.close()
    await socket.end.wait()
    assert socket.sent == frames


async def test_who_takes_at_once_is_sent_to_at_once_and_costs_no_task() -> None:
    socket = Eager()
    socket.open.set()
    outbox = AsgiOutbox(socket.send, 3, socket.when_ended, ServerAdapter(True))
    for frame in ("a", "b"):
        outbox.put(frame)
        assert socket.sent[-1] == frame
    assert socket.tasks == {asyncio.current_task()}
    outbox.close()
    assert socket.ended == [None]


async def test_a_send_that_has_to_wait_after_all_goes_on_in_a_task_and_keeps_the_order() -> None:
    socket = Eager()
    outbox = AsgiOutbox(socket.send, 1_000, socket.when_ended, ServerAdapter(True))
    for frame in ("a", "b", "c"):
        outbox.put(frame)
    assert socket.sent == []
    socket.open.set()
    outbox.close()
    await socket.end.wait()
    assert socket.sent == ["a", "b", "c"]


async def test_a_stopped_outbox_sends_nothing_more() -> None:
    socket = Eager()
    outbox = AsgiOutbox(socket.send, 1_000, socket.when_ended, ServerAdapter(True))
    outbox.put("a")
    outbox.put("b")
    await outbox.stop()
    socket.open.set()
    outbox.put("c")
    await asyncio.sleep(0)
    assert socket.sent == [] and socket.ended == []


@eagerness
async def test_a_server_that_takes_everything_is_asked_how_much_it_still_holds(
    eager: bool,
) -> None:
    socket, held = Socket(), [0]
    socket.open.set()
    outbox = AsgiOutbox(socket.send, 10, socket.when_ended, ServerAdapter(eager, lambda: held[0]))
    outbox.put("a")
    while not socket.sent:
        await asyncio.sleep(0)
    assert not outbox.overflowed
    held[0] = 11
    outbox.put("b")
    await socket.end.wait()
    assert outbox.overflowed
    assert socket.sent == ["a", "b"]


@eagerness
async def test_who_can_wait_waits_until_half_is_free(eager: bool) -> None:
    socket = Socket()
    outbox = AsgiOutbox(socket.send, 10, socket.when_ended, ServerAdapter(eager))
    outbox.put("1234")
    outbox.put("5678")
    waiting = asyncio.create_task(outbox.writable())
    await socket.taken.wait()
    assert not waiting.done()
    assert not outbox.takes_more()
    socket.open.set()
    await waiting
    assert outbox.takes_more()
    outbox.close()
    await socket.end.wait()
    assert socket.sent == ["1234", "5678"]


@eagerness
async def test_what_sending_raises_ends_the_outbox_and_not_who_puts(eager: bool) -> None:
    async def broken(frame: str | bytes) -> None:
        raise OSError("gone")

    socket = Socket()
    outbox = AsgiOutbox(broken, None, socket.when_ended, ServerAdapter(eager))
    outbox.put("x")
    await socket.end.wait()
    outbox.put("y")
    assert [str(error) for error in socket.ended] == ["gone"]


@eagerness
async def test_what_a_late_send_raises_ends_the_outbox_too(eager: bool) -> None:
    socket = Socket()

    async def late(frame: str | bytes) -> None:
        await socket.send(frame)
        raise OSError("gone meanwhile")

    outbox = AsgiOutbox(late, None, socket.when_ended, ServerAdapter(eager))
    outbox.put("x")
    await socket.taken.wait()
    assert socket.ended == []
    socket.open.set()
    await socket.end.wait()
    assert [str(error) for error in socket.ended] == ["gone meanwhile"]


async def test_frames_that_a_carrier_writes_are_not_sent_besides() -> None:
    socket = Socket()
    written: list[bytes] = []
    outbox = AsgiOutbox(
        socket.send, 1_000, socket.when_ended, ServerAdapter(True, write=taking(written))
    )
    outbox.put("text")
    outbox.put(b"bytes")
    outbox.put(SharedFrame("shared"))
    frames = [websocket_frame(message) for message in ("text", b"bytes", "shared")]
    assert written == frames
    assert not socket.taken.is_set()
    outbox.close()
    outbox.put("too late")
    assert socket.ended == [None]
    assert written == frames


def taking(written: list[bytes]) -> Callable[[bytes], bool]:
    def write(frame: bytes) -> bool:
        written.append(frame)
        return True

    return write


async def test_what_a_carrier_does_not_write_is_sent() -> None:
    socket = Eager()
    socket.open.set()
    outbox = AsgiOutbox(
        socket.send, 1_000, socket.when_ended, ServerAdapter(True, write=lambda frame: False)
    )
    outbox.put("one")
    outbox.put(SharedFrame("two"))
    assert socket.sent == ["one", "two"]
    await outbox.stop()


async def test_what_a_carrier_wrote_counts_while_it_waits_behind_it() -> None:
    socket = Socket()
    written: list[bytes] = []
    adapter = ServerAdapter(True, lambda: sum(map(len, written)), taking(written))
    outbox = AsgiOutbox(socket.send, 10, socket.when_ended, adapter)
    outbox.put("12345")
    assert not outbox.overflowed
    outbox.put("12345")
    assert outbox.overflowed
    assert socket.ended == [None]
    outbox.put("12345")
    assert len(written) == 2


async def test_a_carrier_that_fails_ends_its_own_outbox_and_raises_nothing() -> None:
    socket = Socket()

    def broken(frame: bytes) -> bool:
        raise RuntimeError("broken")

    outbox = AsgiOutbox(socket.send, None, socket.when_ended, ServerAdapter(True, write=broken))
    outbox.put("one")
    outbox.put("two")
    (error,) = socket.ended
    assert isinstance(error, RuntimeError)
