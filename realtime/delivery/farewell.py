"""Closing a socket with the code that is meant.

Autobahn, which daphne speaks WebSocket through, lets an application close with 1000 and 3000 to
4999 only, and a server that restarts has to say 1012. Its close frame is made directly then. That
is not part of any interface: where it cannot be reached, the socket ends without a code.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.protocol.errors import CloseCode

_NORMAL = 1000
_APPLICATION = range(3000, 5000)


async def send_close(send: Callable[[dict[str, Any]], Awaitable[None]], code: CloseCode) -> None:
    """Close through this ASGI `send`. Raises what sending raises."""
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if isinstance(send, functools.partial) and send.args else None
    make_frame = getattr(protocol, "sendCloseFrame", None)
    if make_frame is not None and code != _NORMAL and code not in _APPLICATION:
        make_frame(code=int(code), reasonUtf8=code.meaning.encode(), isReply=False)
        return
    await send({"type": "websocket.close", "code": int(code), "reason": code.meaning})
