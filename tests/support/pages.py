"""What a page of docs/ holds besides prose: blocks of code, and steps in comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.source import ROOT

DOCS = ROOT / "docs"
_PARTS = re.compile(
    r"""^(?P<indent>[ ]*)```(?P<language>\w+)(?:[ ]title="(?P<title>[^"]*)")?\n
        (?P<text>.*?)^(?P=indent)```$
      | ^<!--\ (?P<step>[^\n]*)\ -->$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(DOCS)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Step:
    """A comment of one line, which says what a reader does between two blocks."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(DOCS)}:{self.line}"


def parts(page: Path) -> Iterator[Block | Step]:
    """Blocks and steps, in the order of the page."""
    content = page.read_text()
    for found in _PARTS.finditer(content):
        line = content.count("\n", 0, found.start()) + 1
        if found["step"] is not None:
            yield Step(page, line, found["step"])
            continue
        depth = len(found["indent"])
        text = "".join(row[depth:] for row in found["text"].splitlines(keepends=True))
        yield Block(page, line, found["language"], found["title"] or "", text)


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of these languages."""
    found = [part for part in parts(page) if isinstance(part, Block)]
    return [block for block in found if block.language in languages]
