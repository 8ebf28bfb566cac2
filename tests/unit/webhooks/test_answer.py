"""What came of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.webhooks.answer import EXCERPT, Answer, excerpt_of


@pytest.mark.parametrize(
    ("status", "delivered"), [(200, True), (204, True), (299, True), (301, False), (500, False)]
)
def test_every_status_of_success_is_a_delivery(status: int, delivered: bool) -> None:
    assert Answer(status=status).delivered is delivered


def test_no_answer_is_no_delivery_and_says_what_came_instead() -> None:
    answer = Answer(error="no answer within 15 s")
    assert not answer.delivered and not answer.gone and answer.text == "no answer within 15 s"


def test_words_for_an_outcome() -> None:
    assert Answer(status=410).gone
    assert Answer(status=500).text == "status 500"
    assert "redirects are not followed" in Answer(status=302).text


@given(st.binary())
def test_an_excerpt_is_text_that_any_database_stores(body: bytes) -> None:
    text = excerpt_of(body * 10)
    assert len(text) <= EXCERPT and "\x00" not in text
    text.encode()
