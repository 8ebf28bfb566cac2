"""A database's own words go to the log; clients and pages are told a class of failure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import utils

from auth_rls.sql.failures import first_line, public_reason
from tests.support.source import ROOT, parsed

WORDS = (
    'connection to server at "10.1.2.3", port 5432 failed: role "app" SELECT secret FROM shop_order'
)
# Errors that a database raises, by the names that handlers catch them by.
CAUGHT = {
    *("DATABASE_ERRORS", "DatabaseError", "DataError", "OperationalError", "InterfaceError"),
    *("IntegrityError", "ProgrammingError"),
}
# What may be given such an error: the log, and what turns it into a text for others.
MAY_HAVE_IT = {
    *("debug", "info", "warning", "error", "exception", "log"),
    *("public_reason", "reason", "isinstance", "_sqlstate"),
    # Keeps the words apart, for checks.
    "_unanswered",
    # Told to another process of ours, which logs it.
    "Answer",
    # They log it.
    *("_note", "_failed", "failed", "_refuse"),
}


@pytest.mark.parametrize(
    "kind",
    [
        utils.DatabaseError,
        utils.DataError,
        utils.IntegrityError,
        utils.InterfaceError,
        utils.InternalError,
        utils.NotSupportedError,
        utils.OperationalError,
        utils.ProgrammingError,
        OSError,
        LookupError,
        ConnectionRefusedError,
    ],
)
def test_no_error_of_a_database_tells_its_host_its_names_or_its_sql(kind: type[Exception]) -> None:
    text = public_reason(kind(WORDS))
    assert text.startswith(("the database ", "a table or column "))
    for word in ("10.1.2.3", "5432", "app", "secret", "shop_order", "SELECT"):
        assert word not in text


def test_a_value_that_no_database_stores_is_named() -> None:
    assert public_reason(ValueError("a NUL is no text\nmore")) == "a NUL is no text"


def test_a_pattern_that_the_database_cannot_read_is_named() -> None:
    error = utils.DataError(
        "invalid regular expression: parentheses () not balanced\nLINE 1: SELECT"
    )
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": "2201B"})()
    assert public_reason(error) == "invalid regular expression: parentheses () not balanced"


def test_an_error_without_words_is_named_by_its_class() -> None:
    assert first_line(utils.DatabaseError()) == "DatabaseError"
    assert public_reason(SimpleNamespace(__cause__=None)) != ""  # type: ignore[arg-type]


def handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None and node.name:
            names = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            if names & CAUGHT:
                yield node


def uses_elsewhere(handler: ast.ExceptHandler) -> list[int]:
    """The lines where the error goes to anything but the log."""
    allowed = set()
    for node in ast.walk(handler):
        if isinstance(node, ast.Call):
            function = node.func
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", "")
            )
            if name in MAY_HAVE_IT:
                allowed |= {id(part) for part in ast.walk(node)}
        elif isinstance(node, ast.Raise) and node.cause is not None:
            allowed |= {id(part) for part in ast.walk(node.cause)}
    return [
        node.lineno
        for node in ast.walk(handler)
        if isinstance(node, ast.Name) and node.id == handler.name and id(node) not in allowed
    ]


def test_nothing_that_answers_clients_or_pages_uses_a_database_s_own_words() -> None:
    found = {}
    places = 0
    for app in ("realtime", "auth_rls"):
        for path in sorted((ROOT / app).rglob("*.py")):
            # A command is run by an operator.
            if "management" in path.parts:
                continue
            for handler in handlers(parsed(path)):
                places += 1
                if lines := uses_elsewhere(handler):
                    found[str(path.relative_to(ROOT))] = lines
    assert places > 15
    assert found == {}
