"""Checks whether the channel layer works: this process sends itself messages.

The result is kept for two seconds, so that many health checks cost the layer two messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from realtime import conf
from realtime.bus.layers import layer_problem, own_layer, reaches_others
from realtime.bus.mailbox import Mailbox

State = Literal["ok", "down", "in-memory", "none"]

# The message is sent repeatedly: the layer may not have subscribed yet, or may use several hosts in
# rotation.
_AGAIN_SECONDS = 0.25
_KEEP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Layer:
    """The result of a probe. `ms` is the round trip; `error` is why there was none."""

    state: State
    ms: float | None = None
    error: str = ""


async def probe(timeout: float = 2.0) -> Layer:
    """Probe now. Never raises; takes little more than `timeout` seconds."""
    alias = conf.current().CHANNEL_LAYER
    problem = layer_problem(alias)
    if problem is not None:
        return Layer("down", error=problem)
    try:
        if not reaches_others(alias):
            return Layer("none" if own_layer(alias) is None else "in-memory")
    except Exception as error:
        return Layer("down", error=str(error) or type(error).__name__)
    heard = [asyncio.Event(), asyncio.Event()]

    def receive(message: dict[str, Any]) -> None:
        heard[message["number"]].set()

    box = Mailbox(alias, f"realtime.probe.{secrets.token_hex(8)}", receive)

    async def round_trip(number: int) -> float:
        while True:
            began = time.perf_counter()
            await box.send(box.name, {"type": "probe", "number": number})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await heard[number].wait()
                    return time.perf_counter() - began

    try:
        async with asyncio.timeout(timeout):
            await box.open()
            # The first may wait for the subscription, which pub/sub sees to ten times a second.
            await round_trip(0)
            seconds = await round_trip(1)
    except TimeoutError:
        return Layer("down", error="no answer in time")
    except Exception as error:
        return Layer("down", error=str(error) or type(error).__name__)
    finally:
        await box.close()
    return Layer("ok", round(seconds * 1000, 1))


class CachedProbe:
    """Keeps the last result, and since when the layer has been down."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[Layer]] = probe,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._found: Layer | None = None
        self._at = 0.0
        self._down_since: float | None = None

    async def look(self) -> Layer:
        """A result that is at most two seconds old."""
        if self._found is None or self._clock() - self._at > _KEEP_SECONDS:
            found = await self._probe()
            self._found, self._at = found, self._clock()
            if found.state != "down":
                self._down_since = None
            elif self._down_since is None:
                self._down_since = self._at
        return self._found

    @property
    def down_for(self) -> float:
        """Seconds since the layer was first found down; 0 when it is not."""
        return 0.0 if self._down_since is None else self._clock() - self._down_since
