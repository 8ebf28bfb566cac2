"""Writes docs/llms.txt: the site's pages in the order of its navigation, each in one line.

For programs that read documentation; the form is that of llmstxt.org. The links lead to the pages'
sources, which the site has beside its pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "llms.txt"
_OUTSIDE = {"changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md"}
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def _pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
            continue
        for inside in entry.values():
            yield from [inside] if isinstance(inside, str) else _pages(inside)


def _line(page: str) -> str:
    source = ROOT / _OUTSIDE[page] if page in _OUTSIDE else ROOT / "docs" / page
    title, _, rest = source.read_text().removeprefix("# ").partition("\n")
    plain = [
        part
        for part in rest.strip().split("\n\n")
        if not part.startswith(("#", "|", "```", "!", "<!--", "1.", "- "))
    ]
    paragraph = _LINK.sub(r"\1", " ".join(plain[0].split())) if plain else ""
    sentence = re.split(r"(?<=[.?]) ", paragraph, maxsplit=1)[0].rstrip(":")
    return f"- [{title}]({page}): {sentence}" if sentence else f"- [{title}]({page})"


def text() -> str:
    """The file, from mkdocs.yml and the pages."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    parts = [f"# {site['site_name']}", f"> {site['site_description']}"]
    for entry in site["nav"]:
        for title, inside in entry.items():
            # The first page alone stands above the sections: it is the summary.
            if isinstance(inside, list):
                lines = "\n".join(_line(page) for page in _pages(inside))
                parts.append(f"## {title}\n\n{lines}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
