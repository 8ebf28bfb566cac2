"""How much of what was sent to a socket is still in this process.

An ASGI server that pushes back makes `send` wait, and nobody need ask. Daphne takes everything at
once into its transport's buffer, without bound, so there the buffer itself is looked at. That is
not part of any interface: where it cannot be reached, the answer is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


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
