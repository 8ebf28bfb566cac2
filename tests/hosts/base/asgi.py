from __future__ import annotations

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter  # noqa: E402

from realtime.routing import websocket_urlpatterns, worker_routes  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(websocket_urlpatterns),
        "channel": ChannelNameRouter(worker_routes),
    }
)
