"""docs/reference/checks.md lists every system check, and no other."""

from __future__ import annotations

import ast
import re

from tests.support.source import ROOT, modules, nodes

TEXT = (ROOT / "docs" / "reference" / "checks.md").read_text()
ID = re.compile(r"(?:realtime|auth_rls)\.[EWI]\d{3}")


def in_the_code() -> set[str]:
    return {
        node.value
        for path in modules("realtime", "auth_rls")
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and ID.fullmatch(node.value)
    }


def test_every_check_stands_in_the_documentation_with_what_to_do_and_no_other() -> None:
    rows = re.findall(r'^\| <a id="([^"]+)"></a>`([^`]+)` \| (.+) \| (.+) \|$', TEXT, re.M)
    assert sorted(id_ for _, id_, _, _ in rows) == sorted(in_the_code())
    assert all(anchor == id_ for anchor, id_, _, _ in rows)


def test_every_id_that_another_page_names_is_one() -> None:
    known = in_the_code()
    for page in (ROOT / "docs").rglob("*.md"):
        assert set(ID.findall(page.read_text())) <= known, page.name
