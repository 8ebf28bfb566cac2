"""The tests lie as the code lies, stand on their own, and look at behaviour alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source import ROOT, nodes

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("test_*.py"))

# Folders of tests/unit that are not about a package: what they are about instead.
ELSEWHERE = {
    "benchmarks": "benchmarks",
    "project": "realtime_project",
}
# Unit tests that are about no single module.
ABOUT_NO_MODULE = {
    "docs": "what the documentation says",
    "test_layout.py": "this",
    "test_static_files.py": "the files under static/ of both apps",
    "protocol/test_serializer_golden.py": "frames of realtime.protocol.serializer, byte for byte",
}
# Private by name only: parts of other libraries that have no other name.
OF_LIBRARIES = {
    "_base_manager",  # Django, documented
    "_default_manager",  # Django, documented
    "_meta",  # Django, documented
    "_base_scope",  # Django's AsyncRequestFactory, the only way to another client address
    "_raw_query_string",  # autobahn, for a protocol that is made without a connection
    "_on",  # the PyPI package realtime, before it had on_system
    "_ws_connection",  # the same, the only way to lose its connection
    "_tempDataBuffer",  # Twisted, what a transport has not sent
}


def sources(paths: list[Path]) -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    for path in paths:
        yield str(path.relative_to(ROOT)), nodes(path)


def unit_tests() -> list[str]:
    here = TESTS / "unit"
    return [str(path.relative_to(here)) for path in MODULES if here in path.parents]


def _module_of(test: str) -> Path:
    """Where the module lies that a unit test is about. Tests of one module that have several ideas
    fill a folder of its name."""
    folder, name = Path(test).parent, Path(test).name.removeprefix("test_")
    if _place_of(folder.parent, f"{folder.name}.py").is_file():
        return _place_of(folder.parent, f"{folder.name}.py")
    return _place_of(folder, name)


def _place_of(folder: Path, name: str) -> Path:
    if folder.parts and folder.parts[0] in ELSEWHERE:
        return ROOT / ELSEWHERE[folder.parts[0]] / Path(*folder.parts[1:]) / name
    if folder.parts and folder.parts[0] == "auth_rls":
        return ROOT / folder / name
    return ROOT / "realtime" / folder / name


@pytest.mark.parametrize("test", unit_tests())
def test_a_unit_test_is_called_after_the_module_it_is_about(test: str) -> None:
    if test in ABOUT_NO_MODULE or Path(test).parts[0] in ABOUT_NO_MODULE:
        return
    module = _module_of(test)
    assert module.is_file() or module.with_suffix("").is_dir(), f"{test}: there is no {module}"


def test_the_integration_tests_lie_in_the_folders_of_the_code() -> None:
    here = TESTS / "integration"
    about_several = {"auth_rls/agreement", "auth_rls/commands", "demo"}
    for folder in {path.parent.relative_to(here) for path in MODULES if here in path.parents}:
        if str(folder) in about_several:
            continue
        inside = folder.parts and folder.parts[0] == "auth_rls"
        assert (ROOT if inside else ROOT / "realtime").joinpath(folder).is_dir(), folder


def test_no_test_module_imports_another() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, inside in sources(sorted(TESTS.rglob("*.py")))
        for node in inside
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and (".test_" in f".{node.module}" or node.module.endswith("conftest"))
    ]
    assert found == []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_LIBRARIES


def _touches(inside: tuple[ast.AST, ...]) -> Iterator[tuple[int, str]]:
    """Private names of others that a module imports, reads or replaces."""
    for node in inside:
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if _is_private(alias.name):
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("patch.setattr"):
            for argument in node.args[:2]:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(value, str) and _is_private(value.rpartition(".")[2]):
                    yield node.lineno, ast.unparse(argument)


def test_no_test_touches_what_is_private_to_another_module() -> None:
    found = [
        f"{path}:{line} {name}"
        for path, inside in sources(sorted(TESTS.rglob("*.py")))
        for line, name in _touches(inside)
    ]
    assert found == []


def _replaced(inside: tuple[ast.AST, ...]) -> Iterator[tuple[int, str]]:
    """Constants of others that a module replaces."""
    for node in inside:
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("patch.setattr"):
            for argument in node.args[:2]:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(value, str) and value.rpartition(".")[2].isupper():
                    yield node.lineno, value


def test_no_test_replaces_a_constant() -> None:
    """Timings and sizes are passed in."""
    found = {
        (path, name)
        for path, inside in sources(sorted(TESTS.rglob("*.py")))
        for _, name in _replaced(inside)
    }
    # What a process has counted until now, not how much it may.
    assert found == {("tests/integration/auth_rls/access/test_audit_log.py", "LIMIT")}


def test_tokens_are_made_in_one_place() -> None:
    makers = [
        path
        for path, inside in sources(sorted(TESTS.rglob("*.py")))
        for node in inside
        if isinstance(node, ast.FunctionDef) and node.name == "token"
    ]
    assert makers == ["tests/support/tokens.py"]
