"""The ASGI application: Django over HTTP, Rowcast over WebSocket and in workers."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "realtime_project.settings")
http = get_asgi_application()

# Consumers import models, which need the application registry that the line above fills.
from channels.routing import (  # noqa: E402
    ChannelNameRouter,
    ProtocolTypeRouter,
    URLRouter,
)

from realtime.routing import websocket_urlpatterns, worker_routes  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(websocket_urlpatterns),
        "channel": ChannelNameRouter(worker_routes),
    }
)
