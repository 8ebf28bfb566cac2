"""What is wrong in a project's asgi.py that `manage.py` does not meet and a server does.

Under `manage.py` the settings are named and the apps loaded before the file is imported. So its
text is read. Imports nothing and asks no database.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

_LOADS = ("get_asgi_application", "setup")
SETTINGS = "DJANGO_SETTINGS_MODULE"


def names_settings(source: str) -> bool:
    """Whether the file names the settings, or configures them itself."""
    return SETTINGS in source or "settings.configure(" in source


def imported_too_early(source: str, apps: Collection[str]) -> str | None:
    """The first module of an installed app that is imported before Django is set up, None when
    there is none. `apps` are the names of the apps' packages. Raises SyntaxError."""
    for statement in ast.parse(source).body:
        if any(_loads(node) for node in ast.walk(statement)):
            return None
        for name in _imported(statement):
            # The packages themselves may be imported: they hold no models.
            if any(name.startswith(f"{app}.") for app in apps):
                return name
    return None


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
        return [statement.module]
    return []
