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


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (None, "a value of NoneType"),
        ("zoo.Note", "a value of str"),
        ([Note, print], "the builtin_function_or_method print"),
    ],
    ids=["nothing", "text", "function"],
)
def test_what_is_no_model_is_refused_before_there_is_a_function(model: Any, told: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"takes a model class.* not {told}"):
        on_change(model)


def test_a_decorator_without_its_model_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"@on_change\(Order\), not the function handle"):

        @on_change  # type: ignore[arg-type]
        def handle(change: Any) -> None: ...


@pytest.mark.parametrize("given", [None, 5])
def test_what_is_no_list_is_refused_by_the_name_of_its_argument(given: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="events of the handler 'e' must be a list"):
        on_change(Note, events=given, name="e")(print)
    with pytest.raises(ImproperlyConfigured, match="columns of the handler 'c' must be a list"):
        on_change(Note, columns=5, name="c")(print)  # type: ignore[call-overload]


def test_a_function_that_would_do_nothing_is_refused() -> None:
    def generator(change: Any) -> Iterator[None]:
        yield

    async def stream(change: Any) -> Any:
        yield

    def nothing() -> None: ...
    def two(change: Any, more: Any) -> None: ...

    for function in (generator, stream):
        with pytest.raises(ImproperlyConfigured, match="is a generator"):
            on_change(Note)(function)
    for function in (nothing, two):
        with pytest.raises(ImproperlyConfigured, match="must take one argument"):
            on_change(Note)(function)
    assert not registry.declared()


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="task must be a task of django"):
        on_change(Note, task="shop.tasks.send_mail")
