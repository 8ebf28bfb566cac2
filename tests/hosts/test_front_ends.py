"""The front ends of the how-to, built by Vite from their npm packages, in a browser.

One project, one server and one build serve them all; each test writes its own row, as another
program would.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.support.devtools import Browser, Page
from tests.hosts.helpdesk import PATIENCE, Project, Server
from tests.support import node
from tests.support.at_hand import without
from tests.support.pages import DOCS, Block, blocks
from tests.support.source import ROOT

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
PAGE = DOCS / "how-to" / "front-ends.md"
TUTORIAL = DOCS / "tutorial" / "3-react.md"
PACKAGES = Path(__file__).parent / "front_ends" / "node_modules"

# What mounts the page's components, by the section of the page that has them.
MAIN = {
    "React": (
        'import { StrictMode, createElement } from "react";\n'
        'import { createRoot } from "react-dom/client";\n'
        'import { Board } from "./Board.jsx";\n'
        'const root = createRoot(document.querySelector("#root"));\n'
        "root.render(createElement(StrictMode, null, createElement(Board)));\n"
    ),
    "Vue": (
        'import { createApp } from "vue";\n'
        'import Board from "./Board.vue";\n'
        'createApp(Board).mount("#root");\n'
    ),
    "Svelte": (
        'import { mount } from "svelte";\n'
        'import Board from "./Board.svelte";\n'
        'mount(Board, { target: document.querySelector("#root") });\n'
    ),
    "No framework": "",
}
HTML = """<!doctype html>
<html lang="en">
  <title>Tickets</title>
  <div id="root"><p id="status"></p><ul id="tickets"></ul></div>
  <script type="module" src="./src/main.js"></script>
</html>
"""
CONFIG = """
import { svelte } from "@sveltejs/vite-plugin-svelte";
import react from "@vitejs/plugin-react";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/static/web/",
  plugins: [react(), vue(), svelte()],
  build: { outDir: OUT, emptyOutDir: true, minify: false, rollupOptions: { input: INPUT } },
});
"""
URLS = """
from desk.views import ticket_rows
urlpatterns += [
    path("tickets/rows/", ticket_rows),
    path("fragments/", TemplateView.as_view(template_name="desk/fragments.html")),
]
"""
SIGN_IN = """(() => {
  const form = document.querySelector("#login-form");
  form.elements.username.value = "ada";
  form.elements.password.value = "demo";
  form.submit();
})()"""


def sections() -> dict[str, list[Block]]:
    """The page's blocks by the heading above them."""
    content = PAGE.read_text()
    headings = [
        (content.count("\n", 0, found.start()) + 1, found[1])
        for found in re.finditer(r"^## (.+)$", content, re.MULTILINE)
    ]
    found: dict[str, list[Block]] = {}
    for block in blocks(PAGE, "js", "jsx", "vue", "svelte", "html", "python"):
        above = [name for line, name in headings if line < block.line]
        found.setdefault(above[-1] if above else "", []).append(block)
    return found


def folder_of(section: str) -> str:
    return section.lower().replace(" ", "_")


def build(project: Project) -> None:
    """Build the sections that Vite is for into the project's static files."""
    if reason := node.missing():
        without(f"the front ends are not built: {reason}")
    if not (PACKAGES / "vite").is_dir():
        without("the packages of the front ends are not installed: run scripts/test")
    web = project.folder / "web"
    parts = sections()
    (shared,) = parts[""]
    for section, main in MAIN.items():
        place = web / folder_of(section)
        shutil.copytree(ROOT / "realtime" / "static" / "realtime", place / "src" / "realtime")
        (place / "index.html").write_text(HTML)
        (place / "src" / "main.js").write_text(main)
        for block in (shared, *parts[section]):
            (place / block.title).write_text(block.text)
    (web / "node_modules").symlink_to(PACKAGES)
    out = project.folder / "desk" / "static" / "web"
    entries = [f"{folder_of(section)}/index.html" for section in MAIN]
    config = CONFIG.replace("OUT", json.dumps(str(out))).replace("INPUT", json.dumps(entries))
    (web / "vite.config.js").write_text(config)
    done = subprocess.run(
        ["node", "node_modules/vite/bin/vite.js", "build"],
        cwd=web,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def write_views(project: Project) -> None:
    """The token of the tutorial, and the view and templates of the fragments."""
    for block in blocks(TUTORIAL, "python"):
        project.write(block)
    (view, *templates) = sections()["Fragments of a Django template"]
    views = project.folder / "desk" / "views.py"
    views.write_text(f"{views.read_text()}\n{view.text}")
    for template in templates:
        project.write(template)
    urls = project.folder / "helpdesk" / "urls.py"
    urls.write_text(urls.read_text() + URLS)


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project.migrated(tmp_path_factory.mktemp("front_ends"), installed)
    write_views(made)
    build(made)
    return made


@pytest.fixture(scope="module")
def person(project: Project, browser: Browser) -> Iterator[Page]:
    """Ada, signed in."""
    server = Server(project)
    page = browser.new_page()
    page.go(f"{server.url}/accounts/login/")
    page.run(SIGN_IN)
    page.wait("!document.querySelector('#login-form')")
    yield page
    page.close()
    server.close()


@pytest.fixture
def write(project: Project) -> Iterator[Callable[..., None]]:
    """Executes SQL, as another program does."""
    path = project.folder / "db.sqlite3"
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as link:

        def execute(sql: str, *values: str) -> None:
            with link:
                link.execute(sql, values)

        yield execute
        execute("DELETE FROM desk_ticket")


INSERT = (
    "INSERT INTO desk_ticket (title, status, internal_note, owner_id) "
    "SELECT ?, 'open', '', id FROM auth_user WHERE username = 'ada'"
)
PATHS = {
    **{section: f"/static/web/{folder_of(section)}/index.html" for section in MAIN},
    "Fragments of a Django template": "/fragments/",
}


@pytest.mark.parametrize("section", PATHS)
def test_a_row_comes_changes_and_goes(
    person: Page, write: Callable[..., None], section: str
) -> None:
    write(INSERT, "The lamp")
    person.go(person.run("location.origin") + PATHS[section])
    shown = "document.body.innerText"
    person.wait(f"{shown}.includes('live') && {shown}.includes('The lamp: open')")
    write(INSERT, "The chair")
    person.wait(f"{shown}.includes('The chair: open') && {shown}.includes('The lamp: open')")
    write("UPDATE desk_ticket SET status = 'done' WHERE title = ?", "The lamp")
    person.wait(f"{shown}.includes('The lamp: done') && !{shown}.includes('The lamp: open')")
    write("DELETE FROM desk_ticket WHERE title = ?", "The lamp")
    person.wait(f"!{shown}.includes('The lamp') && {shown}.includes('The chair: open')")


def test_every_section_with_code_is_run() -> None:
    assert set(sections()) - {""} == set(PATHS)
