"""The calculator: docs/scaling.md has its tables, and options that make no sense are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import capacity, constants


def called(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["capacity", *options])
    capacity.main()


def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> dict[str, Any]:
    file = tmp_path / "found.json"
    called(monkeypatch, *options, "--json", str(file))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_tables_of_the_page_are_what_the_calculator_finds() -> None:
    text = capacity.DOC.read_text()
    fresh = capacity.with_tables(text, constants.load())
    assert text == fresh, "run: python -m benchmarks.capacity --write"


def test_the_page_says_every_constant() -> None:
    text = capacity.DOC.read_text()
    assert [name for name in constants.SOURCES if text.count(f"`{name}`") < 2] == []


def test_a_page_without_a_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has no part between <!-- machine"):
        capacity.with_tables("# Scaling\n", constants.load())


def test_a_workload_is_told_in_a_table_and_in_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(monkeypatch, tmp_path, "--sockets", "100000", "--changes", "1000")
    said = capsys.readouterr().out
    names = [part["name"] for part in found["estimate"]["parts"]]
    assert {"database CPU", "tailer", "Redis CPU", "server CPU", "server memory"} < set(names)
    assert all(f"| {name} " in said for name in names)
    assert f"servers needed: {found['servers_needed']:,}" in said
    assert f"relieve: {found['estimate']['first']['name']}" in said


def test_more_of_anything_takes_no_fewer_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = ["--sockets", "50000", "--changes", "100", "--matches", "1000"]
    least = asked(monkeypatch, tmp_path, *base)["servers_needed"]
    for more in (["--presence", "200"], ["--session-minutes", "1"], ["--used", "0.3"]):
        assert asked(monkeypatch, tmp_path, *base, *more)["servers_needed"] >= least


def test_the_servers_that_are_there_are_taken_as_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--sockets", "1000", "--changes", "100", "--matches", "all", "--servers", "1"]
    found = asked(monkeypatch, tmp_path, *options, "--machine-gb", "0.1")
    assert found["estimate"]["servers"] == 1 and not found["estimate"]["enough"]
    assert "too much" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--matches", "many"], "--matches must be a number or all, not 'many'"),
        (["--sockets", "0"], "--sockets and --servers must be at least 1"),
        (["--used", "1.5"], "--used must be more than 0 and at most 1"),
        (["--poll-interval", "0"], "--poll-interval must be at least 0.001"),
        (["--database-cores", "0"], "--database-cores must be more than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    with pytest.raises(SystemExit):
        called(monkeypatch, *options)
    assert words in capsys.readouterr().err


def test_a_file_of_no_use_ends_the_program_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "old.json"
    file.write_text("{}")
    with pytest.raises(SystemExit, match=r"old\.json does not say which benchmark"):
        called(monkeypatch, "--from", str(file))
