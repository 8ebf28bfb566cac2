"""Drives the official Python client, unmodified, at the word of a test: one JSON command a line
comes in, answers and everything the client hears go out, one JSON object a line.

Run by the interpreter of an environment of its own, from this folder.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from realtime import AsyncRealtimeClient

clients: dict[str, AsyncRealtimeClient] = {}
channels: dict[tuple[str, str], Any] = {}


def emit(**what: Any) -> None:
    sys.stdout.write(json.dumps(what, default=str) + "\n")
    sys.stdout.flush()


async def open_(client: str, url: str, key: str, token: str | None = None) -> None:
    made = clients[client] = AsyncRealtimeClient(url, token=key)
    await made.connect()
    if token:
        await made.set_auth(token)


async def subscribe(
    client: str, channel: str, config: Any = None, binding: Any = None, presence: bool = False
) -> None:
    topic = clients[client].channel(channel, {"config": config} if config else {})
    channels[client, channel] = topic
    if binding:
        topic.on_postgres_changes(
            binding["event"],
            lambda payload: emit(event="change", client=client, payload=payload),
            table=binding["table"],
            schema="public",
            filter=binding.get("filter"),
        )
    topic.on_broadcast("e", lambda payload: emit(event="heard", client=client, payload=payload))
    topic.on_system(lambda payload: emit(event="system", client=client, payload=str(payload)))
    if presence:
        topic.on_presence_sync(
            lambda: emit(event="presence", client=client, state=topic.presence_state())
        )
    await topic.subscribe(
        lambda status, error: emit(
            event="status", client=client, status=str(status.value), error=error and str(error)
        )
    )


async def send(client: str, channel: str, payload: Any) -> None:
    await channels[client, channel].send_broadcast("e", payload)


async def track(client: str, channel: str, payload: Any) -> None:
    await channels[client, channel].track(payload)


async def untrack(client: str, channel: str) -> None:
    await channels[client, channel].untrack()


async def unsubscribe(client: str, channel: str) -> None:
    await channels[client, channel].unsubscribe()


COMMANDS = {
    "open": open_,
    "subscribe": subscribe,
    "send": send,
    "track": track,
    "untrack": untrack,
    "unsubscribe": unsubscribe,
}


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = json.loads(line)
        number, name = command.pop("id"), command.pop("command")
        try:
            await COMMANDS[name](**command)
        except Exception as error:
            emit(event="answer", id=number, error=repr(error))
        else:
            emit(event="answer", id=number, value=None)


asyncio.run(main())
