"""One seam for databases: nothing outside of the vendors' implementations asks which one it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

import auth_rls
import realtime
from realtime.wal.vendor import UnknownVendor, supports, vendor_of

# The seams themselves: where an implementation is chosen by the vendor's name.
SEAMS = {"realtime/wal/vendor.py", "auth_rls/sql/dialects/registry.py"}


def sources(package: Any) -> Iterator[Path]:
    return Path(package.__file__).parent.rglob("*.py")


def asks_for_the_vendor(source: str) -> list[int]:
    """The lines that read a `vendor` attribute or define a method that Django calls by vendor."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        reads = isinstance(node, ast.Attribute) and node.attr == "vendor"
        named = isinstance(node, ast.FunctionDef) and node.name in ("as_sqlite", "as_postgresql")
        by_name = isinstance(node, ast.Constant) and node.value == "vendor"
        if reads or named or by_name:
            lines.append(node.lineno)
    return lines


def within_an_implementation(path: str) -> bool:
    return bool({"sqlite", "postgresql"} & set(Path(path).with_suffix("").parts)) or path in SEAMS


@pytest.mark.parametrize("package", [realtime, auth_rls], ids=lambda package: package.__name__)
def test_only_the_seam_asks_which_vendor_a_database_is_of(package: Any) -> None:
    root = Path(package.__file__).parent.parent
    found = {
        str(path.relative_to(root)): lines
        for path in sources(package)
        if (lines := asks_for_the_vendor(path.read_text()))
    }
    outside = {path: lines for path, lines in found.items() if not within_an_implementation(path)}
    assert outside == {}


def test_the_database_of_the_tests_is_supported() -> None:
    assert supports(connection)
    assert vendor_of(connection).now_us


def test_a_database_that_has_no_implementation_is_refused_with_those_that_have_one() -> None:
    other: Any = SimpleNamespace(vendor="oracle", display_name="Oracle")
    assert not supports(other)
    with pytest.raises(UnknownVendor, match=r"on Oracle; supported: postgresql, sqlite\."):
        vendor_of(other)
