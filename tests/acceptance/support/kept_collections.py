"""Two collections of the same rows in a Node process: one of client.js, one of rows.js."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.acceptance.support.line_program import Line, LineProgram
from tests.acceptance.support.node_client import FOLDER
from tests.acceptance.support.server import ANON_KEY, Server

Row = dict[str, Any]
Batch = dict[str, Any]


class Kept(LineProgram):
    """What the two tell after each batch, in order, and what answers commands."""

    @property
    def batches(self) -> list[Batch]:
        return [line for line in self.lines if "by" in line]

    @property
    def answers(self) -> list[Line]:
        return [line for line in self.lines if "by" not in line]

    def of(self, by: str) -> list[Batch]:
        return [line for line in self.lines if line.get("by") == by]

    async def until_both_have(self, rows: list[Row]) -> None:
        """Waits until both are live with exactly these rows, of which the columns given count."""
        await self.first(lambda: all(self._has(by, rows) for by in ("client", "supabase")))

    def _has(self, by: str, rows: list[Row]) -> bool:
        batches = self.of(by)
        if not batches or batches[-1]["status"] != "live":
            return False
        kept = batches[-1]["rows"]
        return len(kept) == len(rows) and all(
            row.items() <= cells.items() for row, cells in zip(rows, kept, strict=True)
        )


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
    kept = await Kept.start("node", "collections.mjs", json.dumps(told), cwd=FOLDER)
    try:
        yield kept
    finally:
        await kept.close()
