"""What clients send: frames of both serializers, joins, filters and cursors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from realtime.client_limits import Limits
from realtime.event_log.position import Position
from realtime.protocol import serializer
from realtime.protocol.cursor import Cursor, parse_cursor
from realtime.protocol.filters import FilterError, parse_filter
from realtime.protocol.join import BindingError, parse_join, token_in
from realtime.protocol.serializer import BinaryBroadcast, ClientMessage, FrameError, Version
from realtime.session.channel import Phase
from realtime.session.effects import (
    Effect,
    Join,
    Leave,
    Renew,
    Send,
    SendBroadcast,
    SubscribePresence,
    Track,
)
from realtime.session.session import Session
from realtime.topics.rights import ALL
from tests.fuzz.feed import EXAMPLES, fuzzed, mutated

AT = Position("e", 41)
COLUMNS = {
    "id": Kind.INT,
    "title": Kind.TEXT,
    "body": Kind.TEXT,
    "is_public": Kind.BOOL,
    "price": Kind.DECIMAL,
    "uuid": Kind.UUID,
    "stamp": Kind.DATETIME,
    "day": Kind.DATE,
    "time": Kind.TIME,
    "addr": Kind.INET,
    "data": Kind.JSON,
}


def decoded(version: Version, data: str | bytes) -> ClientMessage | None:
    try:
        return serializer.decode(version, data)
    except FrameError as error:
        assert str(error) and "\n" not in str(error)
        return None


def check(frame: ClientMessage | None) -> None:
    """What was read can be relayed as it is."""
    if frame is None:
        return
    for text in (frame.topic, frame.event, frame.ref or "", frame.join_ref or ""):
        text.encode()
    if isinstance(frame.payload, BinaryBroadcast):
        if frame.payload.encoding is serializer.Encoding.JSON:
            msgspec.json.decode(frame.payload.payload)
    else:
        assert msgspec.json.decode(frame.raw) == frame.payload
        relayed = serializer.fanout(Version.V2, frame.topic, frame.event, frame.raw)
        assert msgspec.json.decode(relayed)[4] == frame.payload


@fuzzed("frames_v2")
def test_a_message_of_serializer_2_is_a_frame_or_a_frame_error(data: str | bytes) -> None:
    check(decoded(Version.V2, data))


@fuzzed("frames_v1")
def test_a_message_of_serializer_1_is_a_frame_or_a_frame_error(data: str | bytes) -> None:
    check(decoded(Version.V1, data))


# --- a whole session ------------------------------------------------------------------------------


def readable(version: Version, effects: list[Effect]) -> None:
    """Every frame that leaves is one its client can read."""
    for effect in effects:
        if isinstance(effect, Send):
            frame = json.loads(effect.frame)
            if version is Version.V2:
                assert len(frame) == 5 and isinstance(frame[4], dict)
            else:
                assert set(frame) == {"topic", "event", "payload", "ref"}


def answer(session: Session, effects: list[Effect], problem: bool) -> None:
    """Do what a shell would."""
    for effect in effects:
        match effect:
            case Join(channel):
                channel.key = channel.key or "made up"
                said = ["a problem"] if problem else []
                made = session.joined(
                    channel,
                    problems=said,
                    expires_at=None,
                    at=AT,
                    rights=ALL,
                    subject="s",
                )
                readable(session.version, made)
            case Renew(channel, token):
                assert token
                made = session.ended(channel, "no") if problem else []
                readable(session.version, made)
            case Leave(channel):
                assert channel.phase is Phase.GONE
            case SendBroadcast():
                assert effect.channel.phase is Phase.JOINED and isinstance(effect.payload, bytes)
                readable(session.version, session.topic_events.relayed(effect, not problem))
            case Track():
                assert effect.meta is None or isinstance(msgspec.json.decode(effect.meta), dict)
                readable(
                    session.version, session.topic_events.tracked(effect, "no" if problem else None)
                )
            case SubscribePresence(channel):
                readable(session.version, session.presence(channel, b"{}"))


@pytest.mark.parametrize("version", Version)
def test_a_session_answers_whatever_comes_and_goes_on(version: Version) -> None:
    name = "frames_v2" if version is Version.V2 else "frames_v1"

    @settings(max_examples=EXAMPLES)
    @given(st.lists(mutated(name), min_size=1, max_size=12), st.booleans())
    def run(messages: list[str | bytes], problem: bool) -> None:
        session = Session(version, Limits(), lambda: AT, last_seen=0.0)
        config = {"broadcast": {"ack": True}, "presence": {"enabled": True}}
        first = serializer.encode(
            version,
            join_ref="1",
            ref="1",
            topic="realtime:room",
            event="phx_join",
            payload={"config": config},
        )
        answer(session, session.receive(first, 0.0), problem=False)
        assert session.channels["realtime:room"].phase is Phase.JOINED
        for number, message in enumerate(messages):
            effects = session.receive(message, float(number))
            readable(version, effects)
            answer(session, effects, problem)
            readable(version, session.tick(float(number), 1e9))
        assert not session.closing
        beat = serializer.encode(
            version, join_ref=None, ref="beat", topic="phoenix", event="heartbeat", payload={}
        )
        (reply,) = session.receive(beat, 20.0)
        assert isinstance(reply, Send) and "beat" in str(reply.frame)

    run()


# --- joins, filters, cursors ----------------------------------------------------------------------


def value_of(data: str) -> Any:
    """The JSON value of this text, as a frame would bring it; the text itself if there is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return data


@fuzzed("joins")
def test_a_join_is_read_whatever_it_holds(data: str) -> None:
    payload = value_of(data)
    config = parse_join(payload)
    ids: dict[int, Any] = {}
    for binding, echo in zip(config.bindings, config.echoes, strict=True):
        msgspec.json.encode(echo)
        ids.setdefault(binding.id, echo)
        assert 0 <= binding.id < 2**27
        try:
            binding.predicate(COLUMNS)
        except BindingError as error:
            assert error.message
        assert binding.error or binding.not_published()
    if isinstance(payload, dict):
        assert token_in(payload) == config.access_token


@fuzzed("filters")
def test_a_filter_is_a_predicate_or_a_filter_error(data: str) -> None:
    try:
        predicate = parse_filter(data, COLUMNS)
    except FilterError as error:
        assert error.exception
        return
    matches = matcher(predicate)
    for row in ({}, dict.fromkeys(COLUMNS), {"id": 1, "title": "a", "is_public": True}):
        assert matches(row) in (True, False, None)


@fuzzed("cursors")
def test_a_cursor_names_a_place_or_none_and_is_never_an_error(data: str) -> None:
    for value in (data, value_of(data)):
        cursor = parse_cursor(value)
        assert (cursor is None) is (value is None)
        if cursor is not None and cursor != Cursor():
            assert cursor.seq is not None or cursor.commit_us is not None
            assert cursor.seq is None or 0 <= cursor.seq < 2**63
