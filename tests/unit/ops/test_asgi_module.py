"""What the text of an asgi.py tells that `manage.py` does not meet."""

from __future__ import annotations

import pytest

from realtime.ops.asgi_module import imported_too_early, names_settings

APPS = {"realtime", "desk"}
EARLY = "from realtime.routing import websocket_urlpatterns"
LOAD = "http = get_asgi_application()"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((LOAD, EARLY), None),
        ((EARLY, LOAD), "realtime.routing"),
        (("import desk.consumers", LOAD, EARLY), "desk.consumers"),
        (("import django", "django.setup()", EARLY), None),
        (("from channels.routing import URLRouter", "import deskless.views", LOAD), None),
        (("import desk", "from . import desk", "from .desk import models", LOAD), None),
        ((f"if True:\n    {LOAD}", EARLY), None),
        (("application = Router({'http': get_asgi_application()})", EARLY), None),
        (("from desk import consumers, env", LOAD), "desk.consumers"),
        (("from desk.chat.models import Room", LOAD), "desk.chat.models"),
        (("from desk.env import load", "import desk.settings.asgi", "load()", LOAD), None),
        (("from desk.views import get_asgi_application", LOAD), None),
        (("from desk.apps import DeskConfig", LOAD), None),
        ((), None),
    ],
)
def test_the_first_import_that_comes_too_early_is_found(
    lines: tuple[str, ...], found: str | None
) -> None:
    assert imported_too_early("\n".join(lines), APPS) == found


def test_settings_are_named_or_configured() -> None:
    assert names_settings('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desk.settings")')
    assert names_settings("settings.configure(DEBUG=True)")
    assert not names_settings(LOAD)
