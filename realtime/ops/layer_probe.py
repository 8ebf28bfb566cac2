"""Whether the channel layer works: something is sent to ourselves, and heard.

The answer is kept for a moment, so that many questions cost the layer one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

from realtime import conf
from realtime.bus.layers import own_layer, reaches_others
from realtime.bus.mailbox import Mailbox

State = Literal["ok", "down", "in-memory", "none"]

# Sent again and again: a layer may not have subscribed us yet, or send to several hosts in turn.
_AGAIN_SECONDS = 0.25
_KEEP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Layer:
    """What a probe found; `ms` is the way there and back, `error` why there was none."""

    state: State
    ms: float | None = None
    error: str = ""


async def probe(timeout: float = 2.0) -> Layer:
    """Ask the layer now. Never raises; takes `timeout` seconds at most, and a moment."""
    alias = conf.current().CHANNEL_LAYER
    try:
        if not reaches_others(alias):
            return Layer("none" if own_layer(alias) is None else "in-memory")
    except Exception as error:
        return Layer("down", error=str(error) or type(error).__name__)
    heard = asyncio.Event()
    nonce = secrets.token_hex(8)

    def take(message: dict[str, Any]) -> None:
        if message.get("nonce") == nonce:
            heard.set()

    box = Mailbox(alias, f"realtime.probe.{nonce}", take)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            await box.open()
            while not heard.is_set():
                began = time.perf_counter()
                await box.send(box.name, {"type": "probe", "nonce": nonce})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        await heard.wait()
    except TimeoutError:
        return Layer("down", error="no answer in time")
    except Exception as error:
        return Layer("down", error=str(error) or type(error).__name__)
    finally:
        await box.close()
    return Layer("ok", round((time.perf_counter() - began) * 1000, 1))


class CachedProbe:
    """Remembers what the last probe found and since when the layer has been down."""

    def __init__(self) -> None:
        self._found: Layer | None = None
        self._at = 0.0
        self._down_since: float | None = None

    async def look(self) -> Layer:
        """A fresh enough answer."""
        if self._found is None or time.monotonic() - self._at > _KEEP_SECONDS:
            found = await probe()
            self._found, self._at = found, time.monotonic()
            if found.state != "down":
                self._down_since = None
            elif self._down_since is None:
                self._down_since = self._at
        return self._found

    @property
    def down_for(self) -> float:
        """Seconds since the layer was first found down; 0 when it is not."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since
