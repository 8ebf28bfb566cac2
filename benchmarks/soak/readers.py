"""The readers of a long run: listeners that come and go, slow ones, and those that keep a set.

Each follows the same table through a policy and a filter, on one server after another. `ledger` and
`table` say whether it got what it had to. Measures only when frames came.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from benchmarks.soak.ledger import Account, Change, Ledger, Traits
from benchmarks.soak.table import Table
from tests.acceptance.support.server import Server

TABLE = {"event": "*", "schema": "public", "table": "zoo_note"}
TOPIC = "realtime:soak"
HEARTBEAT = json.dumps([None, "0", "phoenix", "heartbeat", {}])
# Seconds between heartbeats, whose answers say up to where a reader has everything.
BEAT_SECONDS = 2.0
AGAIN_SECONDS = 0.5
READING_SECONDS = 20.0
ANSWER_SECONDS = 30.0

# What readers count.
BEGUN, RESUMED = "visits of listeners that began anew", "visits that resumed"
CLOSED = "listeners closed while they did not read"
COMPARED, OF_SETS = "sets compared with the table", "changes of sets"

_decode = msgspec.json.decode


class Wrong(Exception):
    """A reader was refused, or got what it must not get; the text says what."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a reader is and asks for. `sees` says the same as its policies and its filter."""

    name: str
    key: str
    sees: Callable[[Traits], bool]
    token: str | None = None
    filter: str | None = None

    def join(self, **more: Any) -> str:
        binding = {**TABLE, **more, **({"filter": self.filter} if self.filter else {})}
        payload: dict[str, Any] = {"config": {"postgres_changes": [binding]}}
        if self.token:
            payload["access_token"] = self.token
        return json.dumps(["1", "1", TOPIC, "phx_join", payload])


@dataclass(frozen=True, slots=True)
class Habits:
    """How long a reader stays and is away, in seconds, from and to; how long it stops reading after
    it has read for READING_SECONDS; and how often, of all times that it comes back, it begins anew
    instead of resuming."""

    stays: tuple[float, float]
    away: tuple[float, float] = (0.0, 0.0)
    pauses: tuple[float, float] | None = None
    anew: float = 0.0


@dataclass
class Notes:
    """What all readers note, in sum."""

    counts: Counter[str] = field(default_factory=Counter)
    found: int = 0
    #: The first of the problems.
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        self.found += 1
        if len(self.problems) < 20:
            self.problems.append(text)


@contextlib.asynccontextmanager
async def connected(server: Server, look: Look) -> AsyncIterator[ClientConnection]:
    socket = await connect(
        server.address(query=f"apikey={look.key}&vsn=2.0.0"),
        max_size=None,
        compression=None,
        proxy=None,
        open_timeout=ANSWER_SECONDS,
        ping_interval=None,
    )
    try:
        yield socket
    finally:
        with contextlib.suppress(OSError):
            await socket.close()


def traits_of(row: Mapping[str, Any]) -> Traits:
    return Traits(row["owner_id"], row["is_public"], row["score"])


def change_of(data: Mapping[str, Any]) -> Change:
    """The change that the `data` of a frame says."""
    op = data["type"]
    row = data["old_record"] if op == "DELETE" else data["record"]
    return Change(op, row["id"], None if op == "DELETE" else row["title"])


