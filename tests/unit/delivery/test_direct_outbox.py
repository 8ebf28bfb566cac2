"""The fast way to a socket, on a transport that does as it is told."""

from __future__ import annotations

import asyncio
from typing import Any

from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import SharedFrame, websocket_frame


class Transport(asyncio.Transport):
    """Takes everything while it is open; holds it, and says so, while it is not."""

    def __init__(self) -> None:
        super().__init__({})
        self.writes: list[bytes] = []
        self.held = b""
        self.open = True
        self.line: DirectOutbox | None = None

    def write(self, data: Any) -> None:
        if self.open:
            self.writes.append(bytes(data))
            return
        self.held += bytes(data)
        assert self.line is not None
        self.line.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def drain(self) -> None:
        """The client reads again."""
        self.open = True
        if self.held:
            self.writes.append(self.held)
            self.held = b""
            assert self.line is not None
            self.line.resume_writing()

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)


def make(bound: int | None = 1_000) -> tuple[DirectOutbox, Transport, list[Exception | None]]:
    transport, ended = Transport(), list[Exception | None]()
    line = transport.line = DirectOutbox(transport, bound, ended.append)
    return line, transport, ended


def frames(*messages: str | bytes) -> bytes:
    return b"".join(map(websocket_frame, messages))


async def next_iteration() -> None:
    """Lets the event loop run what is ready."""
    await asyncio.sleep(0)


async def test_what_is_put_in_one_iteration_leaves_in_one_write_in_order() -> None:
    line, transport, _ = make()
    for message in (SharedFrame("a"), "b", SharedFrame(b"c")):
        line.put(message)
    assert transport.writes == []
    await next_iteration()
    assert transport.writes == [frames("a", "b", b"c")]
    line.put(SharedFrame("d"))
    await next_iteration()
    assert transport.writes[1:] == [frames("d")]


async def test_all_sockets_are_written_the_same_bytes() -> None:
    shared = SharedFrame("for everybody")
    made = [make() for _ in range(300)]
    for line, _, _ in made:
        line.put(shared)
    for _ in range(10):
        await next_iteration()
    assert all(transport.writes == [shared.made] for _, transport, _ in made)


async def test_what_a_slow_client_does_not_take_waits_and_keeps_its_order() -> None:
    line, transport, ended = make()
    transport.open = False
    line.put("a")
    await next_iteration()
    assert transport.held == frames("a")
    for message in ("b", "c"):
        line.put(message)
        await next_iteration()
    # What the transport has it keeps; it gets no more before that is gone.
    assert transport.held == frames("a")
    assert line.size == len(frames("a", "b", "c"))
    transport.drain()
    line.put("d")
    await next_iteration()
    assert transport.sent == frames("a", "b", "c", "d")
    assert line.size == 0 and ended == []


async def test_more_than_the_bound_of_what_waits_gives_the_socket_up() -> None:
    line, transport, ended = make(bound=30)
    transport.open = False
    line.put("a")
    await next_iteration()
    line.put("b" * 20)
    assert not line.overflowed
    line.put("c" * 20)
    assert line.overflowed
    assert ended == [None]
    transport.drain()
    line.put("d")
    await next_iteration()
    assert transport.sent == frames("a")


async def test_a_burst_that_was_not_even_written_yet_is_nobodys_slowness() -> None:
    line, transport, ended = make(bound=30)
    messages = [str(n) * 20 for n in range(10)]
    for message in messages:
        line.put(message)
    await next_iteration()
    assert transport.sent == frames(*messages)
    assert not line.overflowed and ended == []


async def test_a_large_burst_is_cut_into_several_writes_and_stops_where_the_client_does() -> None:
    line, transport, _ = make(bound=None)
    messages = [str(n % 10) * 100_000 for n in range(9)]
    transport.open = False
    for message in messages:
        line.put(SharedFrame(message))
    await next_iteration()
    assert transport.held == frames(*messages[:3])
    transport.drain()
    assert transport.sent == frames(*messages)
    assert len(transport.writes) == 3


async def test_closing_sends_what_waits_and_then_tells() -> None:
    line, transport, ended = make()
    line.put("a")
    line.close()
    line.put("too late")
    assert transport.sent == frames("a")
    assert ended == [None]


async def test_closing_a_slow_one_tells_when_the_client_has_it_all() -> None:
    line, transport, ended = make()
    transport.open = False
    line.put("a")
    await next_iteration()
    line.put("b")
    line.close()
    assert ended == []
    transport.drain()
    assert transport.sent == frames("a", "b")
    assert ended == [None]


async def test_finishing_leaves_all_to_the_transport_however_slow() -> None:
    line, transport, ended = make()
    transport.open = False
    line.put("a")
    await next_iteration()
    line.put("b")
    line.finish()
    line.put("too late")
    transport.drain()
    await next_iteration()
    assert transport.sent == frames("a", "b")
    assert ended == []


async def test_nothing_is_written_once_the_connection_is_gone() -> None:
    line, transport, ended = make()
    line.put("a")
    line.drop()
    line.put("b")
    await next_iteration()
    assert transport.writes == [] and ended == []


async def test_who_can_wait_waits_until_half_is_free() -> None:
    line, transport, _ = make(bound=20)
    transport.open = False
    line.put("x" * 15)
    waiting = asyncio.create_task(line.writable())
    await next_iteration()
    assert not waiting.done()
    transport.drain()
    await waiting


async def test_nobody_waits_for_a_socket_that_is_gone() -> None:
    line, transport, _ = make(bound=20)
    transport.open = False
    line.put("x" * 15)
    waiting = asyncio.create_task(line.writable())
    await next_iteration()
    line.drop()
    await waiting


async def test_more_is_taken_until_half_the_bound_waits() -> None:
    line, transport, _ = make(bound=20)
    transport.open = False
    assert line.takes_more()
    line.put("x" * 5)
    await next_iteration()
    assert line.takes_more()
    line.put("x" * 5)
    assert not line.takes_more()
    transport.drain()
    assert line.takes_more()


async def test_what_was_put_in_the_same_iteration_counts_as_what_waits() -> None:
    line, transport, _ = make(bound=20)
    transport.open = False
    for _ in range(4):
        line.put(SharedFrame("x" * 5))
    assert not line.takes_more()


async def test_a_socket_that_is_gone_does_not_keep_anybody_from_going_on() -> None:
    line, transport, _ = make(bound=20)
    transport.open = False
    line.put("x" * 15)
    await next_iteration()
    assert not line.takes_more()
    line.drop()
    assert line.takes_more()
