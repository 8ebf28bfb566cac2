"""A program that prints a JSON object on each line, and ends when its standard input does."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.acceptance.support.server import PATIENCE

Line = dict[str, Any]
T = TypeVar("T")


class LineProgram:
    """A running program. `lines` are what it printed, in order."""

    def __init__(self, process: Process) -> None:
        self.lines: list[Line] = []
        self._process = process
        self._ended = False
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, *command: str | Path, cwd: Path | None = None, stderr: int | None = DEVNULL
    ) -> Self:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, stdin=PIPE, stdout=PIPE, stderr=stderr, limit=2**24
        )
        return cls(process)

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())

    async def first(self, found: Callable[[], T | None], patience: float = PATIENCE) -> T:
        """What `found` gives, once that is true. It is asked again after each line. Raises
        AssertionError after so many seconds, and when the program ends before."""
        try:
            async with asyncio.timeout(patience), self._news:
                while not (value := found()):
                    assert not self._ended, f"it ended; last: {self.lines[-8:]}"
                    await self._news.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"it never came; last: {self.lines[-8:]}") from None

    async def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._reader
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            async with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()
