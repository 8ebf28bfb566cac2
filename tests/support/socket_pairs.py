"""Outboxes over pairs of real sockets, with what has come at the other ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import SharedFrame, websocket_frame
from realtime.delivery.outbox import Outgoing
from realtime.delivery.recipients import Recipients

# A control frame that the server sends when it likes.
PING = b"\x89\x03..."


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

    def send_on(self) -> bool:
        """Send on what is held, as far as the other end has room. Whether it was all."""
        self.slow = False
        if self.held:
            with suppress(BlockingIOError):
                self.held = self.held[self._end.send(self.held) :]
            assert self.line is not None
            if not self.held:
                self.line.resume_writing()
                return True
        return not self.held


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

    def drain(self) -> bytes:
        """All that has come and all that the transport held. Its buffer was empty once at least."""
        found = self.read()
        while not self.transport.send_on():
            found += self.read()
        return found + self.read()


class Queue:
    """An outlet that cannot be written to with others."""

    direct = None

    def __init__(self) -> None:
        self.frames: list[str] = []

    def put(self, frame: Outgoing) -> None:
        assert isinstance(frame, SharedFrame)
        self.frames.append(str(frame.message))


@contextmanager
def sockets(
    count: int, compressed: int = 0, alone: int = 0, buffer: int = 0
) -> Iterator[list[Member]]:
    """So many, of which every so-manieth takes what is compressed, and every so-manieth has no
    descriptor that others may write to. The kernel keeps about `buffer` bytes for each."""
    members = []
    for place in range(count):
        server, client = socket.socketpair()
        server.setblocking(False)
        client.setblocking(False)
        if buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
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
