"""Every page of the documentation that the admin links to exists, with the part that is named."""

from __future__ import annotations

import re
import tomllib

import pytest

from auth_rls.documentation import SITE, page
from tests.support.source import ROOT

DOCS = ROOT / "docs"


def linked() -> list[str]:
    found: set[str] = set()
    for path in (*ROOT.glob("auth_rls/admin/*.py"), *ROOT.glob("realtime/admin/*.py")):
        text = path.read_text()
        found |= set(re.findall(r'page\("([^"]+)"\)', text))
        found |= set(re.findall(r'documentation = "([^"]+)"', text))
    return sorted(found)


def test_links_are_looked_for() -> None:
    assert {"reference/policies", "reference/capture"} <= set(linked())


@pytest.mark.parametrize("name", linked())
def test_the_page_is_there(name: str) -> None:
    file, _, part = name.partition("#")
    text = (DOCS / f"{file}.md").read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert not part or part in anchors
    assert page(name) == f"{SITE}{file}/" + (f"#{part}" if part else "")


def test_the_site_is_the_one_that_the_distribution_names() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert urls["Documentation"] == SITE
