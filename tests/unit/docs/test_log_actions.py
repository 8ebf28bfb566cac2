"""Every line that is logged carries an action, and every action stands in the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.support.source import ROOT, modules, nodes

APPS = ("realtime", "auth_rls", "demo")
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in modules(*APPS):
        for node in nodes(path):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def logged() -> Iterator[tuple[str, ast.Call]]:
    for place, call in calls():
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            owner = function.value
            if isinstance(owner, ast.Name) and owner.id.endswith(("logger", "logging", "log")):
                yield place, call


def action(call: ast.Call) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == "extra" and ast.unparse(keyword.value) == "asdict(event)":
            # A policy's event has an action among its fields, and a test of its own.
            return keyword.value
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            for key, value in pairs:
                if isinstance(key, ast.Constant) and key.value == "action":
                    return value
    return None


def actions() -> set[str]:
    """The actions in the source: those of log lines, of outages, and of what sessions note."""
    found = [action(call) for _, call in logged()]
    for _, call in calls():
        if isinstance(call.func, ast.Name) and call.func.id == "Note" and call.args:
            found.append(call.args[0])
        if isinstance(call.func, ast.Name) and call.func.id == "OutageLog":
            names = ("failing_action", "works_action")
            found += [keyword.value for keyword in call.keywords if keyword.arg in names]
    return {str(value.value) for value in found if isinstance(value, ast.Constant)}


def test_every_line_that_is_logged_carries_an_action() -> None:
    places = dict(logged())
    assert len(places) > 50
    assert [place for place, call in places.items() if action(call) is None] == []


def test_the_documentation_lists_every_action_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "operations.md").read_text()
    table = text.partition("| action | said when |")[2].partition("\n\n")[0]
    documented = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.split("\n")[2:]))
    assert len(documented) == len(set(documented))
    assert set(documented) == actions()


def test_an_action_is_one_lower_case_word_or_several() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in actions())
