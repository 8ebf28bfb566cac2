"""What is kept of an error of a handler's code."""

from __future__ import annotations

from realtime.handling.attempt import MOST_ERROR, text_of


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_error_is_kept_with_its_kind_up_to_a_bound() -> None:
    assert text_of(ValueError("no stock")) == "ValueError: no stock"
    assert text_of(KeyError()) == "KeyError"
    text = text_of(ValueError("row " * 1_000_000))
    assert text.startswith("ValueError: row row") and len(text) == MOST_ERROR


def test_an_error_is_kept_as_text_that_any_database_stores() -> None:
    text_of(ValueError("\ud800")).encode()
    assert "\0" not in text_of(ValueError("a\0b"))
    assert text_of(Unspeakable()) == "Unspeakable"
