"""Where the WebSocket side is mounted, and what workers do."""

from __future__ import annotations

from django.urls import re_path

from realtime.process.startup import prepare
from realtime.process.worker import RealtimeWorker
from realtime.process.worker_messages import WORKERS
from realtime.socket.consumer import RealtimeConsumer

_consumer = RealtimeConsumer.as_asgi()

websocket_urlpatterns = [
    re_path(r"^realtime/?$", _consumer),
    re_path(r"^realtime/websocket/?$", _consumer),
    re_path(r"^realtime/v1/websocket/?$", _consumer),
]

# For ChannelNameRouter: `manage.py runworker realtime`.
worker_routes = {WORKERS: RealtimeWorker.as_asgi()}

# Last, since the project's URLs may import what is above.
prepare()
