"""A page that client.js keeps subscribed: a Node process, and the lines that it prints."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.support.server import PATIENCE
from tests.support.at_hand import without
from tests.support.node import missing

TESTS = Path(__file__).resolve().parent.parent / "client_js"


Line = dict[str, Any]


def node() -> str:
    """The path of `node`. Without one the test is skipped, and in CI it fails."""
    if reason := missing():
        without(f"client.js is NOT tested: {reason}")
    found = shutil.which("node")
    assert found is not None
    return found


class Page:
    """A page that client.js keeps subscribed. `lines` are what its callbacks got, in order."""

    def __init__(self, process: Process) -> None:
        self.lines: list[Line] = []
        self._process = process
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            async with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()

    async def until(self, wanted: Callable[[Line], bool], start: int = 0) -> Line:
        """The first line from number `start` on that is wanted."""

        def found() -> Line | None:
            return next((line for line in self.lines[start:] if wanted(line)), None)

        try:
            async with asyncio.timeout(PATIENCE), self._news:
                while (line := found()) is None:
                    await self._news.wait()
                return line
        except TimeoutError:
            raise AssertionError(f"it never came; last: {self.lines[-8:]}") from None

    async def until_status(self, status: str, start: int = 0) -> Line:
        return await self.until(lambda line: line.get("status") == status, start)

    async def until_title(self, title: str) -> Line:
        return await self.until(lambda line: "change" in line and line["row"].get("title") == title)

    @property
    def changes(self) -> list[Line]:
        return [line for line in self.lines if "change" in line]

    @property
    def titles(self) -> list[str]:
        return [line["row"]["title"] for line in self.changes]

    @property
    def statuses(self) -> list[str]:
        return [line["status"] for line in self.lines if "status" in line]

    async def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._reader
        await self._process.wait()
