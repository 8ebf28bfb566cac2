"""Whether what code declares can be: published models, handlers, tables of tenants."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db.models import Model

from realtime.handling import registry
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.wal import published


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
