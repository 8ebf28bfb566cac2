"""Headers that webhooks add to their requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.webhooks.headers import BadHeaders, check_headers


def test_names_and_values_of_http_are_taken() -> None:
    check_headers({})
    check_headers({"Authorization": "Bearer abc.def==", "X-Team": 'a, b; c="d"'})


@pytest.mark.parametrize(
    "headers",
    [
        [],
        "X: y",
        None,
        7,
        {"X": 7},
        {"X": None},
        {"X": ""},
        {"X": "a\r\nHost: b"},
        {"X": "a\nb"},
        {"X": "a\x00b"},
        {"X": " a"},
        {"X": "ä"},
        {"": "a"},
        {"X Y": "a"},
        {"X:": "a"},
        {"X\r\nHost": "a"},
        {"Ä": "a"},
        {"Host": "a"},
        {"HOST": "a"},
        {"Content-Length": "5"},
        {"content-type": "text/plain"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "keep-alive"},
        {"Webhook-Id": "a"},
        {"webhook-signature": "a"},
        {"webhook-other": "a"},
        {"X-A": "a", "x-a": "b"},
        {f"X-{number}": "a" for number in range(21)},
        {"X": "a" * 5_000},
    ],
)
def test_what_breaks_a_request_or_contradicts_it_is_refused(headers: object) -> None:
    with pytest.raises(BadHeaders):
        check_headers(headers)


def test_the_error_has_no_value_because_values_may_be_secret() -> None:
    with pytest.raises(BadHeaders) as error:
        check_headers({"Authorization": "Bearer s3cret\n"})
    assert "Authorization" in str(error.value) and "s3cret" not in str(error.value)


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_taken_is_one_line_of_ascii(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except BadHeaders:
        return
    for name, value in headers.items():
        assert (f"{name}: {value}".isascii() and f"{name}: {value}".isprintable()) or "\t" in value
