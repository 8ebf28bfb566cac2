"""The site builds strictly, every link leads somewhere, and a page loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT

BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly_with_every_page_and_a_search(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs")
        assert (site / path).is_file(), f"{path}: its source is beside it"
        html = site / path.with_suffix("") / "index.html"
        assert html.is_file() or (site / path).with_name("index.html").is_file(), path
    assert (site / "search" / "search_index.json").stat().st_size > 10_000


@pytest.mark.slow
def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\s>]*")
    for page in site.rglob("*.html"):
        found = [tag for tag in loads.findall(page.read_text()) if 'rel="canonical"' not in tag]
        assert found == [], page.name


@pytest.mark.slow
def test_llms_txt_names_every_page_of_the_navigation_and_is_up_to_date(site: Path) -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "llms.py"))["text"]()
    assert (site / "llms.txt").read_text() == written, "run scripts/llms.py"
    for target in re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", written, re.M):
        assert (site / target).is_file(), target


def test_every_link_of_the_repository_s_pages_leads_to_a_file() -> None:
    pages = [ROOT / name for name in BESIDE] + sorted((ROOT / "docs").rglob("*.md"))
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text())
        if "://" not in target and not target.startswith("/")
        if not (page.parent / target).resolve().exists()
    ]
    assert broken == []
