"""Fair reading of what clients send: no client takes the event loop for long.

A client may send thousands of small messages in one packet, or one that takes long to read, on many
sockets at once. The time for reading in one iteration of the loop is therefore bounded. Beyond it
sockets wait for a slot, and the address that has used least gets the next one. Within the bound
nothing waits and nothing is charged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from realtime.util.fair_share import FairShare, Payer
from realtime.util.time_slice import SLICE_SECONDS

PIECE = 4_096
"""Bytes that are parsed at a time: a few hundred of the smallest frames."""

_shares: WeakKeyDictionary[asyncio.AbstractEventLoop, FairShare] = WeakKeyDictionary()


def reading_share() -> FairShare:
    """The one share of reading time of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _shares.get(loop)
    if found is None:
        found = _shares[loop] = FairShare(1, 1, SLICE_SECONDS)
    return found


@asynccontextmanager
async def reading_slot(share: FairShare, payer: Payer) -> AsyncIterator[None]:
    """A slot for the time of the block, which must not await. Its time is charged to the payer."""
    async with share.slot(payer) as slot:
        began = time.perf_counter()
        try:
            yield
        finally:
            slot.charge(time.perf_counter() - began)


def payer_of(client: Any, protocol: object) -> Payer:
    """The payer for what a server's connection reads; `client` is its address as ASGI has it."""
    return Payer(str(client[0]) if client else "", str(id(protocol)))
