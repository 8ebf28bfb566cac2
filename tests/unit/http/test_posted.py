"""The body of a POST: what is read, what is refused, and that a refusal costs little."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realtime.http.posted import Invalid, Unreadable, read_batch, read_payload
from realtime.topics.broadcast import LONGEST_EVENT, LONGEST_TOPIC

MESSAGE = b'{"topic":"a","event":"e","payload":1}'


def batch(*items: bytes) -> bytes:
    return b'{"messages":[' + b",".join(items) + b"]}"


def read(body: bytes, most: int | None = 1_000, payload_bytes: int | None = 65_536) -> Any:
    return read_batch(body, most, payload_bytes)


def errors_of(body: bytes, **options: Any) -> Any:
    with pytest.raises(Invalid) as caught:
        read(body, **options)
    return caught.value.errors


def test_a_payload_keeps_its_digits_and_its_repeated_keys() -> None:
    payload = b'{"a": 123456789012345678901234567890.10, "a": 2}'
    (found,) = read(batch(b'{"topic":"realtime:a","event":"e","payload":%b}' % payload))
    assert (found.topic, found.private, found.payload) == ("a", False, payload)


def test_unknown_keys_are_skipped_and_the_last_of_repeated_ones_counts() -> None:
    body = b'{"x":[0],"messages":[0],"messages":[{"y":{},"topic":"a","event":"e","payload":1}]}'
    assert [found.topic for found in read(body)] == ["a"]


@pytest.mark.parametrize("most", [1, 5])
def test_a_request_has_at_most_so_many_messages(most: int) -> None:
    assert len(read(batch(*[MESSAGE] * most), most=most)) == most
    text = f"should have at most {most} item(s)"
    assert errors_of(batch(*[MESSAGE] * (most + 1)), most=most) == {"messages": [text]}
    assert len(read(batch(*[MESSAGE] * 2_000), most=None)) == 2_000


def test_reading_stops_after_ten_messages_with_errors() -> None:
    errors = errors_of(batch(MESSAGE, *[b"{}"] * 500))["messages"]
    assert len(errors) == 11
    assert errors[0] == {}
    assert set(errors[1]) == {"topic", "event", "payload"}


@pytest.mark.parametrize(
    "field", [{"topic": "t" * (LONGEST_TOPIC + 1)}, {"event": "e" * (LONGEST_EVENT + 1)}]
)
def test_names_are_bounded(field: dict[str, str]) -> None:
    item = {"topic": "a", "event": "e", "payload": 1, **field}
    (name,) = field
    assert errors_of(batch(json.dumps(item).encode())) == {
        "messages": [{name: ["should be at most 1024 character(s)"]}]
    }
    shorter = {**item, name: field[name][:-1]}
    assert len(read(batch(json.dumps(shorter).encode()))) == 1


BIG = 900_000
HOSTILE = {
    "zeros": batch(*[b"0"] * (BIG // 2)),
    "empty objects": batch(*[b"{}"] * (BIG // 3)),
    "empty lists": batch(*[b"[]"] * (BIG // 3)),
    "minimal messages": batch(*[b'{"topic":0,"event":0,"payload":0}'] * 25_000),
    "good messages": batch(*[MESSAGE] * 25_000),
    "a number as a topic": batch(b'{"topic":%b,"event":"e","payload":1}' % (b"9" * BIG)),
    "a list as a topic": batch(b'{"topic":[%b0],"event":"e","payload":1}' % (b"0," * (BIG // 2))),
    "a long id": batch(b'{"topic":"a","event":"e","payload":1,"id":"%b"}' % (b"9" * BIG)),
    "a long private": batch(b'{"topic":"a","event":"e","payload":1,"private":"%b"}' % (b"9" * BIG)),
    "a long event": batch(b'{"topic":"a","event":"%b","payload":1}' % (b"e" * BIG)),
    "a wide payload": batch(b'{"topic":"a","event":"e","payload":[%b0]}' % (b"[]," * (BIG // 3))),
    "no messages but keys": b"{" + b",".join(b'"%d":0' % n for n in range(80_000)) + b"}",
    "a map of messages": b'{"messages":{' + b",".join(b'"%d":0' % n for n in range(80_000)) + b"}}",
    "text": b'{"messages":"' + b"a" * BIG + b'"}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_answer_to_a_large_body_is_small(body: bytes) -> None:
    assert len(json.dumps(errors_of(body))) < 2_000


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"[" * 65 + b"]" * 65, "The body is nested deeper than 64 levels"),
        (b"[1e999]", "The body: Number out of range"),
        (b"{", "The body is not JSON: "),
        (b'"\xff"', "The body is not JSON: "),
        (b"[" * 20_000, "The body is nested "),
    ],
)
def test_a_payload_that_clients_cannot_parse_is_unreadable(payload: bytes, text: str) -> None:
    with pytest.raises(Unreadable) as one:
        read_payload(payload)
    with pytest.raises(Unreadable) as many:
        read(batch(b'{"topic":"a","event":"e","payload":%b}' % payload))
    assert str(one.value).startswith(text)
    assert str(many.value).startswith(("The body is not JSON", "The body is nested", text))


def test_an_empty_body_is_an_empty_payload() -> None:
    assert read_payload(b"") == b"{}"
