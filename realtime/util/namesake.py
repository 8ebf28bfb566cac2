"""Refuses an environment in which the PyPI package `realtime` is installed over ours.

Supabase's Python client is published under that name and installs a package `realtime` too. The
package that was installed last has overwritten files of the other, and neither works.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

ADVICE = (
    "The PyPI package 'realtime' (Supabase's Python client) and Rowcast ('django-rowcast') install "
    "a package of the same name, and here one lies on top of the other. Use an environment of its "
    "own for that client. To mend this one: pip uninstall realtime; pip install --force-reinstall "
    "--no-deps django-rowcast"
)


def refuse(ours: Path = Path(__file__).parent.parent) -> None:
    """Raises ImproperlyConfigured when files of that package lie in `ours`, our own folder."""
    ours = ours.resolve()
    text = (ours / "__init__.py").read_text("utf-8", "replace")
    if "Rowcast" not in text or _installed_into(ours):
        raise ImproperlyConfigured(ADVICE)


def _installed_into(folder: Path) -> bool:
    try:
        files = metadata.distribution("realtime").files or ()
    except metadata.PackageNotFoundError:
        return False
    return any(
        file.name == "__init__.py" and Path(str(file.locate())).parent.resolve() == folder
        for file in files
        if len(file.parts) == 2
    )
