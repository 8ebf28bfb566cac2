"""Whether the project's settings and its ASGI application serve what Rowcast needs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string

from auth_rls.documentation import page
from realtime import conf
from realtime.bus.layers import idle_timeout, layer_problem
from realtime.middleware import ActorMiddleware, ReceiptMiddleware
from realtime.ops import asgi_module, static_files
from realtime.socket.origin import OriginRule
from realtime.webhooks.destination import read_allowed


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E005 REALTIME holds an unknown key, a wrong value, an origin that could never match, or a
    WEBHOOK_ALLOW that names no host and no network."""
    try:
        OriginRule.from_settings(conf.current().ALLOWED_ORIGINS)
        read_allowed(conf.current().WEBHOOK_ALLOW)
    except ImproperlyConfigured as error:
        return [Error(str(error), id="realtime.E005")]
    except ValueError as error:
        return [Error(f"REALTIME['WEBHOOK_ALLOW']: {error}", id="realtime.E005")]
    return []


@register()
def check_asgi(**kwargs: Any) -> list[CheckMessage]:
    """W011 no ASGI application, or one without a WebSocket route; W012 a `runserver` that serves
    no WebSockets."""
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    if not path:
        return [
            Warning(
                "ASGI_APPLICATION is not set, so nothing serves Rowcast's WebSockets.",
                hint=f"Name the application of your asgi.py; see {page('how-to/install')}.",
                id="realtime.W011",
            )
        ]
    found: list[CheckMessage] = []
    try:
        application = import_string(path)
    except Exception as error:
        found.append(
            Warning(
                f"ASGI_APPLICATION {path!r} cannot be imported: {error}",
                hint="In asgi.py call get_asgi_application() before other imports of the project.",
                id="realtime.W011",
            )
        )
    else:
        routes = getattr(application, "application_mapping", None)
        plain = isinstance(application, ASGIHandler)
        if plain or (routes is not None and "websocket" not in routes):
            found.append(
                Warning(
                    f"ASGI_APPLICATION {path!r} has no route for WebSockets: pages wait for ever.",
                    hint='Add "websocket": URLRouter(websocket_urlpatterns) of realtime.routing.',
                    id="realtime.W011",
                )
            )
    if django_settings.DEBUG and not apps.is_installed("daphne"):
        found.append(
            Warning(
                "runserver serves no WebSockets: 'daphne' is not in INSTALLED_APPS.",
                hint="Put 'daphne' first in INSTALLED_APPS, or develop with "
                "uvicorn --reload --ws realtime.server:FanoutProtocol.",
                id="realtime.W012",
            )
        )
    return found


@register()
def check_asgi_module(**kwargs: Any) -> list[CheckMessage]:
    """W015 an asgi.py that imports apps before Django is set up; W016 one that names no settings.
    Both work under `manage.py`, and no server can start them."""
    path = getattr(django_settings, "ASGI_APPLICATION", None) or ""
    try:
        source = Path(str(import_module(path.rpartition(".")[0]).__file__)).read_text()
        early = asgi_module.imported_too_early(source, _apps_with_modules())
    except Exception:
        return []  # reported as W011
    found: list[CheckMessage] = []
    if early is not None:
        found.append(
            Warning(
                f"{path} imports {early} before Django is set up: uvicorn and daphne may not "
                "be able to load it (AppRegistryNotReady).",
                hint="Call get_asgi_application() first, and import what needs models below it.",
                id="realtime.W015",
            )
        )
    if not asgi_module.names_settings(source):
        found.append(
            Warning(
                f"{path} does not name the settings: uvicorn and daphne cannot load it unless "
                f"{asgi_module.SETTINGS} is set for them.",
                hint="Begin with "
                f'os.environ.setdefault("{asgi_module.SETTINGS}", "yourproject.settings").',
                id="realtime.W016",
            )
        )
    return found


def _apps_with_modules() -> set[str]:
    """The packages of installed apps, but for those of which asgi.py imports parts before."""
    early = {"channels", "daphne"}
    names = {app.name for app in apps.get_app_configs()} - early
    return {name for name in names if not name.startswith("django.")}


