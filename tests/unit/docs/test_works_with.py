"""docs/reference/works-with.md lists every host project and tested client, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.acceptance.support.client_versions import CHECKS, checks, javascript, python

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "reference" / "works-with.md").read_text()


def test_every_host_project_is_listed_and_no_other() -> None:
    table = TEXT.split("\n## ", 1)[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.M)
    projects = ROOT / "tests" / "hosts" / "projects"
    assert listed == sorted(path.name for path in projects.iterdir() if path.is_dir())


# What the page calls the checks that a version is not put through.
CALLED = {"private channels": {"private"}, "rejoin": {"reconnect"}, "names tables": CHECKS}


def test_every_version_of_a_client_is_listed_with_what_it_cannot_do_and_no_other() -> None:
    section = TEXT.split("\n## Clients\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([@/\w-]+)`(?: \(Python\))? \| ([\d.]+) \| (.*)\|$", section, re.M)
    tested = {
        (f"@supabase/{alias.rpartition('-')[0]}", version): alias
        for alias, version in javascript().items()
    }
    tested |= {("realtime", version): version for version in python()}
    assert [(package, version) for package, version, _ in rows] == list(tested)
    for package, version, lacking in rows:
        left_out = CHECKS - checks(tested[package, version])
        called = [what for name, what in CALLED.items() if name in lacking]
        assert bool(left_out) == bool(lacking.strip()), version
        assert all(left_out & what for what in called) and bool(called) == bool(left_out), version
