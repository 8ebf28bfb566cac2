"""A request for a module of Rowcast that nothing serves is a line in the log, once."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.views import serve
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.test import override_settings
from django.urls import re_path

from realtime.ops import static_files

pytestmark = pytest.mark.django_db
MODULE = "/static/realtime/client.js"


class NoRoutes:
    """URLs of a project that has none."""

    urlpatterns: ClassVar[list[Any]] = []


class FilesByRoute:
    """URLs that serve static files."""

    urlpatterns: ClassVar[list[Any]] = [re_path(r"^static/(?P<path>.*)$", serve)]


@pytest.fixture(autouse=True)
def looking() -> None:
    static_files.connect()


@pytest.mark.parametrize(
    ("more", "handler", "path", "lines"),
    [
        ({}, ASGIHandler, MODULE, 1),
        ({}, ASGIHandler, f"/below{MODULE}", 1),
        ({}, ASGIHandler, "/static/realtime/rows.js", 1),
        ({"DEBUG": True}, ASGIHandler, MODULE, 1),
        ({}, ASGIStaticFilesHandler, MODULE, 0),
        ({}, ASGIHandler, "/realtime/client.js", 0),
        ({}, ASGIHandler, "/static/other/client.js", 0),
        ({"STATIC_URL": "https://cdn.example/static/"}, ASGIHandler, MODULE, 0),
        ({"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]}, ASGIHandler, MODULE, 0),
        ({"MIDDLEWARE": ["servestatic.middleware.ServeStaticMiddleware"]}, ASGIHandler, MODULE, 0),
        ({"ROOT_URLCONF": FilesByRoute}, ASGIHandler, MODULE, 0),
    ],
)
def test_a_module_that_nothing_serves_is_told_once(
    more: dict[str, Any],
    handler: type,
    path: str,
    lines: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with override_settings(**{"ROOT_URLCONF": NoRoutes, "STATIC_URL": "/static/", **more}):
        for _ in range(2):
            request_started.send(handler, scope={"type": "http", "path": path})
    said = [record for record in caplog.records if record.name == static_files.__name__]
    assert [record.action for record in said] == ["static_not_served"] * lines  # type: ignore[attr-defined]


def test_a_wsgi_server_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(ROOT_URLCONF=NoRoutes, STATIC_URL="/static/"):
        request_started.send(object, environ={"PATH_INFO": MODULE})
    assert "ASGIStaticFilesHandler" in caplog.text
