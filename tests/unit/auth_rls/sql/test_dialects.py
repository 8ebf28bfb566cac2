"""Dialects: one for each vendor, and one place that asks which vendor a database is of."""

from __future__ import annotations

import re
from pathlib import Path

import auth_rls
from auth_rls.sql.dialects.registry import DIALECTS


def test_only_the_registry_asks_for_a_vendor() -> None:
    root = Path(auth_rls.__file__).parent
    asking = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"\.vendor\b|[\"']vendor[\"']", path.read_text())
    }
    assert asking == {"sql/dialects/registry.py"}


def test_every_vendor_has_a_module_of_its_name() -> None:
    for vendor, dialect in DIALECTS.items():
        assert type(dialect).__module__ == f"auth_rls.sql.dialects.{vendor}"
