"""Handlers that do not fit their models are told why, as the system checks say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from realtime import checks, on_change
from realtime.handling import registry
from realtime.handling.definition import HandlerDefinition
from realtime.handling.matching import Matcher, UnfitHandler
from tests.zoo.models import Member, Note


@pytest.fixture(autouse=True)
def none_declared() -> Iterator[None]:
    with registry.isolated():
        yield


def matcher(**more: Any) -> Matcher:
    values = {"name": "h", "models": (Note,), "call": print, **more}
    return Matcher(HandlerDefinition(**values))


@pytest.mark.parametrize(
    ("more", "id_", "said"),
    [
        ({"models": (Member,)}, "realtime.E030", "zoo.Member, which is not published"),
        ({"filter": "titel=eq.a"}, "realtime.E031", "does not fit zoo.Note"),
        ({"filter": "score=eq.a"}, "realtime.E031", "invalid value"),
        ({"filter": "nonsense"}, "realtime.E031", "does not fit zoo.Note"),
        ({"columns": ("titel",)}, "realtime.E032", "names 'titel'"),
        ({"key": "nothing"}, "realtime.E032", "no published column"),
    ],
)
def test_what_does_not_fit_is_said(more: dict[str, Any], id_: str, said: str) -> None:
    with pytest.raises(UnfitHandler, match=said) as refused:
        matcher(**more)
    assert refused.value.id == id_


def test_columns_may_be_named_as_fields() -> None:
    matcher(columns=("owner", "team_id", "pk"), key="pk")


def test_the_system_checks_say_it_of_every_handler() -> None:
    on_change(Note, name="good")(print)
    on_change(Member, name="bad")(print)
    (found,) = checks.check_handlers()
    assert (found.id, found.level) == ("realtime.E030", 40)
    assert "'bad'" in found.msg
