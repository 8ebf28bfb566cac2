"""What docs/architecture.md names exists: packages, files, classes and functions."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
# Made by tools or outside of what a package owns.
OUTSIDE = {"management", "migrations", "static", "templates", "locale", "__pycache__"}


def section(title: str) -> str:
    """The text of one `##` section."""
    return TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def defined(path: str) -> set[str]:
    """The names of a module's classes and functions, methods as `Class.method`."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(f"{node.name}.{part.name}")
    return names


def answers() -> list[tuple[str, list[str]]]:
    """Each question with what stands in backquotes behind it."""
    return [
        (question, re.findall(r"`([^`]+)`", answer)) for question, answer in rows("Where is ...")
    ]


@pytest.mark.parametrize(("question", "places"), answers())
def test_every_answer_names_files_and_functions_that_exist(
    question: str, places: list[str]
) -> None:
    assert places and places[0].endswith(".py"), question
    path = ""
    for place in places:
        if place.endswith(".py"):
            path = place
            assert (ROOT / path).is_file(), path
        else:
            assert place in defined(path), f"{path} has no {place}"


def test_at_least_twenty_questions_are_answered() -> None:
    assert len(answers()) >= 20


def test_every_package_stands_on_the_map_and_every_link_leads_to_one() -> None:
    linked = {link.strip("/") for link in re.findall(r"\(\.\./([^)]+)\)", section("The map"))}
    packages = {
        str(path.parent.relative_to(ROOT))
        for app in ("realtime", "auth_rls")
        for path in (ROOT / app).rglob("__init__.py")
        if not OUTSIDE & set(path.relative_to(ROOT).parts)
    }
    vendors = {"realtime/wal/sqlite", "realtime/wal/postgresql"}
    assert linked == packages - {"realtime", "auth_rls"} - vendors
