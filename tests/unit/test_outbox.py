"""The outbox: order, bound, and an end."""

from __future__ import annotations

import asyncio

import pytest

from realtime.outbox import Outbox


class Socket:
    """Takes frames while it is open; holds the writer up while it is not."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.open = asyncio.Event()
        self.taken = asyncio.Event()

    async def send(self, frame: str | bytes) -> None:
        self.taken.set()
        await self.open.wait()
        self.sent.append(frame)


async def test_frames_leave_in_order_and_closing_sends_what_waits() -> None:
    socket = Socket()
    socket.open.set()
    outbox = Outbox(socket.send, 1_000)
    for frame in ("a", b"b", "c"):
        outbox.put(frame)
    outbox.close()
    outbox.put("too late")
    await outbox.run()
    assert socket.sent == ["a", b"b", "c"]
    assert outbox.size == 0


async def test_more_than_the_bound_gives_the_socket_up_and_frees_the_memory() -> None:
    socket = Socket()
    outbox = Outbox(socket.send, 10)
    writer = asyncio.create_task(outbox.run())
    outbox.put("12345678")
    await socket.taken.wait()
    assert not outbox.overflowed.is_set()
    outbox.put("9abc")
    assert outbox.overflowed.is_set()
    assert outbox.size == 0
    writer.cancel()


async def test_a_burst_before_the_writer_had_its_turn_is_nobodys_slowness() -> None:
    socket = Socket()
    socket.open.set()
    outbox = Outbox(socket.send, 3)
    frames = [f"frame {n}" for n in range(20)]
    for frame in frames:
        outbox.put(frame)
    outbox.close()
    await outbox.run()
    assert socket.sent == frames


async def test_a_server_that_takes_everything_is_asked_how_much_it_still_holds() -> None:
    socket, held = Socket(), [0]
    socket.open.set()
    outbox = Outbox(socket.send, 10, lambda: held[0])
    writer = asyncio.create_task(outbox.run())
    outbox.put("a")
    await socket.taken.wait()
    assert not outbox.overflowed.is_set()
    held[0] = 11
    outbox.put("b")
    await writer
    assert outbox.overflowed.is_set()
    assert socket.sent == ["a", "b"]


async def test_who_can_wait_waits_until_half_is_free() -> None:
    socket = Socket()
    outbox = Outbox(socket.send, 10)
    writer = asyncio.create_task(outbox.run())
    outbox.put("1234")
    outbox.put("5678")
    waiting = asyncio.create_task(outbox.writable())
    await socket.taken.wait()
    assert not waiting.done()
    socket.open.set()
    await waiting
    outbox.close()
    await writer
    assert socket.sent == ["1234", "5678"]


async def test_what_sending_raises_ends_the_writer() -> None:
    async def broken(frame: str | bytes) -> None:
        raise OSError("gone")

    outbox = Outbox(broken, None)
    outbox.put("x")
    with pytest.raises(OSError, match="gone"):
        await outbox.run()
