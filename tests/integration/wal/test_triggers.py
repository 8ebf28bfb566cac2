"""`realtime_triggers` as people run it."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from realtime import checks
from realtime.wal import triggers
from tests.support.captured_models import changes, states
from tests.zoo.models import Team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def installed(db: Any) -> Iterator[None]:
    triggers.reconcile()
    yield


def run(*args: str, **options: Any) -> str:
    out = StringIO()
    call_command("realtime_triggers", *args, stdout=out, no_color=True, **options)
    return out.getvalue()


# As `list` names them: one that is dropped, one that is spoilt, and one that nobody wants.
if connection.vendor == "sqlite":
    INSERT, UPDATE, UNKNOWN = "rowcast_zoo_team_i", "rowcast_zoo_team_u", "rowcast_unknown_u"
    NOTHING = "AFTER UPDATE ON zoo_team BEGIN SELECT 1; END"
    BREAK = (
        f"DROP TRIGGER {INSERT}",
        f"DROP TRIGGER {UPDATE}",
        f"CREATE TRIGGER {UPDATE} {NOTHING}",
        f"CREATE TRIGGER {UNKNOWN} {NOTHING}",
    )
else:
    INSERT, UPDATE, UNKNOWN = "00_rowcast_insert", "00_rowcast_update", "00_rowcast_unknown"
    NOTHING = "AFTER UPDATE ON zoo_team FOR EACH STATEMENT EXECUTE FUNCTION rowcast_zoo_team()"
    BREAK = (
        f'DROP TRIGGER "{INSERT}" ON zoo_team',
        f'DROP TRIGGER "{UPDATE}" ON zoo_team',
        f'CREATE TRIGGER "{UPDATE}" {NOTHING}',
        f'CREATE TRIGGER "{UNKNOWN}" {NOTHING}',
    )


def break_one_of_each() -> None:
    with connection.cursor() as cursor:
        for statement in BREAK:
            cursor.execute(statement)


def test_list_names_every_trigger_with_its_table_and_state() -> None:
    lines = run("list").splitlines()
    assert f"installed  zoo_team  {INSERT}" in lines
    assert len(lines) == len(triggers.status())
    break_one_of_each()
    lines = run("list").splitlines()
    assert f"missing    zoo_team  {INSERT}" in lines
    assert f"stale      zoo_team  {UPDATE}" in lines
    assert f"orphan     zoo_team  {UNKNOWN}" in lines


def test_check_passes_when_all_is_well() -> None:
    assert run("check").endswith("triggers as they should be.\n")
    assert run("check", verbosity=0) == ""
    assert checks.check_triggers(databases=["default"]) == []


def test_check_exits_with_1_and_names_what_is_wrong() -> None:
    break_one_of_each()
    with pytest.raises(CommandError, match="1 missing, 1 stale, 1 orphan") as raised:
        run("check")
    assert raised.value.returncode == 1
    (message,) = checks.check_triggers(databases=["default"])
    assert message.id == "realtime.E010"
    assert "zoo_team (missing, orphan, stale)" in message.msg


def test_install_puts_right_what_is_wrong_and_nothing_else() -> None:
    break_one_of_each()
    assert run("install") == "1 missing, 1 stale, 1 orphan.\n"
    assert run("install") == "Nothing to do.\n"
    assert states("zoo_team") == {"installed"}
    break_one_of_each()
    lines = run("install", verbosity=2).splitlines()
    assert f"orphan     zoo_team  {UNKNOWN}" in lines


def test_uninstall_stops_the_capture_until_install() -> None:
    count = len(triggers.status())
    assert run("uninstall").startswith(f"{count} triggers removed")
    Team.objects.create(name="unseen")
    assert changes(Team) == []
    with pytest.raises(CommandError):
        run("check")
    run("install", verbosity=0)
    Team.objects.create(name="seen")
    assert len(changes(Team)) == 1


def test_an_unknown_database_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match=r"DATABASES has no alias 'nowhere'\."):
        run("list", database="nowhere")


def test_a_vendor_without_capture_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "oracle")
    with pytest.raises(CommandError, match=r"Changes cannot be captured on (SQLite|PostgreSQL)"):
        run("list")
    (message,) = checks.check_database_setting()
    assert message.id == "realtime.E004"
    assert checks.check_triggers(databases=["default"]) == []


def test_before_the_first_migration_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        triggers.uninstall()
        cursor.execute("DROP TABLE realtime_wal")
    for action in ("check", "install"):
        with pytest.raises(CommandError, match="run `migrate`"):
            run(action)
    assert checks.check_triggers(databases=["default"]) == []
    assert triggers.reconcile() == []


def test_the_check_looks_only_at_the_databases_it_is_given() -> None:
    break_one_of_each()
    assert checks.check_triggers(databases=None) == []
    assert checks.check_triggers(databases=["other"]) == []
    with override_settings(REALTIME={"DATABASE": "elsewhere"}):
        assert checks.check_triggers(databases=["default"]) == []
