"""System checks: published models that cannot be captured, and databases that are not ready.

Checks without the database tag read declarations and settings only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings as django_settings
from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.utils.module_loading import import_string

from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.documentation import page
from auth_rls.sql.primary import primary
from realtime import conf
from realtime.bus.layers import idle_timeout, layer_problem
from realtime.conf import settings
from realtime.handling import registry
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.handling.overview import STOPPED, UNKNOWN, overview
from realtime.middleware import ActorMiddleware, ReceiptMiddleware
from realtime.ops import asgi_module, static_files
from realtime.socket.origin import OriginRule
from realtime.wal import published, triggers
from realtime.wal.obstacles import ABSENT, deciding_elsewhere
from realtime.wal.vendor import supported, supports, vendor_of
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


@register(Tags.database)
def check_policies(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """auth_rls.W001 a published model without a policy, so that only superusers see its rows."""
    if primary(apps.get_model("auth_rls", "Policy")) not in (databases or ()):
        return []
    try:
        snapshot = PolicySnapshot.load_if_migrated()
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [
        Warning(
            f"{entry.model._meta.label} is published, but no policy lets anybody see its rows.",
            hint="Add a policy for its view permission in the admin, under Row-level security.",
            obj=entry.model,
            id="auth_rls.W001",
        )
        for entry in published.published()
        if not snapshot.rules(entry.model, "view")
    ]


@register(Tags.models)
def check_published(**kwargs: Any) -> list[CheckMessage]:
    """E001 no table of its own, E002 a column of unknown type, E003 an unknown column name, E006
    a column that seems to hold a secret and is not named."""
    found: list[CheckMessage] = []
    for entry in published.declared():
        problem = published.problem(entry)
        if problem is not None:
            found.append(Error(problem.message, hint=problem.hint, obj=entry.model, id=problem.id))
    return found


@register(Tags.models)
def check_handlers(**kwargs: Any) -> list[CheckMessage]:
    """E030 a handler of a model that is not published, E031 a filter that does not fit the model,
    E032 a name of a column that it does not have."""
    found: list[CheckMessage] = []
    for definition in registry.declared():
        try:
            Matcher(definition)
        except UnfitHandler as error:
            found.append(Error(error.message, hint=error.hint, id=error.id))
    return found


@register(Tags.database)
def check_handlers_go_on(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W030 a handler that stands still, or whose row no code knows: the log is kept for it, up to a
    bound, and its changes wait."""
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias) or _pending(alias):
            return []
        states = overview(alias)
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [
        Warning(
            f"The handler {state.name!r} is {state.state} at {state.seq}: {state.error}",
            hint=f"`manage.py handlers list`; see {page('how-to/run-code-on-changes')}.",
            id="realtime.W030",
        )
        for state in states
        if state.state in (STOPPED, UNKNOWN)
    ]


@register()
def check_deciding_databases(**kwargs: Any) -> list[CheckMessage]:
    """E020 policies, users or permissions are written to another database than the log's, where
    their changes are not followed. Streams are refused then, but to the service role."""
    return [
        Error(
            f"{model._meta.label} is written to the database {alias!r}, and the log is in "
            f"{settings.DATABASE!r}: its changes would not be followed.",
            hint="Keep policies, users, groups and permissions in REALTIME['DATABASE'].",
            obj=model,
            id="realtime.E020",
        )
        for model, alias in deciding_elsewhere(settings.DATABASE).items()
    ]


@register(Tags.models)
def check_tenants(**kwargs: Any) -> list[CheckMessage]:
    """E021 tables that each tenant has in a schema of its own (django-tenants), of which the stream
    knows one."""
    apart = {label for label in map(_label_of, _tenant_apps()) if label}
    concerned = sorted(
        {entry.model._meta.label for entry in published.declared()}
        | {model._meta.label for app in ("realtime", "auth_rls") for model in _models_of(app)}
    )
    found = [label for label in concerned if label.partition(".")[0] in apart]
    if not found:
        return []
    return [
        Error(
            f"Each tenant has its own table of {', '.join(found)}, and Rowcast follows the tables "
            "of one schema: rows of different tenants would not be told apart.",
            hint="Keep 'realtime', 'auth_rls' and the apps of published models in SHARED_APPS and "
            "out of TENANT_APPS, with a column for the tenant and a policy on it; or give each "
            "tenant a database and a server of its own.",
            id="realtime.E021",
        )
    ]


def _tenant_apps() -> set[str]:
    """The apps whose tables are in each tenant's schema, as the packages for tenants name them."""
    found: set[str] = set(getattr(django_settings, "TENANT_APPS", ()))
    for setting in ("TENANT_TYPES", "TENANTS"):
        kinds = getattr(django_settings, setting, None)
        for name, kind in kinds.items() if isinstance(kinds, dict) else ():
            if name != "public" and isinstance(kind, dict):
                found.update(kind.get("APPS", ()))
    return found


def _models_of(app: str) -> list[type[Model]]:
    return list(apps.get_app_config(app).get_models())


def _label_of(entry: str) -> str:
    """The label of an app as a list of apps names it; empty where it is not installed."""
    try:
        name = AppConfig.create(entry).name
    except ImportError:
        return ""
    return next((app.label for app in apps.get_app_configs() if app.name == name), "")


@register()
def check_database_setting(**kwargs: Any) -> list[CheckMessage]:
    """E004 REALTIME["DATABASE"] names no database, or one that cannot be captured; and the vendor's
    own checks of its settings."""
    alias = settings.DATABASE
    if alias not in django_settings.DATABASES:
        known = ", ".join(map(repr, django_settings.DATABASES))
        return [
            Error(
                f"REALTIME['DATABASE'] is {alias!r}, which DATABASES does not have.",
                hint=f"Its aliases: {known}.",
                id="realtime.E004",
            )
        ]
    connection = connections[alias]
    if not supports(connection):
        return [
            Error(
                f"Changes cannot be captured on {connection.display_name}.",
                hint=f"Supported: {supported()}.",
                id="realtime.E004",
            )
        ]
    return vendor_of(connection).check(alias)


@register(Tags.database)
def check_captured(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W004 a published model that cannot be captured: it is kept in another database, or is a view,
    a foreign table or no table at all; a trigger that fires before Rowcast's."""
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias):
            return []
        found = triggers.faults(alias)
        if any(ABSENT in text for text in found) and _pending(alias):
            # The migration that makes it is still to run.
            found = [text for text in found if ABSENT not in text]
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [Warning(text, id="realtime.W004") for text in found]


def _pending(alias: str) -> bool:
    executor = MigrationExecutor(connections[alias])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


@register(Tags.database)
def check_triggers(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E010 tables whose triggers are not what they should be, so that changes go uncaptured.

    A warning by level, because `migrate`, which puts it right, refuses to run on errors. Silent
    before the first migration.
    """
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias):
            return []
        wrong = [t for t in triggers.status(alias) if t.state is not triggers.State.INSTALLED]
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    if not wrong:
        return []
    tables: dict[str, set[str]] = {}
    for trigger in wrong:
        tables.setdefault(trigger.table, set()).add(trigger.state.value)
    listed = ", ".join(f"{t} ({', '.join(sorted(s))})" for t, s in sorted(tables.items()))
    return [
        Warning(
            f"Capture triggers are not as they should be: {listed}.",
            hint="Run `manage.py migrate` or `manage.py realtime_triggers install`.",
            id="realtime.E010",
        )
    ]
