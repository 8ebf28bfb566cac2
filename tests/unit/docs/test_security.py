"""What SECURITY.md says was tried is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_test_that_the_security_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_promise_says_what_bounds_it_what_was_tried_and_what_is_not_promised() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    table = text.partition("| promised |")[2].partition("\n\n")[0].split("\n")[2:]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    assert len(rows) > 10
    assert [row[0] for row in rows if len(row) != 4 or not all(row)] == []
