"""A client that does not give up: when its socket ends it goes to the next server and resumes.

Keeps the frames that it got, in order of arrival, and why each socket ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server

TABLE = {"event": "*", "schema": "public", "table": "zoo_note"}
_AGAIN_SECONDS = 0.2
_TIRED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Heard:
    seq: int
    type: str
    title: str | None
    #: Seconds since 1970.
    at: float


class Follower:
    """Follows the notes. `start` returns when it is subscribed for the first time."""

    def __init__(
        self,
        name: str,
        servers: Sequence[Server],
        *,
        key: str = ANON_KEY,
        token: str | None = None,
        filter_: str | None = None,
        first: int = 0,
    ) -> None:
        self.name = name
        self.heard: list[Heard] = []
        self.systems: list[dict[str, Any]] = []
        self.closes: list[int | None] = []
        self.begun_at = -1
        self.sockets = 0
        self._servers = itertools.islice(itertools.cycle(servers), first, None)
        self._key, self._token, self._filter = key, token, filter_
        self._epoch = ""
        self._seq = -1
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())
        await self.until(lambda: self.begun_at >= 0)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def seqs(self) -> list[int]:
        return [heard.seq for heard in self.heard]

    @property
    def resyncs(self) -> int:
        return sum(system["message"] == "resync required" for system in self.systems)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that can become true with a frame, a close or a join."""
        try:
            async with asyncio.timeout(2 * PATIENCE), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            raise AssertionError(
                f"{self.name} waited in vain; heard {len(self.heard)}, the last {self.heard[-3:]}, "
                f"closes {self.closes}, sockets {self.sockets}"
            ) from None

    async def until_more(self, count: int) -> None:
        wanted = len(self.heard) + count
        await self.until(lambda: len(self.heard) >= wanted)

    def longest_silence(self, since: float, until: float) -> float:
        """The longest time without a change between two times."""
        times = [since, *(h.at for h in self.heard if since < h.at < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    # --- one socket after another ---------------------------------------------------------------

    async def _follow(self) -> None:
        for server in self._servers:
            code = None
            try:
                query = f"apikey={self._key}&vsn=2.0.0"
                socket = await connect(
                    server.address(query=query),
                    max_size=None,
                    max_queue=None,
                    compression=None,
                    proxy=None,
                    open_timeout=_TIRED_SECONDS,
                    ping_interval=None,
                )
            except (OSError, TimeoutError, WebSocketException):
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            self.sockets += 1
            async with contextlib.aclosing(_Closing(socket)):
                with contextlib.suppress(ConnectionClosed, _Refused):
                    await self._live(socket)
                code = socket.close_code
            async with self._news:
                self.closes.append(code)
                self._news.notify_all()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _live(self, socket: ClientConnection) -> None:
        binding: dict[str, Any] = dict(TABLE)
        if self._filter:
            binding["filter"] = self._filter
        if self._seq >= 0:
            binding["since"] = f"{self._epoch}:{self._seq}"
        payload: dict[str, Any] = {"config": {"postgres_changes": [binding]}}
        if self._token:
            payload["access_token"] = self._token
        await socket.send(json.dumps(["1", "1", "realtime:notes", "phx_join", payload]))
        async for message in socket:
            _, ref, _, event, body = json.loads(message)
            async with self._news:
                if event == "phx_reply" and ref == "1":
                    if body["status"] != "ok":
                        raise _Refused
                    self._joined(body["response"])
                elif event == "system":
                    self.systems.append(body)
                elif event == "postgres_changes":
                    self._take(body["data"])
                self._news.notify_all()

    def _joined(self, response: dict[str, Any]) -> None:
        self._epoch = response["epoch"]
        if self._seq < 0:
            self._seq = self.begun_at = response["seq"]

    def _take(self, data: dict[str, Any]) -> None:
        row = data.get("record") or {}
        self.heard.append(Heard(data["seq"], data["type"], row.get("title"), time.time()))
        self._seq = data["seq"]


class _Refused(Exception):
    """The join was refused; the server may know better in a moment."""


class _Closing:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def aclose(self) -> None:
        with contextlib.suppress(OSError):
            await self._socket.close()
