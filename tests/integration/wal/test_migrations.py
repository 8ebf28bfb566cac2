"""Migrations with the triggers about: none fails, and afterwards no trigger is stale. On SQLite
they are gone meanwhile; on PostgreSQL nothing goes by uncaptured.

Each test makes an app of its own on disk, with two migrations, and runs the real `migrate`.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, models
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate
from django.test import modify_settings

from realtime import checks
from realtime.event_log import sequencer
from realtime.models import LogHead
from realtime.wal import triggers
from tests.support.captured_models import changes, forget, states, withdraw
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Team

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

_numbers = count(1)
NAME = "name = models.CharField(max_length=50)\n"
BASE = NAME + "size = models.IntegerField(null=True)\n"


class App:
    """An app with a published model Thing, at the state that `after` describes. Its migration
    0001 makes the table as BASE has it, 0002 does `operation`."""

    def __init__(self, folder: Path, after: str, operation: str) -> None:
        self.label = f"scratch{next(_numbers)}"
        self.table = f"{self.label}_thing"
        package = folder / self.label
        (package / "migrations").mkdir(parents=True)
        for module in ("__init__", "migrations/__init__"):
            (package / f"{module}.py").write_text("")
        self._write(
            package / "models.py",
            "from django.db import models\nfrom realtime import publish\n\n"
            "@publish\nclass Thing(models.Model):\n" + textwrap.indent(after, "    "),
        )
        fields = ", ".join(
            f'("{line.split(" = ")[0]}", {line.split(" = ")[1]})' for line in BASE.splitlines()
        )
        key = '("id", models.BigAutoField(primary_key=True))'
        create = f'migrations.CreateModel("Thing", [{key}, {fields}])'
        self._migration(package, "0001_first", "[]", create)
        self._migration(package, "0002_second", f'[("{self.label}", "0001_first")]', operation)

    def _migration(self, package: Path, name: str, dependencies: str, operation: str) -> None:
        self._write(
            package / "migrations" / f"{name}.py",
            "from django.db import migrations, models\n\n"
            "def fail(apps, schema_editor):\n    raise RuntimeError('stopped here')\n\n"
            "def fill(apps, schema_editor):\n"
            f"    apps.get_model('{self.label}', 'Thing').objects.update(name='filled')\n\n"
            "class Migration(migrations.Migration):\n"
            f"    dependencies = {dependencies}\n    operations = [{operation}]\n",
        )

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)

    @property
    def model(self) -> type[models.Model]:
        return apps.get_model(self.label, "Thing")

    def migrate(self, name: str = "0002") -> None:
        call_command("migrate", self.label, name, verbosity=0)

    def insert(self, **values: Any) -> dict[str, Any] | None:
        """Insert a row by SQL; its captured image."""
        columns = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {self.table} ({columns}) VALUES ({marks})", [*values.values()]
            )
        return changes(self.table)[-1].new


Maker = Callable[[str, str], App]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[App] = []
    overrides: list[Any] = []

    def make(after: str, operation: str) -> App:
        new = App(tmp_path, after, operation)
        override = modify_settings(INSTALLED_APPS={"append": new.label})
        override.enable()
        overrides.append(override)
        made.append(new)
        new.migrate("0001")
        return new

    yield make
    for old in made:
        withdraw(old.model)
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {old.table}")
        MigrationRecorder(connection).migration_qs.filter(app=old.label).delete()
    for override in reversed(overrides):
        override.disable()
    for old in made:
        for module in [name for name in sys.modules if name.split(".")[0] == old.label]:
            del sys.modules[module]
    triggers.reconcile()


CASES = {
    "a column with a default": (
        BASE + "extra = models.IntegerField(default=3)",
        'migrations.AddField("Thing", "extra", models.IntegerField(default=3))',
        {"name": "a", "extra": 4},
        {"id": 2, "name": "a", "size": None, "extra": 4},
    ),
    "a column that may be null": (
        BASE + "extra = models.IntegerField(null=True)",
        'migrations.AddField("Thing", "extra", models.IntegerField(null=True))',
        {"name": "a", "extra": 4},
        {"id": 2, "name": "a", "size": None, "extra": 4},
    ),
    "a renamed column": (
        BASE.replace("size", "weight"),
        'migrations.RenameField("Thing", "size", "weight")',
        {"name": "a", "weight": 4},
        {"id": 2, "name": "a", "weight": 4},
    ),
    "a dropped column": (
        NAME,
        'migrations.RemoveField("Thing", "size")',
        {"name": "a"},
        {"id": 2, "name": "a"},
    ),
    "a column of another type": (
        BASE.replace("IntegerField(null=True)", "TextField(null=True)"),
        'migrations.AlterField("Thing", "size", models.TextField(null=True))',
        {"name": "a", "size": "large"},
        {"id": 2, "name": "a", "size": "large"},
    ),
    "a constraint": (
        BASE,
        'migrations.AddConstraint("Thing",'
        ' models.UniqueConstraint(fields=["name"], name="one_of_a_name"))',
        {"name": "a"},
        {"id": 2, "name": "a", "size": None},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_after_a_migration_rows_are_captured_in_their_new_shape(app: Maker, case: str) -> None:
    after, operation, row, expected = CASES[case]
    scratch = app(after, operation)
    assert states(scratch.table) == {"installed"}
    before = scratch.insert(name="first")
    assert before is not None and before["name"] == "first"
    scratch.migrate()
    assert states(scratch.table) == {"installed"}
    assert scratch.insert(**row) == expected
    forget()
    scratch.model.objects.filter(pk=2).delete()
    assert changes(scratch.table)[0].old == expected


def test_a_table_behind_its_model_is_captured_in_the_columns_it_has(app: Maker) -> None:
    scratch = app(
        BASE + "extra = models.IntegerField(default=3)",
        'migrations.AddField("Thing", "extra", models.IntegerField(default=3))',
    )
    assert scratch.insert(name="a") == {"id": 1, "name": "a", "size": None}
    scratch.migrate()
    scratch.migrate("0001")
    assert states(scratch.table) == {"installed"}
    assert scratch.insert(name="b") == {"id": 2, "name": "b", "size": None}


def test_a_deleted_model_leaves_no_trigger(app: Maker) -> None:
    scratch = app(BASE, 'migrations.DeleteModel("Thing")')
    scratch.insert(name="a")
    scratch.migrate()
    assert states(scratch.table) == set()


def test_a_renamed_table_is_captured_under_its_new_name(app: Maker) -> None:
    scratch = app(
        BASE + "class Meta:\n    db_table = 'scratch_renamed'",
        'migrations.AlterModelTable("Thing", "scratch_renamed")',
    )
    # The model is ahead: its table has another name, so nothing is captured yet.
    assert states(scratch.table) == set()
    old, scratch.table = scratch.table, "scratch_renamed"
    scratch.migrate()
    assert (states(old), states(scratch.table)) == (set(), {"installed"})
    assert scratch.insert(name="a") == {"id": 1, "name": "a", "size": None}


@on_sqlite
def test_a_data_migration_goes_by_uncaptured(app: Maker) -> None:
    scratch = app(BASE, "migrations.RunPython(fill)")
    scratch.insert(name="a")
    forget()
    scratch.migrate()
    assert changes(scratch.table) == []
    assert scratch.model.objects.get().name == "filled"


@on_postgresql
def test_a_data_migration_is_captured(app: Maker) -> None:
    scratch = app(BASE, "migrations.RunPython(fill)")
    scratch.insert(name="a")
    forget()
    epoch = LogHead.objects.get().epoch
    scratch.migrate()
    (change,) = changes(scratch.table)
    assert (change.op, change.new) == ("UPDATE", {"id": 1, "name": "filled", "size": None})
    # Nothing was missed, so nobody has to begin anew.
    assert LogHead.objects.get().epoch == epoch


@on_postgresql
def test_a_migration_that_fails_leaves_capture_as_it_was(app: Maker) -> None:
    scratch = app(BASE, "migrations.RunPython(fail)")
    with pytest.raises(RuntimeError, match="stopped here"):
        scratch.migrate()
    assert states(scratch.table) == {"installed"}
    assert scratch.insert(name="a") == {"id": 1, "name": "a", "size": None}


def test_a_table_that_was_made_anew_begins_an_epoch(app: Maker) -> None:
    again = 'migrations.DeleteModel("Thing"), {create}'
    key = '("id", models.BigAutoField(primary_key=True))'
    create = f'migrations.CreateModel("Thing", [{key}, ("name", models.CharField(max_length=50))])'
    scratch = app(NAME, again.format(create=create))
    scratch.insert(name="a")
    sequencer.number(connection)
    epoch = LogHead.objects.get().epoch
    scratch.migrate()
    assert LogHead.objects.get().epoch != epoch
    assert scratch.insert(name="a") == {"id": 1, "name": "a"}


@on_sqlite
def test_a_migration_that_fails_is_told_and_the_next_one_reinstalls(app: Maker) -> None:
    scratch = app(BASE, "migrations.RunPython(fail)")
    with pytest.raises(RuntimeError, match="stopped here"):
        scratch.migrate()
    assert states(scratch.table) == {"missing"}
    (message,) = checks.check_triggers(databases=["default"])
    assert message.id == "realtime.E010"
    assert f"{scratch.table} (missing)" in message.msg
    call_command("migrate", "contenttypes", verbosity=0)
    assert states(scratch.table) == {"installed"}
    assert checks.check_triggers(databases=["default"]) == []


def test_a_model_unpublished_later_keeps_no_trigger(app: Maker) -> None:
    scratch = app(BASE, 'migrations.RemoveField("Thing", "size")')
    scratch.insert(name="a")
    withdraw(scratch.model)
    assert states(scratch.table) == {"orphan"}
    scratch.migrate()
    assert states(scratch.table) == set()
    forget()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {scratch.table} (name) VALUES ('b')")
    assert changes(scratch.table) == []


@on_sqlite
def test_the_log_s_own_table_can_be_remade() -> None:
    """Django remakes a table to alter it; no trigger may write to it meanwhile."""
    from realtime.models import WalEntry

    Team.objects.create(name="before")
    triggers.before_migrations("default", plan=["anything"])
    old = WalEntry._meta.get_field("relation_id")
    new = models.CharField(max_length=300)
    new.set_attributes_from_name("relation_id")
    with connection.schema_editor() as editor:
        editor.alter_field(WalEntry, old, new)
    with connection.schema_editor() as editor:
        editor.alter_field(WalEntry, new, old)
    triggers.after_migrations("default")
    Team.objects.create(name="after")
    assert [change.new["name"] for change in changes(Team) if change.new] == ["before", "after"]


def installed() -> set[tuple[str, str]]:
    return {(t.table, t.name) for t in triggers.status() if t.state is triggers.State.INSTALLED}


def test_with_nothing_to_migrate_the_triggers_stay_where_they_are() -> None:
    sent: list[str] = []

    def look(using: str, **kwargs: Any) -> None:
        sent.append(using)

    names = installed()
    triggers.before_migrations("default", plan=[])
    assert installed() == names
    config = apps.get_app_config("realtime")
    post_migrate.connect(look, sender=config)
    try:
        call_command("migrate", verbosity=0)
    finally:
        post_migrate.disconnect(look, sender=config)
    assert sent == ["default"]
    assert installed() == names


def test_another_database_is_left_alone() -> None:
    names = installed()
    triggers.before_migrations("other", plan=["anything"])
    triggers.after_migrations("other")
    assert installed() == names


def test_a_flush_starts_a_new_epoch_with_an_empty_log() -> None:
    Team.objects.create(name="gone")
    epoch = LogHead.objects.get().epoch
    call_command("flush", interactive=False, verbosity=0, stdout=StringIO())
    assert LogHead.objects.get().epoch != epoch
    assert changes(Team) == []
    assert states(Team._meta.db_table) == {"installed"}


def test_while_the_log_is_behind_its_model_writes_go_on_and_nothing_is_installed() -> None:
    """New code on a database that is still to be migrated: a trigger that named a column which
    is not there would fail every write."""
    try:
        call_command("migrate", "realtime", "0004", verbosity=0)
        assert not triggers.log_exists()
        assert triggers.reconcile() == []
        triggers.uninstall()
        Team.objects.create(name="a")
    finally:
        call_command("migrate", "realtime", verbosity=0)
    assert triggers.log_exists()
    Team.objects.create(name="b")
    assert [change.new["name"] for change in changes(Team) if change.new] == ["b"]