class Listener:
    """A reader of changes that resumes where it was when it comes back."""

    def __init__(
        self, look: Look, habits: Habits, servers: Sequence[Server], first: int, notes: Notes
    ) -> None:
        self.look = look
        self.accounts = [Account(look.sees)]
        self.live = asyncio.Event()
        self._habits = habits
        self._servers = itertools.islice(itertools.cycle(servers), first, None)
        self._notes = notes
        self._chance = random.Random(f"{look.name} {first}")
        self._epoch = ""
        self._begun = False
        self._staying = False
        self._pause_at = 0.0

    @property
    def account(self) -> Account:
        """Of what it gets since it last began anew."""
        return self.accounts[-1]

    async def run(self) -> None:
        """Come and go until cancelled."""
        for server in self._servers:
            if self._begun and not self._staying and self._chance.random() < self._habits.anew:
                self._begun = False
                self.accounts.append(Account(self.look.sees))
            try:
                async with connected(server, self.look) as socket:
                    await self._visit(socket)
            except (OSError, TimeoutError, WebSocketException, Wrong) as error:
                self._notes.problem(f"{self.look.name}: {error!r}")
            self.live.clear()
            away = 0.0 if self._staying else self._chance.uniform(*self._habits.away)
            await asyncio.sleep(away + AGAIN_SECONDS * self._chance.random())

    def stay(self) -> None:
        """From now on it remains connected and reads at once, so that the end can be compared."""
        self._staying = True

    def came(self, data: Mapping[str, Any]) -> None:
        """A change came."""
        self.account.got(data["seq"], change_of(data))

    def has_all(self, seq: int) -> None:
        """Everything up to this seq came."""
        self.account.reached(seq)

    async def _visit(self, socket: ClientConnection) -> None:
        resumed = self._begun
        since = {"since": f"{self._epoch}:{self.account.position}"} if resumed else {}
        await socket.send(self.look.join(**since))
        until = time.monotonic() + self._chance.uniform(*self._habits.stays)
        self._pause_at = time.monotonic() + READING_SECONDS
        beating = asyncio.create_task(_beat(socket))
        try:
            while self._staying or time.monotonic() < until:
                await self._pause()
                async with asyncio.timeout(ANSWER_SECONDS):
                    message = await socket.recv()
                self._take(_decode(message))
            if self._chance.random() < 0.5:
                # As a page that is closed, without a close frame.
                socket.transport.abort()
        except ConnectionClosed as error:
            # Who does not read may be closed, by the bound of what waits for it or by pings.
            if self._habits.pauses:
                self._notes.counts[CLOSED] += 1
            else:
                self._notes.problem(f"{self.look.name} was closed: {error}")
        finally:
            beating.cancel()
        self._notes.counts[RESUMED if resumed else BEGUN] += 1

    async def _pause(self) -> None:
        pauses = self._habits.pauses
        if pauses and not self._staying and time.monotonic() > self._pause_at:
            await asyncio.sleep(self._chance.uniform(*pauses))
            self._pause_at = time.monotonic() + READING_SECONDS

    def _take(self, frame: list[Any]) -> None:
        _, ref, _, event, body = frame
        if event == "postgres_changes":
            self.came(body["data"])
        elif event == "phx_reply":
            if body["status"] != "ok":
                raise Wrong(f"{self.look.name} was refused: {body}")
            if ref == "1":
                self._joined(body["response"])
            elif "seq" in body["response"]:
                self.has_all(body["response"]["seq"])
        elif event == "system" and (body["status"] != "ok" or body["message"] == "resync required"):
            self._notes.problem(f"{self.look.name}: {body}")
            # What it misses by that is told once.
            self.accounts.append(Account(self.look.sees))
            self.account.begin(body.get("seq", self.account.position))

    def _joined(self, response: Mapping[str, Any]) -> None:
        if not self._begun:
            self._epoch, self._begun = response["epoch"], True
            self.account.begin(response["seq"])
        self.live.set()


