"""`on_change` as it is written: what it makes of its arguments, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime import on_change
from realtime.handling import registry
from tests.zoo.models import Note, Team


@pytest.fixture(autouse=True)
def none_declared() -> Iterator[None]:
    with registry.isolated():
        yield


def test_a_function_stays_itself_and_is_known_by_its_path() -> None:
    def greet(change: Any) -> None: ...

    assert on_change(Note)(greet) is greet
    (definition,) = registry.declared()
    assert definition.name.endswith(
        "test_declare.test_a_function_stays_itself_and_is_known_by_its_path.greet"
    )
    assert definition.models == (Note,)
    assert definition.events == ("INSERT", "UPDATE", "DELETE")


def test_a_function_may_handle_several_models_and_every_event() -> None:
    on_change([Note, Team], events="*", name="both")(print)
    (definition,) = registry.declared()
    assert definition.models == (Note, Team)
    assert "TRUNCATE" in definition.events


def test_two_handlers_of_one_name_are_refused() -> None:
    def one(change: Any) -> None: ...
    def two(change: Any) -> None: ...

    on_change(Note, name="same")(one)
    with pytest.raises(ImproperlyConfigured, match="two handlers are called 'same'"):
        on_change(Note, name="same")(two)
    with pytest.raises(ImproperlyConfigured, match="two handlers are called 'same'"):
        on_change(Team, name="same")(one)


def test_a_module_that_is_loaded_anew_replaces_its_handlers() -> None:
    def make() -> Any:
        @on_change(Note)
        def handle(change: Any) -> None: ...

        return handle

    make()
    make()
    assert len(registry.declared()) == 1


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="for a function of a change"):
        on_change(Note)("print")  # type: ignore[type-var]


def test_a_sequence_of_names_is_not_a_text() -> None:
    with pytest.raises(ImproperlyConfigured, match="columns of the handler"):
        on_change(Note, columns="title", name="c")(print)
    with pytest.raises(ImproperlyConfigured, match="events of the handler"):
        on_change(Note, events="INSERT", name="e")(print)
