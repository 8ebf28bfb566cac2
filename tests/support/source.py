"""The project's own source, for tests that look at how it is written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file, from the outermost on."""
    return tuple(ast.walk(parsed(path)))


def modules(*folders: str) -> Iterator[Path]:
    """The Python files below these folders of the project, in order."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))
