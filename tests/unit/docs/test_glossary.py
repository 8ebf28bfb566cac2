"""The glossary: each word once, in a file that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "glossary.md").read_text()
ROWS = re.findall(r"^\| \*\*([^*]+)\*\* \| (.+) \| `([^`]+)` \|$", TEXT, re.M)


def test_at_least_twenty_words_are_defined_each_once() -> None:
    words = [word for word, _, _ in ROWS]
    assert len(words) >= 20
    assert len(words) == len(set(words))


def test_every_word_lives_in_a_file_that_exists() -> None:
    assert [path for _, _, path in ROWS if not (ROOT / path).is_file()] == []
