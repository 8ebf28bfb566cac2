"""docs/works-with.md lists every host project that is tested, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "works-with.md").read_text()


def test_every_host_project_is_listed_and_no_other() -> None:
    table = TEXT.split("\n## ", 1)[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.M)
    projects = ROOT / "tests" / "hosts" / "projects"
    assert listed == sorted(path.name for path in projects.iterdir() if path.is_dir())
