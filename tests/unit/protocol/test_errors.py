"""Errors: the official texts, and the notation they quote."""

from __future__ import annotations

import string

import pytest

from realtime.protocol.errors import CloseCode, WireError, connect_parameters, inspect, token_reason


@pytest.mark.parametrize(
    "error, fields, reason",
    [
        (WireError.UNMATCHED_TOPIC, {}, "unmatched topic"),
        (
            WireError.TOPIC_NAME_REQUIRED,
            {},
            "TopicNameRequired: You must provide a topic name",
        ),
        (
            WireError.UNAUTHORIZED,
            {"topic": "room"},
            "Unauthorized: You do not have permissions to read from this Channel topic: room",
        ),
        (
            WireError.PRIVATE_ONLY,
            {},
            "PrivateOnly: This project only allows private channels",
        ),
        (WireError.TOO_MANY_CHANNELS, {}, "ChannelRateLimitReached: Too many channels"),
        (
            WireError.TOO_MANY_JOINS,
            {},
            "ClientJoinRateLimitReached: Too many joins per second",
        ),
        (
            WireError.CHANGES_TIMEOUT,
            {"timeout_ms": 100},
            "PostgresChangesSubscribeTimeout: "
            "Timed out after 100ms waiting for the postgres_changes subscription",
        ),
        (
            WireError.REPLAY_PUBLIC,
            {},
            "UnableToReplayMessages: Replay is not allowed for public channels",
        ),
        (WireError.PAYLOAD_TOO_LARGE, {}, "payload_size_exceeded"),
        (WireError.UNKNOWN, {}, "Unknown Error on Channel"),
    ],
)
def test_a_reason_is_the_official_text(error, fields, reason) -> None:
    assert error.reason(**fields) == reason
    assert error.response(**fields) == {"reason": reason}


@pytest.mark.parametrize("error", WireError)
def test_every_error_can_be_said_with_its_fields_and_not_without(error) -> None:
    names = [name for _, name, _, _ in string.Formatter().parse(error.value[1]) if name]
    assert "{" not in error.text(**dict.fromkeys(names, "x"))
    if names:
        with pytest.raises(KeyError):
            error.text()


def test_a_topic_with_braces_is_only_quoted() -> None:
    assert WireError.UNAUTHORIZED.text(topic="{0}{x}").endswith("topic: {0}{x}")


def test_a_token_error_is_a_code_and_a_text() -> None:
    assert token_reason("InvalidJWTToken", "Token has expired 5 seconds ago") == (
        "InvalidJWTToken: Token has expired 5 seconds ago"
    )


def test_close_codes_are_those_of_the_contract() -> None:
    assert {int(code) for code in CloseCode} == {4401, 4403, 4408, 4413, 4429, 4430, 1012}


@pytest.mark.parametrize("code", CloseCode)
def test_a_meaning_fits_a_close_frame(code) -> None:
    assert 0 < len(code.meaning.encode()) <= 123


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "nil"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (1.5, "1.5"),
        ("a", '"a"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("#{x}", '"\\#{x}"'),
        ("é", '"é"'),
        ([], "[]"),
        (["a", None], '["a", nil]'),
        (("id", "eq", "1", False), '{"id", "eq", "1", false}'),
        ({}, "%{}"),
        ({"b": 1, "a": []}, '%{"a" => [], "b" => 1}'),
    ],
)
def test_values_are_shown_in_elixirs_notation(value, shown) -> None:
    assert inspect(value) == shown


def test_a_long_echo_is_cut() -> None:
    shown = inspect("x" * 5_000)
    assert len(shown) == 1_003
    assert shown.endswith("...")


def test_connect_parameters_are_shown_as_the_official_server_does() -> None:
    assert connect_parameters("INSERT", "public", "*", [], None) == (
        "event: INSERT, schema: public, table: *, filters: [], select: nil"
    )
    assert connect_parameters("*", "public", "t", [("id", "eq", "1", False)], ["a"]) == (
        'event: *, schema: public, table: t, filters: [{"id", "eq", "1", false}], select: ["a"]'
    )
