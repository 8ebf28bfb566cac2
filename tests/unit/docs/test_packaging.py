"""Metadata, changelog, lists of requirements and pages say the same of the distribution."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import realtime
from tests.support.source import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs" / "reference" / "works-with.md").read_text()


def names(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z][\w.-]*", line.strip()) for line in lines)
    return {match.group().lower() for match in found if match}


def test_the_version_stands_in_one_place_and_has_its_changes() -> None:
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "realtime.__version__"}
    first = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first.group(1).startswith(realtime.__version__)


def test_the_groups_name_what_development_installs() -> None:
    groups = PROJECT["dependency-groups"]
    grouped = {name for name, group in groups.items() if name != "dev" for name in names(group)}
    pinned = names((ROOT / "requirements-dev.txt").read_text().splitlines())
    deployed = names((ROOT / "requirements.txt").read_text().splitlines())
    assert pinned <= grouped <= pinned | deployed
    assert {each["include-group"] for each in groups["dev"]} == set(groups) - {"dev"}


def classified(framework: str) -> set[str]:
    found = PROJECT["project"]["classifiers"]
    return {
        name.rpartition(" ")[2] for name in found if re.match(rf"{framework} :: \d\.\d+$", name)
    }


def listed_as_tested(row: str) -> set[str]:
    """The versions that the table of versions says are tested."""
    line = re.search(rf"^\| {row} \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert line is not None
    return set(re.findall(r"\d\.\d+", line.group(1)))


def test_what_is_tested_is_classified() -> None:
    assert listed_as_tested("Python") <= classified("Programming Language :: Python")
    assert listed_as_tested("Django") <= classified("Framework :: Django")


def test_the_support_table_has_everything_a_deployment_chooses() -> None:
    table = PAGE.split("\n## Versions\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([\w-]+) \|", table, re.MULTILINE)
    assert {"Python", "Django", "SQLite", "PostgreSQL", "Redis"} <= set(rows)
