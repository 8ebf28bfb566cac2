"""Checks that name what would leave a page waiting for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.views import serve
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings
from django.urls import re_path

from realtime.checks import (
    check_asgi,
    check_asgi_module,
    check_collected_files,
    check_policies,
    check_static_files,
)
from tests.support.policies import policy
from tests.zoo.models import Note, Team

here = __name__
plain = ASGIHandler()
without_route = ProtocolTypeRouter({"http": plain})
with_files = ProtocolTypeRouter({"http": ASGIStaticFilesHandler(plain), "websocket": plain})
with_route = ProtocolTypeRouter({"http": plain, "websocket": plain})


class NoRoutes:
    """URLs of a project that has none."""

    urlpatterns: ClassVar[list[Any]] = []


class FilesByRoute:
    """URLs that serve static files, as `staticfiles_urlpatterns` makes them."""

    urlpatterns: ClassVar[list[Any]] = [re_path(r"^static/(?P<path>.*)$", serve)]


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


@pytest.mark.parametrize(
    ("path", "more", "found"),
    [
        ("with_route", {}, ["realtime.W014"]),
        ("plain", {}, ["realtime.W014"]),
        ("with_files", {}, []),
        ("something_else", {}, []),
        ("missing", {}, []),
        ("with_route", {"DEBUG": False}, []),
        ("with_route", {"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]}, []),
        ("with_route", {"ROOT_URLCONF": FilesByRoute}, []),
    ],
)
def test_a_development_server_without_static_files_is_warned_of(
    path: str, more: dict[str, Any], found: list[str]
) -> None:
    apps = [name for name in settings.INSTALLED_APPS if name != "daphne"]
    given = {
        "ASGI_APPLICATION": f"{here}.{path}",
        "INSTALLED_APPS": apps,
        "ROOT_URLCONF": NoRoutes,
        "DEBUG": True,
        **more,
    }
    with override_settings(**given):
        assert [message.id for message in check_static_files()] == found


def test_where_runserver_serves_them_nothing_is_said() -> None:
    with override_settings(ASGI_APPLICATION=f"{here}.with_route", DEBUG=True):
        assert check_static_files() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{settings}\n{load}\n{routes}", []),
        ("{settings}\n{routes}\n{load}", ["realtime.W015"]),
        ("{load}\n{routes}", ["realtime.W016"]),
    ],
)
def test_an_asgi_module_that_no_server_could_load_is_warned_of(
    text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"asgi_{len(found)}_{len(text)}"
    source = text.format(
        settings="import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')",
        load="from django.core.asgi import get_asgi_application\nhttp = get_asgi_application()",
        routes="from realtime.routing import websocket_urlpatterns",
    )
    (tmp_path / f"{name}.py").write_text(f"{source}\napplication = http\n")
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(ASGI_APPLICATION=f"{name}.application"):
        assert [message.id for message in check_asgi_module()] == found
    with override_settings(ASGI_APPLICATION="nowhere.application"):
        assert check_asgi_module() == []


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, ["realtime.W017"]),
        ({"STATIC_ROOT": "/srv/static"}, []),
        ({"STATIC_URL": "https://cdn.example/"}, []),
        ({"DEBUG": True}, []),
        ({"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]}, []),
    ],
)
def test_a_deployment_that_has_no_static_files_is_warned_of(
    more: dict[str, Any], found: list[str]
) -> None:
    given = {"DEBUG": False, "STATIC_ROOT": None, "ROOT_URLCONF": NoRoutes, **more}
    with override_settings(**given):
        assert [message.id for message in check_collected_files()] == found


@pytest.mark.django_db
def test_a_published_model_without_a_policy_is_warned_of() -> None:
    def without() -> set[Any]:
        found = check_policies(databases=["default"])
        assert {message.id for message in found} <= {"auth_rls.W001"}
        return {message.obj for message in found}

    assert {Note, Team} <= without() and check_policies() == []
    policy({"is_public": True}, on="zoo.view_note")
    policy(True, on="zoo.change_team")
    assert Note not in without() and Team in without()
