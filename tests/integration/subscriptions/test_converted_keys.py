"""A user model whose key is converted: the log has it as it is stored, and subjects as Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin
from django.db import models
from django.test.utils import isolate_apps

from auth_rls.predicates.kinds import Kind
from auth_rls.subjects.subject import Subject
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions import access_watch, identity_tables
from realtime.subscriptions.access_watch import AccessWatch, RebindScope
from realtime.subscriptions.dependencies import VerdictDependencies
from realtime.wal.entry import ColumnInfo, Relation


class PrefixedKey(models.BigAutoField):
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value == 13:
            raise RuntimeError("unlucky")
        return None if value is None else f"usr_{value}"

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(str(value).removeprefix("usr_") if value else value)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user model, as far as the stream asks for it."""
    with isolate_apps("tests.zoo", "django.contrib.auth", "django.contrib.contenttypes"):

        class Person(AbstractBaseUser, PermissionsMixin):
            id = PrefixedKey(primary_key=True)

            class Meta:
                app_label = "zoo"

        monkeypatch.setattr(identity_tables, "get_user_model", lambda: Person)
        monkeypatch.setattr(
            identity_tables, "table_of", lambda label: f"zoo_{label.partition('.')[2].lower()}"
        )
        monkeypatch.setattr(access_watch, "table_of", lambda label: label)
        yield Person


def change(table: str, column: str, key: int) -> DatabaseEvent:
    columns = (ColumnInfo(name=column, type="int8", kind=Kind.INT, hidden=True),)
    relation = Relation(
        id="r", schema="public", table=table, columns=columns, key=(), published=False
    )
    image = RowImage(f'{{"{column}":{key}}}'.encode(), relation.kinds)
    return DatabaseEvent(seq=1, commit_us=1, relation=relation, op="UPDATE", old=image, new=image)


@pytest.mark.parametrize(
    "table, column", [("zoo_person", "id"), ("zoo_person_groups", "person_id")]
)
def test_a_change_of_such_a_user_concerns_those_who_ask_as_it(
    person: Any, table: str, column: str
) -> None:
    watch = AccessWatch("default")
    assert watch.scope([change(table, column, 7)]) == RebindScope(users=frozenset({"usr_7"}))


def test_a_key_that_cannot_be_converted_concerns_everybody(person: Any) -> None:
    assert AccessWatch("default").scope([change("zoo_person", "id", 13)]).everybody


def test_the_verdicts_of_such_a_user_depend_on_its_stored_row(person: Any) -> None:
    subject = Subject(role="authenticated", claims={}, user=None, user_id="usr_7")
    found = VerdictDependencies(frozenset(identity_tables.about_user(subject, person)))
    assert found.touched_by([change("zoo_person", "id", 7)]) is False
    gone = change("zoo_person", "id", 7)
    deleted = DatabaseEvent(2, 2, gone.relation, "DELETE", gone.old, None)
    assert found.touched_by([deleted])
    other = change("zoo_person", "id", 8)
    assert not found.touched_by([DatabaseEvent(2, 2, other.relation, "DELETE", other.old, None)])
