"""ASGI applications that Rowcast is compared with.

`application` is the chat of the Channels tutorial, with an HTTP view to publish by; its layer is
that of BENCHMARK_LAYER (memory, core or pubsub). `bare` only accepts sockets and reads from them,
which shows the cost of the server alone.
"""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

from tests.support.layers import layers

settings.configure(
    SECRET_KEY="a benchmark's",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS=layers(
        os.environ.get("BENCHMARK_LAYER", "memory"), os.environ.get("REDIS_URL", "")
    ),
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402


class Listener(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)

    async def fan(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


async def publish(scope: Any, receive: Any, send: Any) -> None:
    """Send the text of a POST to all sockets."""
    text = b""
    while True:
        message = await receive()
        text += message.get("body", b"")
        if not message.get("more_body"):
            break
    layer: Any = get_channel_layer()
    await layer.group_send("room", {"type": "fan", "text": text.decode()})
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        continue


application = ProtocolTypeRouter({"http": publish, "websocket": Listener.as_asgi()})
