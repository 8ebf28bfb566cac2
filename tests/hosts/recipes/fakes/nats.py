"""The calls of NATS' client that a recipe makes, on a list."""

from __future__ import annotations

from typing import Any

sent: list[dict[str, Any]] = []
open_connections = 0


class _Stream:
    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        sent.append({"subject": subject, "payload": payload, "headers": headers})


class _Connection:
    def jetstream(self) -> _Stream:
        return _Stream()

    async def close(self) -> None:
        global open_connections
        open_connections -= 1


async def connect(url: str) -> _Connection:
    global open_connections
    open_connections += 1
    return _Connection()
