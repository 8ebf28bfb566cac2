"""The code of the pages can be read by its language, and what it imports is there."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.support.pages import DOCS, Block, blocks

PAGES = sorted(DOCS.rglob("*.md"))
# Parses modules and runs nothing. A page's own pieces (`accessToken`) are found by no linker here.
PARSE = """
import vm from "node:vm";
import { readFileSync } from "node:fs";
const failures = [];
for (const [place, text] of JSON.parse(readFileSync(0, "utf8"))) {
  try { new vm.SourceTextModule(text); }
  catch (error) { failures.push(`${place}: ${error.message}`); }
}
process.stdout.write(JSON.stringify(failures));
"""


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def ours(tree: ast.Module) -> list[tuple[str, str]]:
    """What a block imports from Rowcast, as (module, name)."""
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        if node.module.split(".")[0] in ("realtime", "auth_rls")
        for alias in node.names
    ]


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_compiles_and_what_it_imports_of_rowcast_exists(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    for module, name in ours(tree):
        assert hasattr(import_module(module), name), f"{block}: {module} has no {name}"


def test_javascript_of_tutorial_and_how_tos_parses() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js")
    shown = [
        [str(block), block.text]
        for block in all_blocks("js")
        if block.page.parent.name in ("tutorial", "how-to") or block.page.name == "wire.md"
    ]
    assert len(shown) > 6
    done = subprocess.run(
        [node, "--experimental-vm-modules", "--no-warnings", "--input-type=module", "-e", PARSE],
        input=json.dumps(shown),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=str)
def test_yaml_can_be_read(block: Block) -> None:
    assert all(isinstance(part, dict) for part in yaml.safe_load_all(block.text))


def test_blocks_that_write_a_file_have_a_place_in_the_folder() -> None:
    for page in PAGES:
        for block in blocks(page, "python", "html", "js", "jsx", "json"):
            name = block.title.removesuffix(", at the end")
            assert not Path(name).is_absolute() and ".." not in Path(name).parts, block