class Timed(Listener):
    """A listener that notes when each change came. It stays all the time."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._arrived: list[tuple[int, int]] = []

    def came(self, data: Mapping[str, Any]) -> None:
        self._arrived.append((data["seq"], time.monotonic_ns()))
        super().came(data)

    def took(self, ledger: Ledger) -> list[float]:
        """Milliseconds from commit to socket of what came since the last call and is reported."""
        waiting, self._arrived = self._arrived, []
        found = []
        for seq, arrived in waiting:
            committed = ledger.committed(seq)
            if committed is None:
                self._arrived.append((seq, arrived))
            else:
                found.append((arrived - committed) / 1e6)
        return found


class Witness(Timed):
    """The timed listener that tells the ledger what it sees, which is everything."""

    def __init__(self, ledger: Ledger, table: Table, *given: Any) -> None:
        super().__init__(*given)
        self._ledger = ledger
        self._table = table

    def came(self, data: Mapping[str, Any]) -> None:
        super().came(data)
        change = change_of(data)
        traits = traits_of(data["old_record"] if change.title is None else data["record"])
        self._ledger.saw(data["seq"], change, traits)
        self._table.changed(data["seq"], change, traits)

    def has_all(self, seq: int) -> None:
        super().has_all(seq)
        self._ledger.reached(seq)


class Keeper:
    """A reader that keeps the set of rows that it may see: a snapshot, then live changes. When it
    leaves, its set must be what the table holds at that position."""

    def __init__(
        self,
        look: Look,
        habits: Habits,
        servers: Sequence[Server],
        first: int,
        notes: Notes,
        ledger: Ledger,
        table: Table,
    ) -> None:
        self._look = look
        self._habits = habits
        self._servers = itertools.islice(itertools.cycle(servers), first, None)
        self._notes = notes
        self._ledger = ledger
        self._table = table
        self._chance = random.Random(f"{look.name} {first}")
        self._rows: dict[int, str] = {}
        self._complete = False

    async def run(self) -> None:
        """Take one set after another until cancelled."""
        for server in self._servers:
            self._table.hold(self, self._ledger.horizon)
            least = self._ledger.horizon
            try:
                async with connected(server, self._look) as socket, _beating(socket):
                    position = await self._keep(socket, least)
                await self._compare(position)
            except (OSError, TimeoutError, WebSocketException, Wrong) as error:
                self._notes.problem(f"{self._look.name}: {error!r}")
            finally:
                self._table.release(self)
            await asyncio.sleep(self._chance.uniform(*self._habits.away))

    async def _keep(self, socket: ClientConnection, least: int) -> int:
        """Keep the set for a while. Returns the position that it then has, at `least` that one."""
        self._rows, self._complete = {}, False
        await socket.send(self._look.join(snapshot=True, live=True))
        until = time.monotonic() + self._chance.uniform(*self._habits.stays)
        while True:
            async with asyncio.timeout(ANSWER_SECONDS):
                _, _, _, event, body = _decode(await socket.recv())
            if event == "postgres_changes":
                self._change(body["data"])
            elif event == "system":
                self._heed(body)
            elif event == "phx_reply":
                if body["status"] != "ok":
                    raise Wrong(f"refused: {body}")
                seq = body["response"].get("seq", -1)
                if self._complete and seq >= least and time.monotonic() > until:
                    return int(seq)

    def _heed(self, body: Mapping[str, Any]) -> None:
        message = body["message"]
        if message == "snapshot begins":
            self._rows.clear()
        elif message == "snapshot complete":
            self._complete = True
        elif body["status"] != "ok" or message in ("resync required", "snapshot truncated"):
            raise Wrong(str(body))

    def _change(self, data: Mapping[str, Any]) -> None:
        op, key, title = change_of(data)
        if (op == "INSERT") == (key in self._rows):
            raise Wrong(f"{op} of {key}, seq {data['seq']}, does not fit the set")
        if title is None:
            del self._rows[key]
        else:
            self._rows[key] = title
        self._notes.counts[OF_SETS] += 1

    async def _compare(self, position: int) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while self._ledger.horizon < position:
                await asyncio.sleep(BEAT_SECONDS / 4)
        wanted = self._table.at(position, self._look.sees)
        if wanted != self._rows:
            differ = dict(sorted(wanted.items() ^ self._rows.items())[:5])
            raise Wrong(f"its set at {position} differs from the table: {differ}")
        self._notes.counts[COMPARED] += 1


@contextlib.asynccontextmanager
async def _beating(socket: ClientConnection) -> AsyncIterator[None]:
    task = asyncio.create_task(_beat(socket))
    try:
        yield
    finally:
        task.cancel()


async def _beat(socket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await socket.send(HEARTBEAT)
