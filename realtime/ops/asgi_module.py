"""What is wrong in a project's asgi.py that `manage.py` does not meet and a server does.

Under `manage.py` the settings are named and the apps loaded before the file is imported. So its
text is read. Imports nothing and asks no database.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

_LOADS = ("get_asgi_application", "setup")
# Modules that import models as a rule. Others of an app, such as `env`, may do without the apps.
_WITH_MODELS = frozenset(
    {
        *("admin", "api", "consumers", "forms", "models", "permissions", "policies", "realtime"),
        *("routing", "serializers", "services", "signals", "tasks", "urls", "views", "viewsets"),
    }
)
SETTINGS = "DJANGO_SETTINGS_MODULE"


def names_settings(source: str) -> bool:
    """Whether the file names the settings, or configures them itself."""
    return SETTINGS in source or "settings.configure(" in source


def imported_too_early(source: str, apps: Collection[str]) -> str | None:
    """The first module of an installed app that is imported before Django is set up and is likely
    to import models, None when there is none. `apps` are the names of the apps' packages. Raises
    SyntaxError."""
    for statement in ast.parse(source).body:
        if any(_loads(node) for node in ast.walk(statement)):
            return None
        for name in _imported(statement):
            # The packages themselves may be imported: they hold no models.
            if any(_has_models(name, app) for app in apps):
                return name
    return None


def _has_models(module: str, app: str) -> bool:
    within = module.removeprefix(f"{app}.")
    return within != module and not _WITH_MODELS.isdisjoint(within.split("."))


def _loads(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in _LOADS


def _imported(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
        names = [alias.name for alias in statement.names]
        if "get_asgi_application" in names:
            # A module that makes the application has to be imported before the call.
            return []
        # `from desk import consumers` imports a module too.
        return [statement.module, *(f"{statement.module}.{name}" for name in names)]
    return []
