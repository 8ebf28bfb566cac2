"""A dispatcher with channels that only count, fed from a database batch by batch, as from the bus.

Replaces the parts around the dispatcher; measures only how long delivery took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from django.core.management import call_command

from realtime.wal.head import read_head

if TYPE_CHECKING:
    from realtime.dispatcher.dispatcher import Dispatcher


class FakeChannel:
    """A channel that counts its frames and their bytes."""

    def __init__(self, number: int) -> None:
        from realtime.protocol.change_frame import ChangeFrame
        from realtime.protocol.serializer import Version

        self.id = str(number)
        self.topic = f"realtime:{number}"
        self.version = Version.V2
        self.change_frame = ChangeFrame.BINDINGS
        self.frames = self.bytes = 0
        # It takes its frames itself, each by itself.
        self.outlet, self.direct = self, None
        # A connection of its own.
        self.connection = self

    def put(self, frame: Sized) -> None:
        self.frames += 1
        self.bytes += len(frame)

    def takes_more(self) -> bool:
        return True

    async def writable(self) -> None:
        return

    def resubscribed(self) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a channel of the benchmark was told {name}")


class Feed:
    """A dispatcher that gets committed changes batch by batch, as from the bus. A channel on
    another table notices when a batch is done."""

    def __init__(self) -> None:
        from realtime.dispatcher.dispatcher import Dispatcher

        self.dispatcher = Dispatcher("default", 10_000)
        self.last = FakeChannel(-1)

    async def start(self) -> None:
        from auth_rls import Subject
        from realtime.protocol.join import parse_join
        from realtime.subscriptions.request import Request
        from realtime.util.database_threads import in_database_thread

        await in_database_thread(call_command, "tail_wal", once=True, verbosity=0)
        await self.dispatcher.start()
        table = {"event": "*", "schema": "public", "table": "demo_team"}
        bindings = parse_join({"config": {"postgres_changes": [table]}}).bindings
        asked = Request(Subject.service(), bindings)
        await self.dispatcher.subscriptions.add(self.last, asked)  # type: ignore[arg-type]

    async def hand_out(self) -> float:
        """Number the committed changes and deliver them. Returns the seconds of the delivery."""
        from django.db import connections

        from realtime.event_log import sequencer
        from realtime.event_log.batch import Batch
        from realtime.event_log.table import read_rows, relations
        from realtime.util.database_threads import in_database_thread

        here = self.dispatcher.position
        done = self.last.frames
        await sql(
            "UPDATE demo_team SET name = name || '.' WHERE id = (SELECT MIN(id) FROM demo_team)"
        )

        def read() -> Any:
            while sequencer.number(connections["default"], 1_000):
                pass
            head = read_head(connections["default"])
            rows = read_rows("default", here.seq, head.seq)
            return [relations[id_] for id_ in {row.relation_id for row in rows}], rows

        shapes, rows = await in_database_thread(read)
        began = time.perf_counter()
        self.dispatcher.receive(Batch(here.epoch, here.seq, rows, shapes))
        while self.last.frames == done:
            await asyncio.sleep(0)
        return time.perf_counter() - began

    async def stop(self) -> None:
        await self.dispatcher.stop()


async def sql(statement: str, *parameters: Any) -> None:
    from django.db import connection

    from realtime.util.database_threads import in_database_thread

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    await in_database_thread(run)


async def joined(
    dispatcher: Dispatcher,
    subjects: list[Any],
    filters: Callable[[int], str],
    table: str = "demo_message",
    channels: list[FakeChannel] | None = None,
) -> list[FakeChannel]:
    """A channel for each subject that listens to one table, by the filter of its number. They are
    made here if none are given."""
    from realtime.protocol.join import parse_join
    from realtime.subscriptions.request import Request

    if channels is None:
        channels = [FakeChannel(number) for number in range(len(subjects))]

    async def join(channel: FakeChannel, subject: Any) -> None:
        binding = {"event": "*", "schema": "public", "table": table}
        binding["filter"] = filters(int(channel.id))
        bindings = parse_join({"config": {"postgres_changes": [binding]}}).bindings
        asked = Request(subject, bindings)
        answer: Any = await dispatcher.subscriptions.add(channel, asked)  # type: ignore[arg-type]
        assert answer.problems == (None,), answer

    for start in range(0, len(channels), 500):
        some = slice(start, start + 500)
        await asyncio.gather(*map(join, channels[some], subjects[some]))
    return channels
