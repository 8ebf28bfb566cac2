"""A channel layer with faults, for tests of how a project copes with them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from channels.layers import InMemoryChannelLayer


class UnreliableLayer(InMemoryChannelLayer):
    """An in-memory layer that drops, doubles and delays messages to groups.

    In `CHANNEL_LAYERS`: {"BACKEND": "realtime.testing.UnreliableLayer", "CONFIG": {"drop": 0.2,
    "double": 0.2, "delay": 0.2, "delay_seconds": 0.05, "seed": 1}}. `drop`, `double` and `delay`
    are the parts of the messages that this happens to, each from 0 to 1; a delayed message comes
    after those that follow it. The same seed gives the same faults.
    """

    def __init__(
        self,
        drop: float = 0.0,
        double: float = 0.0,
        delay: float = 0.0,
        delay_seconds: float = 0.05,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, part in (("drop", drop), ("double", double), ("delay", delay)):
            if not 0.0 <= part <= 1.0:
                raise ValueError(f"{name} is a part of the messages, from 0 to 1, not {part!r}")
        self._drop, self._double, self._delay = drop, double, delay
        self._delay_seconds = delay_seconds
        self._random = random.Random(seed)
        self._late: set[asyncio.Task[None]] = set()

    @property
    def late(self) -> int:
        """How many messages are on their way."""
        return len(self._late)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send to a group, or not, or twice, or later."""
        # Three draws for every message, so that one fault does not shift the others.
        dropped, doubled, delayed = (self._random.random() for _ in range(3))
        if dropped < self._drop:
            return
        for _ in range(2 if doubled < self._double else 1):
            if delayed < self._delay:
                task = asyncio.create_task(self._send_late(group, message))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            else:
                await super().group_send(group, message)

    async def _send_late(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(self._delay_seconds)
        await super().group_send(group, message)
