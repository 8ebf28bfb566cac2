"""Arguments of handlers that cannot be are refused in a line, and pauses grow."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from realtime.handling.definition import HandlerDefinition
from tests.zoo.models import Note


def define(**more: Any) -> HandlerDefinition:
    return HandlerDefinition(**{"name": "h", "models": (Note,), "call": print, **more})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "a b"}, "name of the handler 'a b' must be 1 to 200 letters"),
        ({"models": (int,)}, "model of the handler 'h' must be a model class"),
        ({"models": ()}, "model of"),
        ({"events": ("insert",)}, "events of the handler 'h' must be a list of 'INSERT'"),
        ({"events": "INSERT"}, "events of"),
        ({"columns": "title"}, "columns of the handler 'h' must be a list of names"),
        ({"filter": 3}, "filter of"),
        ({"batch": 0}, "batch of"),
        ({"batch": True}, "batch of"),
        ({"concurrency": 4}, "1 without a key"),
        ({"concurrency": 1000, "key": "title"}, "concurrency of"),
        ({"on_failure": "ignore"}, "on_failure of the handler 'h' must be 'stop' or 'dead_letter'"),
        ({"attempts": 0}, "attempts of"),
        ({"start": "now"}, "start of the handler 'h' must be 'head' or 'beginning'"),
        ({"timeout": 0}, "timeout of"),
    ],
)
def test_an_argument_that_cannot_be_is_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        define(**more)


@given(st.integers(1, 1_000))
def test_pauses_grow_with_jitter_and_have_a_bound(attempts: int) -> None:
    pause = define().pause(attempts)
    usual = min(2.0 ** min(attempts - 1, 30), 300.0)
    assert usual / 2 <= pause <= usual * 1.5


def test_pauses_may_be_given() -> None:
    definition = define(pauses=(10.0, 60.0))
    assert 5 <= definition.pause(1) <= 15
    assert 30 <= definition.pause(2) <= 90
    assert 30 <= definition.pause(9) <= 90
