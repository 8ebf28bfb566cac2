"""Checks that name what would leave a page waiting for ever."""

from __future__ import annotations

from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings

from realtime.checks import check_asgi

here = __name__
plain = ASGIHandler()
without_route = ProtocolTypeRouter({"http": plain})
with_route = ProtocolTypeRouter({"http": plain, "websocket": plain})


async def something_else(scope: Any, receive: Any, send: Any) -> None:
    """An application that wraps others: what is in it, nobody can see."""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("with_route", []),
        ("something_else", []),
        ("without_route", ["realtime.W011"]),
        ("plain", ["realtime.W011"]),
        ("missing", ["realtime.W011"]),
        (None, ["realtime.W011"]),
    ],
)
def test_an_application_without_websockets_is_warned_of(path: Any, found: list[str]) -> None:
    with override_settings(ASGI_APPLICATION=path and f"{here}.{path}"):
        assert [message.id for message in check_asgi()] == found


def test_a_runserver_without_websockets_is_warned_of() -> None:
    apps = [name for name in settings.INSTALLED_APPS if name != "daphne"]
    with override_settings(ASGI_APPLICATION=f"{here}.with_route", INSTALLED_APPS=apps, DEBUG=True):
        assert [message.id for message in check_asgi()] == ["realtime.W012"]
    with override_settings(ASGI_APPLICATION=f"{here}.with_route", INSTALLED_APPS=apps):
        assert check_asgi() == []
