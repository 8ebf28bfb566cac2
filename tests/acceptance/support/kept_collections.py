"""Two collections of the same rows in a Node process: one of client.js, one of rows.js."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.acceptance.support.node_client import FOLDER
from tests.acceptance.support.server import ANON_KEY, PATIENCE, Server

Row = dict[str, Any]
Batch = dict[str, Any]


class Kept:
    """What the two tell after each batch, in order, and what answers commands."""

    def __init__(self, process: Process) -> None:
        self.batches: list[Batch] = []
        self.answers: list[dict[str, Any]] = []
        self._process = process
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            async with self._news:
                told = json.loads(line)
                (self.batches if "by" in told else self.answers).append(told)
                self._news.notify_all()

    def of(self, by: str) -> list[Batch]:
        return [batch for batch in self.batches if batch.get("by") == by]

    def say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n".encode())

    async def until(self, wanted: Callable[[], object]) -> None:
        """Waits until something is so."""
        try:
            async with asyncio.timeout(PATIENCE), self._news:
                while not wanted():
                    await self._news.wait()
        except TimeoutError:
            latest = {by: (self.of(by) or [None])[-1] for by in ("client", "supabase")}
            raise AssertionError(f"it never came; latest: {json.dumps(latest)}") from None

    async def until_both_have(self, rows: list[Row]) -> None:
        """Waits until both are live with exactly these rows, of which the columns given count."""
        await self.until(
            lambda: all(self._has(by, rows) for by in ("client", "supabase")),
        )

    def _has(self, by: str, rows: list[Row]) -> bool:
        batches = self.of(by)
        if not batches or batches[-1]["status"] != "live":
            return False
        kept = batches[-1]["rows"]
        return len(kept) == len(rows) and all(
            row.items() <= cells.items() for row, cells in zip(rows, kept, strict=True)
        )

    async def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._reader
        await self._process.wait()


@contextlib.asynccontextmanager
async def kept_collections(
    server: Server, token: str | None, table: str, **options: Any
) -> AsyncIterator[Kept]:
    told = {
        "url": server.origin,
        "path": "/realtime",
        "key": ANON_KEY,
        "token": token,
        "table": table,
        "collection": options,
    }
    process = await asyncio.create_subprocess_exec(
        *("node", "collections.mjs", json.dumps(told)),
        cwd=FOLDER,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=2**24,
    )
    kept = Kept(process)
    try:
        yield kept
    finally:
        await kept.close()
