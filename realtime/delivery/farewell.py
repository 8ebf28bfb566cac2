"""Sends the close frame of a socket, with any code.

Autobahn, daphne's WebSocket library, lets an application close with 1000 and 3000 to 4999 only; a
server that restarts must say 1012. Such a close frame is made with autobahn's own method, which is
not a public interface: where it is missing, the socket ends without a code.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.protocol.errors import CloseCode

_NORMAL = 1000
_APPLICATION = range(3000, 5000)


async def send_close(send: Callable[[dict[str, Any]], Awaitable[None]], code: CloseCode) -> None:
    """Close the socket of this ASGI `send`. Raises what `send` raises."""
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if isinstance(send, functools.partial) and send.args else None
    make_frame = getattr(protocol, "sendCloseFrame", None)
    if make_frame is not None and code != _NORMAL and code not in _APPLICATION:
        make_frame(code=int(code), reasonUtf8=code.meaning.encode(), isReply=False)
        return
    await send({"type": "websocket.close", "code": int(code), "reason": code.meaning})
