"""A socket that sends bytes, right or wrong, and reads WebSocket frames.

A server that refuses what it is sent closes the connection while bytes are under way, which may
reset it. Streams of asyncio then forget what has come and was not read. Here sending and reading
are apart: what cannot be sent any more is dropped, and what came before the reset is read all the
same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tests.acceptance.support.raw_frames import request
from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server

TEXT, CLOSE = 1, 8


class FrameSocket:
    """One connection, whose handshake was answered with `head`. Closed by `async with`."""

    def __init__(self, opened: socket.socket) -> None:
        self.head = ""
        self._socket = opened
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue()
        self._sender = asyncio.create_task(self._send_all())

    @classmethod
    async def open(cls, server: Server, extensions: str = "") -> FrameSocket:
        """A socket of `server`, which offers these extensions."""
        asked = request(server, f"apikey={ANON_KEY}&vsn=2.0.0")
        if extensions:
            asked = asked[:-2] + f"Sec-WebSocket-Extensions: {extensions}\r\n\r\n".encode()
        opened = socket.socket()
        try:
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", server.port))
            one = cls(opened)
        except BaseException:
            opened.close()
            raise
        try:
            one.send(asked)
            one.head = (await one.read_until(b"\r\n\r\n")).decode()
        except BaseException:
            await one.close()
            raise
        return one

    async def __aenter__(self) -> FrameSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._sender.cancel()
        await asyncio.wait([self._sender])
        self._socket.close()

    # Sending

    def send(self, data: bytes) -> None:
        """To be sent behind what was given before. Never fails."""
        self._unsent.put_nowait(data)

    async def _send_all(self) -> None:
        lost = False
        while True:
            data = await self._unsent.get()
            try:
                if not lost:
                    await self._loop.sock_sendall(self._socket, data)
            except OSError:
                lost = True

    # Receiving

    async def read_until(self, end: bytes) -> bytes:
        """What comes up to and with `end`. Raises EOFError if the connection ends before it."""
        while (found := self._unread.find(end)) < 0:
            await self._read_some()
        return self._take(found + len(end))

    async def next_frame(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame. Raises EOFError if the connection ends."""
        opcode, size = await self._exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._exactly(8))
        return opcode & 15, await self._exactly(size)

    async def close_code(self) -> int:
        """The code that the server closes with; 1006 when the connection ends without one."""
        with contextlib.suppress(EOFError):
            while True:
                opcode, payload = await self.next_frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2])
        return 1006

    async def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._read_some()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    async def _read_some(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                data = await self._loop.sock_recv(self._socket, 65_536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError("the connection has ended")
        self._unread += data
