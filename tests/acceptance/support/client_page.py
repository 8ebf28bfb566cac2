"""A page that client.js keeps subscribed: a Node process, and the lines that it prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.acceptance.support.line_program import Line, LineProgram
from tests.support.at_hand import without
from tests.support.node import missing

TESTS = Path(__file__).resolve().parent.parent / "client_js"


def node() -> str:
    """The path of `node`. Without one the test is skipped, and in CI it fails."""
    if reason := missing():
        without(f"client.js is NOT tested: {reason}")
    found = shutil.which("node")
    assert found is not None
    return found


class Page(LineProgram):
    """A page that client.js keeps subscribed. `lines` are what its callbacks got, in order."""

    @classmethod
    async def opened(cls, script: str, told: dict[str, Any]) -> Self:
        """The page that this script of `client_js` makes of what it is told."""
        # Node 20 has a WebSocket of its own behind this flag; later ones have it anyway.
        flag = "--experimental-websocket"
        return await cls.start(node(), flag, TESTS / script, json.dumps(told))

    async def until(self, wanted: Callable[[Line], bool], start: int = 0) -> Line:
        """The first line from number `start` on that is wanted."""
        return await self.first(
            lambda: next((line for line in self.lines[start:] if wanted(line)), None)
        )

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
