"""docs/checks.md lists every system check, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "checks.md").read_text()
ID = re.compile(r"(?:realtime|auth_rls)\.[EWI]\d{3}")


def in_the_code() -> set[str]:
    return {
        node.value
        for app in ("realtime", "auth_rls")
        for path in (ROOT / app).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and ID.fullmatch(node.value)
    }


def test_every_check_stands_in_the_documentation_with_what_to_do_and_no_other() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \| (.+) \|$", TEXT, re.M)
    assert sorted(id_ for id_, _, _ in rows) == sorted(in_the_code())


def test_every_id_that_another_page_names_is_one() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert set(ID.findall(page.read_text())) <= in_the_code(), page.name
