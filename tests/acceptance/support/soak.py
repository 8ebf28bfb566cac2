"""Many clients that come and go on several servers, while servers die: does presence converge?

Owns the clients and what they do. Each keeps the presence of its topic by merging states and diffs
as the official clients do, so what it holds in the end is what a page would show.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.acceptance.support.server import ANON_KEY, Server
from tests.support.waiting import auntil

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_ANSWER_SECONDS = 10.0
_BACK_SECONDS = 0.2


class Client:
    """One page: on one topic at a time, reconnecting when its server goes."""

    def __init__(self, name: str, topics: Sequence[str], servers: Sequence[Server]) -> None:
        self.name = name
        self.topic = random.choice(topics)
        self.meta: int | None = None
        self.seen: dict[str, dict[str, int]] = {}
        self._topics = topics
        self._servers = servers
        self._socket: ClientConnection | None = None
        self._refs = 0
        self._join_ref = ""
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._wants_meta: int | None = None
        self._has_state = False
        self.counts: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        return self._socket is not None and self._has_state

    @property
    def view(self) -> set[tuple[str, int]]:
        """Who is present as this page shows it: keys with their metas."""
        return {(key, n) for key, metas in self.seen.items() for n in metas.values()}

    async def live(self, until: Callable[[], bool]) -> None:
        """Stay connected to any server that runs, until `until()` is true."""
        while not until():
            server = random.choice(self._servers)
            try:
                async with connect(
                    server.address(query=f"apikey={ANON_KEY}&vsn=2.0.0"),
                    compression=None,
                    proxy=None,
                    max_size=None,
                ) as socket:
                    await self._serve(socket, until)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                self.counts["reconnects"] += 1
            finally:
                self._socket, self._has_state, self.seen = None, False, {}
                for answer in self._answers.values():
                    answer.cancel()
                self._answers.clear()
            await asyncio.sleep(_BACK_SECONDS * random.random())

    async def _serve(self, socket: ClientConnection, until: Callable[[], bool]) -> None:
        self._socket = socket
        reader = asyncio.create_task(self._read(socket))
        try:
            await self._join()
            if self._wants_meta is not None:
                await self._track(self._wants_meta)
            while not until() and not reader.done():
                await asyncio.wait({reader}, timeout=0.5)
                await self._heartbeat()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await reader

    # --- what it does ---------------------------------------------------------------------------

    async def act(self) -> None:
        """Something that a person would do."""
        deed = random.choice(("track", "track", "untrack", "move", "vanish", "say"))
        self.counts[deed] += 1
        try:
            if deed == "track":
                await self._track(random.randrange(1_000_000))
            elif deed == "untrack":
                self._wants_meta = None
                await self._push("presence", {"event": "untrack"})
            elif deed == "move":
                await self._push("phx_leave", {})
                self.topic, self._has_state, self.seen = random.choice(self._topics), False, {}
                await self._join()
                if self._wants_meta is not None:
                    await self._track(self._wants_meta)
            elif deed == "vanish" and self._socket is not None:
                self._socket.transport.abort()
            else:
                body = {"type": "broadcast", "event": "e", "payload": {"from": self.name}}
                await self._push("broadcast", body)
        except (OSError, ConnectionClosed, TimeoutError, asyncio.CancelledError, RuntimeError):
            self.counts["interrupted"] += 1

    async def _join(self) -> None:
        presence = {"key": self.name, "enabled": True}
        config = {"broadcast": {"ack": True}, "presence": presence}
        self._join_ref = str(self._refs + 1)
        await self._push("phx_join", {"config": config})

    async def _track(self, meta: int) -> None:
        self._wants_meta = meta
        await self._push("presence", {"event": "track", "payload": {"n": meta}})

    async def _heartbeat(self) -> None:
        if self._socket is not None:
            self._refs += 1
            await self._socket.send(
                _encode([None, str(self._refs), "phoenix", "heartbeat", {}]).decode()
            )

    async def _push(self, event: str, payload: Any) -> None:
        if self._socket is None:
            raise RuntimeError("not connected")
        self._refs += 1
        ref = str(self._refs)
        answer = self._answers[ref] = asyncio.get_running_loop().create_future()
        frame = [self._join_ref, ref, f"realtime:{self.topic}", event, payload]
        await self._socket.send(_encode(frame).decode())
        async with asyncio.timeout(_ANSWER_SECONDS):
            status = await answer
        if status != "ok":
            self.counts[f"{event} refused"] += 1

    # --- what it hears --------------------------------------------------------------------------

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            join_ref, ref, topic, event, payload = _decode(message)
            if event == "phx_reply" and ref in self._answers:
                answer = self._answers.pop(ref)
                if not answer.done():
                    answer.set_result(payload["status"])
            if topic != f"realtime:{self.topic}" or join_ref not in (None, self._join_ref):
                continue
            if event == "presence_state":
                self.seen = {}
                self._merge(payload)
                self._has_state = True
            elif event == "presence_diff" and self._has_state:
                self._merge(payload["joins"])
                for key, member in payload["leaves"].items():
                    for meta in member["metas"]:
                        self.seen.get(key, {}).pop(meta["phx_ref"], None)

    def _merge(self, joins: dict[str, Any]) -> None:
        for key, member in joins.items():
            for meta in member["metas"]:
                self.seen.setdefault(key, {})[meta["phx_ref"]] = meta["n"]

    @property
    def truth(self) -> int | None:
        """The meta it is present with in the end, None if it is not."""
        return self._wants_meta


class Soak:
    """A crowd of clients on these servers."""

    def __init__(self, servers: Sequence[Server], clients: int, topics: int) -> None:
        names = [f"topic-{number}" for number in range(topics)]
        self.clients = [Client(f"c{number}", names, servers) for number in range(clients)]
        self._over = False

    async def run(self, seconds: float, disturb: Callable[[], Any], every: float) -> None:
        """Let all clients act for `seconds`; call `disturb` in a thread at intervals of `every`."""
        self._lives = [asyncio.create_task(c.live(lambda: self._over)) for c in self.clients]
        ends = time.monotonic() + seconds
        disturbing = asyncio.create_task(self._disturb(ends, disturb, every))
        acting = [asyncio.create_task(self._act(client, ends)) for client in self.clients]
        await asyncio.gather(*acting, disturbing)

    async def _act(self, client: Client, ends: float) -> None:
        while time.monotonic() < ends:
            # Each client acts about once in three seconds, like people who are busy.
            await asyncio.sleep(random.uniform(0.5, 5.5))
            if client.connected:
                await client.act()

    async def _disturb(self, ends: float, disturb: Callable[[], Any], every: float) -> None:
        while time.monotonic() + every < ends:
            await asyncio.sleep(every)
            await asyncio.to_thread(disturb)

    def wrong(self) -> list[str]:
        """What any client shows that is not so; empty when all is well."""
        truth: dict[str, set[tuple[str, int]]] = {}
        for client in self.clients:
            if client.truth is not None:
                truth.setdefault(client.topic, set()).add((client.name, client.truth))
        found = []
        for client in self.clients:
            if not client.connected:
                found.append(f"{client.name} is not connected")
                continue
            wanted = truth.get(client.topic, set())
            if client.view != wanted:
                missing, extra = wanted - client.view, client.view - wanted
                found.append(f"{client.name} in {client.topic}: lacks {missing}, shows {extra}")
        return found

    async def settle(self, patience: float) -> float:
        """Seconds until every client shows the truth. Raises AssertionError after `patience`."""
        began = time.monotonic()
        try:
            await auntil(lambda: not self.wrong(), patience=patience, every=0.1)
        except AssertionError:
            if wrong := self.wrong():
                raise AssertionError(f"{len(wrong)} clients are wrong: {wrong[:5]}") from None
        return time.monotonic() - began

    async def end(self) -> None:
        self._over = True
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    @property
    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for client in self.clients:
            total += client.counts
        return total
