"""Fair reading of what clients send: no client takes the event loop for long.

A client may send thousands of small messages in one packet, or one that takes long to read, on many
sockets at once. What is read in one iteration of the loop is therefore bounded. Beyond the bound,
sockets wait for the next iteration, where those of the address that has used least come first.
Within the bound nothing waits and nothing is charged.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from realtime.util.loop_share import LoopShare
from realtime.util.network import network
from realtime.util.payer_queue import Payer

PIECE = 1_024
"""Bytes that are parsed at a time: some 150 of the smallest frames, about a millisecond."""

_shares: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopShare] = WeakKeyDictionary()


def reading_share() -> LoopShare:
    """The share at reading of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _shares.get(loop)
    if found is None:
        # Not at once: a client chooses how large its messages are and how many come.
        found = _shares[loop] = LoopShare(at_once=False)
    return found


def payer_of(client: Any, protocol: object) -> Payer:
    """The payer for what a server's connection reads; `client` is its address as ASGI has it."""
    return Payer(network(str(client[0])) if client else "", str(id(protocol)))
