"""What may be published, how it is said, and what is said about mistakes. No database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

import realtime
from realtime import checks, publish
from realtime.wal import published
from realtime.wal.capture import CannotCapture, Capture
from tests.support.vendors import on_sqlite
from tests.zoo.models import Member, Note, Specimen


@pytest.fixture(autouse=True)
def declarations() -> Iterator[None]:
    kept = dict(published.declarations)
    yield
    published.declarations.clear()
    published.declarations.update(kept)


@pytest.fixture
def scratch() -> Iterator[type[models.Model]]:
    with isolate_apps("tests.zoo"):

        class Scratch(models.Model):
            name = models.TextField(db_column="title")
            remark = models.TextField()

            class Meta:
                app_label = "zoo"

        yield Scratch


@pytest.fixture
def nothing_published(declarations: None) -> None:
    published.declarations.clear()


class PointField(models.Field):
    """A field type that nobody knows."""

    def get_internal_type(self) -> str:
        return "PointField"

    def db_type(self, connection: Any) -> str:
        return "point"


def names(model: type[models.Model]) -> list[str]:
    return [column.name for column in published.shape_of(model)]


def test_publish_is_the_package_s_own_name() -> None:
    assert realtime.publish is published.publish
    assert "publish" in dir(realtime)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = realtime.nonsense


def test_a_bare_decorator_publishes_every_column(scratch: type[models.Model]) -> None:
    assert publish(scratch) is scratch
    assert names(scratch) == ["id", "title", "remark"]
    assert scratch in [entry.model for entry in published.published()]


def test_named_columns_are_published_with_the_key(scratch: type[models.Model]) -> None:
    assert publish(columns=["name"])(scratch) is scratch
    assert names(scratch) == ["id", "title"]


def test_excluded_columns_are_not_published_but_the_key_always_is(
    scratch: type[models.Model],
) -> None:
    publish(scratch, exclude=["remark", "id"])
    assert names(scratch) == ["id", "title"]


def test_a_later_declaration_replaces_the_earlier_one(scratch: type[models.Model]) -> None:
    publish(scratch)
    publish(scratch, columns=["title"])
    assert names(scratch) == ["id", "title"]
    del published.declarations[scratch._meta.label_lower]
    with pytest.raises(LookupError, match=r"zoo\.Scratch is not published"):
        published.shape_of(scratch)


def test_columns_and_exclude_together_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="not both"):
        publish(Note, columns=["title"], exclude=["body"])


def test_a_name_where_a_list_belongs_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"such as \['title'\]"):
        publish(Note, columns="title")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="takes a model class"):
        publish("zoo.Note")  # type: ignore[type-var]


def found(model: type[models.Model]) -> Any:
    (message,) = [message for message in checks.check_published() if message.obj is model]
    return message


@pytest.mark.parametrize("given", ["columns", "exclude"])
def test_an_unknown_column_is_a_check_error_that_says_what_was_meant(
    scratch: type[models.Model], given: str
) -> None:
    publish(scratch, **{given: ["remrak"]})
    message = found(scratch)
    assert message.id == "realtime.E003"
    assert f"{given} naming 'remrak'" in message.msg
    assert message.hint == "Did you mean 'remark'?"
    assert scratch not in [entry.model for entry in published.published()]


def test_an_unknown_column_like_no_other_lists_the_known_ones(
    scratch: type[models.Model],
) -> None:
    publish(scratch, columns=["xyzzy"])
    assert found(scratch).hint == "Its columns: id, name, remark, title."


def test_a_parents_column_is_published_with_the_parent() -> None:
    with isolate_apps("tests.zoo"):

        class Parent(models.Model):
            name = models.TextField()

            class Meta:
                app_label = "zoo"

        @publish(columns=["name"])
        class Child(Parent):
            class Meta:
                app_label = "zoo"

        message = found(Child)
        assert (message.id, "publish the parent" in message.hint) == ("realtime.E003", True)


def test_a_model_without_a_table_of_its_own_is_a_check_error() -> None:
    with isolate_apps("tests.zoo"):

        @publish
        class Base(models.Model):
            class Meta:
                app_label = "zoo"
                abstract = True

        @publish
        class Stand(Note):
            class Meta:
                app_label = "zoo"
                proxy = True

        for model, why in ((Base, "abstract"), (Stand, "a proxy")):
            message = found(model)
            assert message.id == "realtime.E001"
            assert message.msg.endswith(f"it is {why}.")
            assert message.hint


def test_a_column_of_unknown_type_is_a_check_error_and_nothing_else_suffers() -> None:
    with isolate_apps("tests.zoo"):

        @publish
        class Map(models.Model):
            place = PointField()

            class Meta:
                app_label = "zoo"

        message = found(Map)
        assert message.id == "realtime.E002"
        assert "place" in message.msg
        with pytest.raises(CannotCapture):
            published.relation_for(Map, ())
        assert [capture.model for capture in captures(Map, Note)] == [Note]


def test_a_column_of_unknown_type_may_be_left_out() -> None:
    with isolate_apps("tests.zoo"):

        @publish(exclude=["place"])
        class Map(models.Model):
            place = PointField()

            class Meta:
                app_label = "zoo"

        assert published.published()[-1].model is Map
        (capture,) = captures(Map)
        assert [column.name for column in capture.relation.columns] == ["id"]
        assert not capture.whole


def captures(
    *only: type[models.Model],
    watched: dict[type[models.Model], set[str]] | None = None,
    present: dict[str, set[str]] | None = None,
) -> list[Capture]:
    """What is captured of these models, in tables that have every column unless said."""
    tables = {
        model._meta.db_table: {field.column for field in model._meta.local_concrete_fields}
        for model in only
    } | (present or {})
    return published.captures((watched or {}).items(), lambda table: tables.get(table, ()))


def test_columns_that_policies_read_are_captured_hidden(scratch: type[models.Model]) -> None:
    publish(scratch, columns=["name"])
    (capture,) = captures(scratch, watched={scratch: {"remark"}})
    relation = capture.relation
    assert [(c.name, c.hidden) for c in relation.columns] == [
        ("id", False),
        ("title", False),
        ("remark", True),
    ]
    assert [column.name for column in relation.visible] == ["id", "title"]
    assert relation.published
    assert relation == published.relation_for(scratch, ["remark"])


def test_a_watched_table_is_captured_in_the_columns_that_decide_and_shown_to_nobody() -> None:
    (capture,) = captures(Member, watched={Member: {"user_id", "role"}})
    relation = capture.relation
    assert [column.name for column in relation.columns] == ["id", "user_id", "role"]
    assert not relation.published and relation.visible == ()
    assert not capture.whole


def test_a_relation_is_named_by_what_it_captures() -> None:
    first, again = published.relation_for(Note, ()), published.relation_for(Note, ())
    assert first == again and len(first.id) == 16
    publish(Note, exclude=["body"])
    narrower = published.relation_for(Note, ())
    hidden = published.relation_for(Note, ["body"])
    assert len({first.id, narrower.id, hidden.id}) == 3


def test_a_table_that_lags_behind_its_model_is_captured_as_it_is() -> None:
    (capture,) = captures(present={"zoo_note": {"id", "title"}})
    assert [column.name for column in capture.relation.columns] == ["id", "title"]
    assert capture.whole
    assert captures(present={"zoo_note": {"title"}}) == []


def test_two_models_on_one_table_are_captured_once_as_the_published_one_is() -> None:
    with isolate_apps("tests.zoo"):

        class Mirror(models.Model):
            title = models.TextField()

            class Meta:
                app_label = "zoo"
                managed = False
                db_table = "zoo_note"

        assert [c.model for c in captures(Note, watched={Mirror: {"title"}})] == [Note]


def test_decimal_places_come_from_the_field() -> None:
    (capture,) = captures(Specimen)
    assert capture.scales == {"decimal": 4}


def test_a_composite_key_is_a_key_of_several_columns() -> None:
    with isolate_apps("tests.zoo"):

        @publish(columns=["name"])
        class Seat(models.Model):
            pk = models.CompositePrimaryKey("line", "place")
            line = models.IntegerField()
            place = models.TextField()
            name = models.TextField()
            note = models.TextField()

            class Meta:
                app_label = "zoo"

        relation = published.relation_for(Seat, ())
        assert relation.key == ("line", "place")
        assert [column.name for column in relation.columns] == ["line", "place", "name"]


def test_a_child_table_is_captured_with_its_own_columns() -> None:
    with isolate_apps("tests.zoo"):

        @publish
        class Pinned(Note):
            place = models.IntegerField()

            class Meta:
                app_label = "zoo"

        relation = published.relation_for(Pinned, ())
        assert relation.key == ("note_ptr_id",)
        assert [column.name for column in relation.columns] == ["note_ptr_id", "place"]


def ids() -> list[str | None]:
    return [message.id for message in checks.check_database_setting()]


def test_the_test_settings_pass_the_checks() -> None:
    assert ids() == []
    assert checks.check_published() == []


@override_settings(REALTIME={"DATABASE": "elsewhere"})
def test_a_database_that_is_not_configured_is_a_check_error() -> None:
    (message,) = checks.check_database_setting()
    assert message.id == "realtime.E004"
    assert "'elsewhere'" in message.msg and "'default'" in (message.hint or "")


@on_sqlite
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["realtime.W002"]),
        ({"init_command": "PRAGMA recursive_triggers=OFF;"}, ["realtime.W002"]),
        ({"init_command": "PRAGMA recursive_triggers = on;"}, []),
    ],
)
def test_sqlite_without_recursive_triggers_is_warned_about(
    options: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection

    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert ids() == expected
    if expected:
        assert "PRAGMA recursive_triggers=ON" in (checks.check_database_setting()[0].hint or "")


@pytest.mark.usefixtures("nothing_published")
def test_publishing_users_whole_is_refused_by_a_check_that_says_what_to_do() -> None:
    user = get_user_model()
    publish(user)
    (found,) = checks.check_published()
    assert found.id == "realtime.E006"
    assert "password" in found.msg
    assert found.hint is not None
    assert "exclude=['password']" in found.hint and "columns=[..., 'password']" in found.hint
    assert published.published() == ()
    with pytest.raises(published.CannotCapture):
        published.shape_of(user)


@pytest.mark.usefixtures("nothing_published")
def test_a_secret_that_is_left_out_or_named_is_no_mistake() -> None:
    user = get_user_model()
    for declared in ({"exclude": ["password"]}, {"columns": ["username"]}):
        publish(user, **declared)
        assert checks.check_published() == []
        assert "password" not in {column.name for column in published.shape_of(user)}
    publish(user, columns=["username", "password"])
    assert checks.check_published() == []
    assert "password" in {column.name for column in published.shape_of(user)}


@pytest.mark.usefixtures("nothing_published")
def test_a_key_that_is_a_secret_has_to_be_named_too() -> None:
    with isolate_apps("tests.zoo"):

        class Token(models.Model):
            key = models.CharField(max_length=40, primary_key=True)

            class Meta:
                app_label = "zoo"

    model = Token
    publish(model, exclude=["key"])
    (found,) = checks.check_published()
    assert found.id == "realtime.E006"
    assert "primary key is always published" in str(found.hint)
    publish(model, columns=[])
    assert [one.id for one in checks.check_published()] == ["realtime.E006"]
    for named in ("key", "pk"):
        publish(model, columns=[named])
        assert checks.check_published() == []
