"""What MkDocs is told beyond mkdocs.yml: pages that lie outside of docs/, and links to there.

On GitHub and in an editor a page links to a file of the repository by its path. The site has the
pages of ROOT_PAGES; a link to any other file outside of docs/ becomes its text.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Files beside docs/ that are pages of the site.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text()
        # Seen from the root of docs/ its links lead where they did from beside it.
        text = text.replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith(("/", "mailto:")):
            return match[0]
        path = posixpath.normpath(posixpath.join("docs", here, target))
        if path in ROOT_PAGES:
            return f"[{text}]({posixpath.relpath(ROOT_PAGES[path], here or '.')}{anchor})"
        if path.startswith("docs/") or (here == "" and target in ROOT_PAGES.values()):
            return match[0]
        return text

    return _LINK.sub(inside, markdown)


def on_post_build(config: Any) -> None:
    """Beside each page its source, which llms.txt names."""
    docs, site = Path(config["docs_dir"]), Path(config["site_dir"])
    for source in docs.rglob("*.md"):
        copy = site / source.relative_to(docs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    for name, page in ROOT_PAGES.items():
        shutil.copy(ROOT / name, site / page)
