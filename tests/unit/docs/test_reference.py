"""The reference lists every setting, command, close code, error and public name, and no other."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from ast import literal_eval
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

import auth_rls.rest
import auth_rls.shapes
import realtime.testing
from auth_rls import conf as auth_conf
from realtime.client_limits import Limits
from realtime.conf import Settings
from realtime.protocol import errors, join
from realtime.protocol.errors import CloseCode, WireError
from tests.support.source import ROOT

REFERENCE = ROOT / "docs" / "reference"


def section(page: str, title: str) -> str:
    text = (REFERENCE / page).read_text()
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a section, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rules = [index for index, line in enumerate(lines) if re.fullmatch(r"[|\s:-]+", line)]
    heads = {index for rule in rules for index in (rule - 1, rule)}
    return [row for index, row in enumerate(cells) if index not in heads]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def defaults(cls: Any) -> dict[str, Any]:
    made = cls()
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(cls)}


def written(cell: str) -> Any:
    return literal_eval(cell.strip("`").replace(",", "") if cell[0].isdigit() else cell.strip("`"))


def test_every_key_of_realtime_is_listed_with_its_default() -> None:
    known = defaults(Settings)
    found = {names(row[0])[0]: row[1] for row in rows(section("settings.md", "REALTIME"))}
    assert set(found) == set(known)
    del known["LIMITS"]
    assert {name: written(found[name]) for name in known} == known


def test_every_limit_is_listed_with_its_default() -> None:
    found = {names(row[0])[0]: written(row[1]) for row in rows(section("settings.md", "LIMITS"))}
    assert found == defaults(Limits)


def test_every_key_of_auth_rls_is_listed() -> None:
    found = [name for row in rows(section("settings.md", "AUTH_RLS")) for name in names(row[0])]
    assert sorted(found) == sorted(auth_conf.KEYS)


COMMANDS = sorted(name for name, app in get_commands().items() if app in ("realtime", "auth_rls"))


def options(name: str) -> set[str]:
    command: BaseCommand = load_command_class(get_commands()[name], name)  # type: ignore[arg-type]
    own = argparse.ArgumentParser()
    command.add_arguments(own)  # type: ignore[arg-type]
    found = re.findall(r"(?<![\w-])--[\w-]+", own.format_help())
    return set(found) - {"--help"}


def test_every_command_has_a_section_and_no_other() -> None:
    text = (REFERENCE / "commands.md").read_text()
    assert sorted(re.findall(r"^## `(\w+)`$", text, re.M)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_listed_and_no_other(name: str) -> None:
    listed = {names(row[0])[0].split()[0] for row in rows(section("commands.md", f"`{name}`"))}
    assert listed == options(name)


def test_every_close_code_is_listed_with_its_meaning_and_no_other() -> None:
    found = {int(row[0]): row[1] for row in rows(section("errors.md", "Close codes"))}
    known = {int(code): code.meaning for code in CloseCode}
    assert set(found) == set(known)
    assert all(known[code] == meaning for code, meaning in found.items())


def test_every_error_of_a_reply_is_listed_and_no_other() -> None:
    found = [
        ("".join(names(row[0])), names(row[1])[0])
        for row in rows(section("errors.md", 'Replies of status "error"'))
    ]
    assert sorted(found) == sorted(error.value for error in WireError)


def test_the_texts_of_system_messages_are_those_of_the_code() -> None:
    texts = [
        errors.SUBSCRIBED,
        errors.DISCONNECT,
        errors.SELECT_ON_WILDCARD,
        errors.SELECT_NOT_A_LIST,
        errors.filter_unreadable(""),
        errors.no_parameters({}),
        errors.not_published(""),
        errors.subscribing_failed("", ""),
        errors.subscription_ended("", ""),
        join.LIVE_NEEDS_ALL_EVENTS,
        join.SNAPSHOT_NEEDS_INSERTS,
    ]
    listed = [names(row[0])[0] for row in rows(section("errors.md", "System messages"))]
    for text in texts:
        assert any(text.startswith(beginning) for beginning in listed), text


def public() -> dict[str, set[str]]:
    """By module, the names that a project may use."""
    return {
        "realtime": set(realtime.__all__),
        "auth_rls": set(auth_rls.__all__),
        "auth_rls.shapes": {"ownership", "public_read", "tenant", "membership"},
        "auth_rls.managers": {"PolicyQuerySet", "PolicyManager"},
        "auth_rls.middleware": {"SubjectMiddleware", "accepts_tokens", "authenticates_itself"},
        "auth_rls.rest": set(auth_rls.rest.__all__),
        "realtime.testing": set(realtime.testing.__all__),
    }


@pytest.mark.parametrize("module", public())
def test_every_public_name_is_on_the_page_about_python_with_a_docstring(module: str) -> None:
    found = re.findall(r"^::: (.+)\.(\w+)$", section("python.md", module), re.M)
    assert {name for _, name in found} == public()[module]
    for home, name in found:
        value = getattr(import_module(home), name)
        assert value is getattr(import_module(module), name)
        assert inspect.getdoc(value), name


def test_the_pages_of_docs_are_found_where_messages_name_them() -> None:
    """A hint or docstring that names a page names one that exists."""
    for app in ("realtime", "auth_rls"):
        for path in (ROOT / app).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text()):
                assert Path(ROOT / page).is_file(), f"{path}: {page}"