@register(deploy=True)
def check_collected_files(**kwargs: Any) -> list[CheckMessage]:
    """W017 without DEBUG nothing serves static files, and they are not collected either."""
    if django_settings.DEBUG or not apps.is_installed("django.contrib.staticfiles"):
        return []
    elsewhere = "://" in (django_settings.STATIC_URL or "")
    if django_settings.STATIC_ROOT or elsewhere or static_files.is_served():
        return []
    return [
        Warning(
            "Without DEBUG nothing serves static files: pages do not find realtime/client.js.",
            hint="Set STATIC_ROOT, run `manage.py collectstatic`, and let the web server or "
            "WhiteNoise serve that folder at STATIC_URL.",
            id="realtime.W017",
        )
    ]


@register()
def check_receipts(**kwargs: Any) -> list[CheckMessage]:
    """W018 receipts that no client gets to see with a change, because no write names its user."""
    if not _in_middleware(ReceiptMiddleware) or _in_middleware(ActorMiddleware):
        return []
    return [
        Warning(
            "MIDDLEWARE has ReceiptMiddleware and no ActorMiddleware: changes name no writer, "
            "so none is sent with its receipt.",
            hint="Add 'realtime.middleware.ActorMiddleware' behind Django's "
            f"AuthenticationMiddleware; see {page('how-to/own-echo')}.",
            id="realtime.W018",
        )
    ]


def _in_middleware(wanted: type) -> bool:
    """Whether MIDDLEWARE names this class or one that is derived from it."""
    for path in django_settings.MIDDLEWARE:
        try:
            found = import_string(path)
        except ImportError:
            continue  # Django itself says so when it starts
        if isinstance(found, type) and issubclass(found, wanted):
            return True
    return False


@register()
def check_static_files(**kwargs: Any) -> list[CheckMessage]:
    """W014 a development server that serves no static files: uvicorn, where daphne is not there to
    serve them by `runserver`. Where both may run, the log says so once it happens."""
    wanted = apps.is_installed("django.contrib.staticfiles") and not apps.is_installed("daphne")
    if not (django_settings.DEBUG and wanted):
        return []
    try:
        application = import_string(getattr(django_settings, "ASGI_APPLICATION", None) or "")
    except Exception:
        return []  # reported as W011
    http = getattr(application, "application_mapping", {}).get("http", application)
    # An application that another one wraps cannot be inspected.
    plain = isinstance(http, ASGIHandler) and not isinstance(http, StaticFilesHandlerMixin)
    if not plain or static_files.is_served():
        return []
    return [
        Warning(
            "Under uvicorn nothing serves static files, so pages do not find realtime/client.js.",
            hint=static_files.HINT,
            id="realtime.W014",
        )
    ]


@register()
def check_layer(**kwargs: Any) -> list[CheckMessage]:
    """W013 the layer is not there or cannot be made, no error because `migrate` needs none; W010 a
    layer of channels_redis.core whose reads time out while it is idle."""
    alias = conf.current().CHANNEL_LAYER
    problem = layer_problem(alias)
    broken: list[CheckMessage] = (
        []
        if problem is None
        else [
            Warning(
                f"The channel layer {alias!r} {problem}.",
                hint="Without it broadcasts reach one process only. See CHANNEL_LAYERS and "
                "REALTIME['CHANNEL_LAYER'].",
                id="realtime.W013",
            )
        ]
    )
    return broken + [
        Warning(
            f"The channel layer {alias!r} fails after {seconds:g} seconds without a message: its "
            "Redis client times reads out before the layer stops waiting.",
            hint="Rowcast sets a longer time-out for itself. For consumers and workers of your own "
            f"use {{'address': …, 'socket_timeout': {waits + 2:g}}} in CONFIG['hosts'], or the "
            "layer of channels_redis.pubsub.",
            id="realtime.W010",
        )
        for alias in getattr(django_settings, "CHANNEL_LAYERS", {})
        if (found := idle_timeout(alias)) is not None
        for seconds, waits in (found,)
    ]
