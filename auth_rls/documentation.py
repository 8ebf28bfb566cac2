"""The address of the documentation, for links from the admin."""

from __future__ import annotations

from typing import Final

SITE: Final = "https://django-rowcast.readthedocs.io/en/latest/"


def page(path: str) -> str:
    """The address of a page by its path in `docs/` without ".md", such as "reference/policies"."""
    name, _, part = path.partition("#")
    return f"{SITE}{name}/" + (f"#{part}" if part else "")
