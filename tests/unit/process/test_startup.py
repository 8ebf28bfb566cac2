"""A server process is ready before its first connection: bounds are set, URLs are loaded."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import python
from tests.support.tokens import SECRET_KEY
from tests.support.waiting import PATIENCE_SECONDS

URLS = """
import sys
import realtime_project.asgi
print("realtime_project.urls" in sys.modules)
"""

BROKEN_URLS = """
import sys
from django.conf import settings
settings.ROOT_URLCONF = "nowhere.urls"
import realtime_project.asgi
print(realtime_project.asgi.application is not None)
"""

EARLY_ROUTES = """
import sys
import types
import django
from django.apps import AppConfig
from django.conf import settings

class Early(AppConfig):
    name, path = "early", "."

    def ready(self):
        import realtime.routing
        print("realtime_project.urls" in sys.modules)

early = sys.modules["early"] = types.ModuleType("early")
early.Early = Early
settings.INSTALLED_APPS = ["early.Early", *settings.INSTALLED_APPS]
django.setup()
"""

PUBLISHED_WITH_SECRETS = """
import io
import logging
import django
django.setup()
from django.contrib.auth.models import User
from realtime import publish
publish(User)
told = io.StringIO()
logging.getLogger("realtime").addHandler(logging.StreamHandler(told))
import realtime_project.asgi
import realtime.routing
print(told.getvalue())
"""

# The first socket of plain uvicorn, whose client sends thousands of messages at once.
FIRST_SOCKET = """
import asyncio
import uvicorn
import realtime_project.asgi
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

waiting = asyncio.Queue()

async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    waiting.put_nowait(receive.__self__.queue.qsize())
    await receive()

async def main():
    config = uvicorn.Config(application)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: WebSocketsSansIOProtocol(config=config, server_state=state, app_state={}),
        "127.0.0.1",
    )
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\\r\\nHost: a\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"
    )
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"\\x81\\x81\\0\\0\\0\\0x" * 9_000)
    print(await waiting.get())

asyncio.run(main())
"""


def printed(program: str) -> str:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings_server",
        "DJANGO_SECRET_KEY": SECRET_KEY,
    }
    done = python.run(["-c", program], cwd=Path.cwd(), env=environment, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_urls_are_loaded_before_the_first_request() -> None:
    assert printed(URLS) == "True"


def test_urls_that_cannot_be_loaded_are_no_reason_to_serve_no_sockets() -> None:
    assert printed(BROKEN_URLS) == "True"


def test_urls_are_not_loaded_before_all_apps_are_ready() -> None:
    assert printed(EARLY_ROUTES) == "False"


def test_a_published_model_that_is_not_captured_is_logged_once_with_what_to_do() -> None:
    (line,) = printed(PUBLISHED_WITH_SECRETS).splitlines()
    assert line.startswith("auth.User is not captured: ")
    assert "realtime.E006" in line and "exclude=['password']" in line


def test_the_first_socket_of_plain_uvicorn_is_parsed_in_pieces() -> None:
    assert int(printed(FIRST_SOCKET)) < 1_000
