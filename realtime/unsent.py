"""What is known of the server behind an ASGI `send`.

A server that pushes back makes `send` wait, and nobody need ask. Daphne takes everything at once
into its transport's buffer, without bound, so there the buffer itself is looked at. That is not
part of any interface: where it cannot be reached, the answer is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# Their `send` awaits nothing but a transport that is full, and asks for no current task.
_PLAIN = (
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
)


def sends_at_once(send: Any) -> bool:
    """Whether this `send` may be begun outside a task of its own. A doubt says no."""
    if isinstance(send, functools.partial):
        return type(send.args[0]).__module__ == "daphne.ws_protocol" if send.args else False
    return type(getattr(send, "__self__", None)).__module__ in _PLAIN


def unsent_by(send: Any) -> Callable[[], int]:
    """A function that gives the bytes waiting behind this ASGI `send`; always 0 if unknown."""
    # Daphne's `send` is bound to the protocol of the connection.
    protocol = send.args[0] if isinstance(send, functools.partial) and send.args else None
    transport: Any = getattr(protocol, "transport", None)
    if not all(hasattr(transport, name) for name in ("dataBuffer", "offset", "_tempDataLen")):
        return lambda: 0

    def waiting() -> int:
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen

    return waiting


def is_gone(error: BaseException) -> bool:
    """Whether a send failed because the client has left, which is nobody's fault.

    By the specification that is an OSError. Daphne lets through what autobahn raises, told here by
    its name: under another server there may be no autobahn.
    """
    return isinstance(error, OSError) or type(error).__name__ == "Disconnected"
