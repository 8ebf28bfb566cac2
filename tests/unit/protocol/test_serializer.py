"""Frames beyond the transcripts: strictness on the way in, promises on the way out."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocol.serializer import (
    MAX_DEPTH,
    BinaryBroadcast,
    ClientMessage,
    Encoding,
    FrameError,
    Version,
    binary_broadcast,
    decode,
    encode,
    fanout,
    negotiate,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
refs = st.none() | texts
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
payloads = st.dictionaries(texts, json_values, max_size=4)
versions = st.sampled_from(Version)


def kind3(join_ref: str, ref: str, topic: str, event: str, meta: bytes, kind: int, body: bytes):
    sections = [part.encode() for part in (join_ref, ref, topic, event)] + [meta]
    return bytes([3, *map(len, sections), kind]) + b"".join(sections) + body


def v2(payload: str) -> str:
    return f'["1","2","t","e",{payload}]'


@pytest.mark.parametrize(
    "vsn, version",
    [
        (None, Version.V1),
        ("1.0.0", Version.V1),
        ("1.0.7", Version.V1),
        ("2.0.0", Version.V2),
        ("2.0.12", Version.V2),
    ],
)
def test_a_version_is_negotiated_from_vsn(vsn, version) -> None:
    assert negotiate(vsn) is version


@pytest.mark.parametrize(
    "vsn",
    ["", "1", "1.0", "1.1.0", "2.1.0", "3.0.0", "2.0.0-rc", "2.0.01", " 2.0.0", "2.0.0\n", "٢.0.0"],
)
def test_any_other_vsn_is_refused(vsn) -> None:
    with pytest.raises(FrameError, match="unsupported vsn"):
        negotiate(vsn)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "the frame is not JSON"),
        ("hello", "the frame is not JSON"),
        ('["1","2","t","e",{}', "the frame is not JSON"),
        ('["1","2","t","e",{}] x', "the frame is not JSON"),
        ('{"topic":"t","event":"e"}', "expected [join_ref, ref, topic, event, payload]"),
        ('["1","2","t","e"]', "expected [join_ref, ref, topic, event, payload]"),
        ('["1","2","t","e",{},1]', "expected [join_ref, ref, topic, event, payload]"),
        ('[true,"2","t","e",{}]', "join_ref: "),
        ('["1",2.5,"t","e",{}]', "ref: "),
        ('["1","2",null,"e",{}]', "topic: "),
        ('["1","2","t",7,{}]', "event: "),
        (v2("[]"), "payload: Expected `object`, got `array`"),
        (v2('"x"'), "payload: Expected `object`, got `str`"),
        (v2('{"a":"\\ud800"}'), "the frame is not JSON"),
        (v2('{"a":1e999}'), "payload: Number out of range"),
        ('["\ud800","2","t","e",{}]', "the frame is not UTF-8"),
    ],
)
def test_a_malformed_version_2_text_says_what_is_wrong(text, complaint) -> None:
    with pytest.raises(FrameError) as caught:
        decode(Version.V2, text)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('["1","2","t","e",{}]', "Expected `object`, got `array`"),
        ('{"event":"e","payload":{},"ref":"1"}', "Object missing required field `topic`"),
        ('{"topic":"t","payload":{},"ref":"1"}', "Object missing required field `event`"),
        ('{"topic":1,"event":"e","payload":{},"ref":"1"}', "topic: "),
        ('{"topic":"t","event":"e","payload":[],"ref":"1"}', "payload: "),
        ('{"topic":"t","event":"e","payload":{},"ref":{}}', "ref: "),
    ],
)
def test_a_malformed_version_1_text_says_what_is_wrong(text, complaint) -> None:
    with pytest.raises(FrameError) as caught:
        decode(Version.V1, text)
    assert str(caught.value).startswith(complaint)


def test_a_number_as_ref_is_taken_for_its_digits() -> None:
    frame = decode(Version.V2, '[1,2,"t","e",{}]')
    assert (frame.join_ref, frame.ref) == ("1", "2")


def test_a_null_payload_counts_as_empty() -> None:
    assert decode(Version.V2, v2("null")) == ClientMessage("1", "2", "t", "e", {}, b"{}")


def test_version_1_needs_neither_refs_nor_payload() -> None:
    assert decode(Version.V1, '{"topic":"t","event":"e"}') == ClientMessage(
        None, None, "t", "e", {}, b"{}"
    )


def test_unknown_keys_of_version_1_are_passed_over() -> None:
    frame = decode(Version.V1, '{"topic":"t","event":"e","payload":{},"ref":null,"x":[1]}')
    assert frame.topic == "t"


@pytest.mark.parametrize("depth, fine", [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_a_payload_may_nest_only_so_deep(depth, fine) -> None:
    text = v2('{"a":' * depth + "1" + "}" * depth)
    if fine:
        assert decode(Version.V2, text).topic == "t"
    else:
        with pytest.raises(FrameError, match="deeper than 64 levels"):
            decode(Version.V2, text)


def test_many_siblings_are_not_depth() -> None:
    payload = '{"a":[' + ",".join(["{}"] * 1000) + "]}"
    assert len(decode(Version.V2, v2(payload)).fields["a"]) == 1000


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("opening", ["[", '{"a":', '[1,2,"t","e",{"a":['])
def test_nesting_that_would_exhaust_the_stack_is_an_ordinary_error(version, opening) -> None:
    with pytest.raises(FrameError):
        decode(version, opening * 200_000)


def test_the_raw_payload_keeps_what_json_values_lose() -> None:
    payload = '{"a":1.0,"b":1E2,"c":0.1000000000000000055511151231257827,"a":2}'
    assert decode(Version.V2, v2(payload)).raw == payload.encode()


def test_version_1_has_no_binary_frames() -> None:
    with pytest.raises(FrameError, match=r"vsn 2\.0\.0"):
        decode(Version.V1, b"\x03\x00\x00\x00\x00\x00\x00")


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 91, 255])
def test_other_binary_kinds_are_refused(kind) -> None:
    with pytest.raises(FrameError, match=f"unknown binary kind {kind}"):
        decode(Version.V2, bytes([kind]) * 20)


def test_an_empty_binary_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="empty"):
        decode(Version.V2, b"")


def test_every_truncation_of_a_kind_3_frame_is_refused() -> None:
    whole = kind3("6", "7", "realtime:room", "ev", b'{"persist":true}', 1, b'{"a":1}')
    assert decode(Version.V2, whole).topic == "realtime:room"
    for length in range(len(whole)):
        with pytest.raises(FrameError):
            decode(Version.V2, whole[:length])


def test_a_truncation_says_where_the_frame_ends() -> None:
    whole = kind3("6", "7", "realtime:room", "ev", b"", 0, b"")
    with pytest.raises(FrameError, match="cut short: 3 of 7 header bytes"):
        decode(Version.V2, whole[:3])
    with pytest.raises(FrameError, match="cut short in topic"):
        decode(Version.V2, whole[:12])


@pytest.mark.parametrize(
    "data, complaint",
    [
        (kind3("", "", "t", "e", b"", 2, b""), "unknown payload encoding 2"),
        (kind3("", "", "t", "e", b"", 1, b""), "payload is not JSON"),
        (kind3("", "", "t", "e", b"", 1, b"{} {}"), "payload is not JSON"),
        (kind3("", "", "t", "e", b"", 1, b'"\xff"'), "payload is not JSON"),
        (kind3("", "", "t", "e", b"", 1, b"[" * 65 + b"]" * 65), "payload is nested deeper"),
        (kind3("", "", "t", "e", b"", 1, b"[" * 100_000), "payload is nested deeper"),
        (kind3("", "", "t", "e", b"[]", 0, b""), "metadata: Expected `object`"),
        (kind3("", "", "t", "e", b"x", 0, b""), "metadata is not JSON"),
        (b"\x03\x00\x00\x01\x01\x00\x00\xffe", "topic is not UTF-8"),
    ],
)
def test_a_malformed_kind_3_frame_says_what_is_wrong(data, complaint) -> None:
    with pytest.raises(FrameError) as caught:
        decode(Version.V2, data)
    assert str(caught.value).startswith(complaint)


def test_the_json_of_a_kind_3_frame_may_be_any_value() -> None:
    frame = decode(Version.V2, kind3("", "", "t", "e", b"", 1, b"null"))
    assert frame.payload == BinaryBroadcast("e", b"null", Encoding.JSON, {})
    assert (frame.join_ref, frame.ref) == (None, None)


def test_a_kind_0_push_keeps_its_event_and_has_no_fields() -> None:
    data = bytes([0, 1, 2, 1, 8]) + b"1" + b"23" + b"t" + b"phx_join" + b"\x00\x01"
    frame = decode(Version.V2, data)
    assert frame == ClientMessage(
        "1", "23", "t", "phx_join", BinaryBroadcast("phx_join", b"\x00\x01", Encoding.BINARY, {})
    )
    assert frame.fields == {}


@given(versions, st.text() | st.binary(max_size=60))
def test_decoding_raises_nothing_but_frame_errors(version, data) -> None:
    try:
        frame = decode(version, data)
    except FrameError as error:
        assert str(error)
    else:
        assert isinstance(frame, ClientMessage)


@given(st.binary(max_size=80), st.sampled_from([b"\x00", b"\x03"]))
def test_binary_decoding_raises_nothing_but_frame_errors(data, kind) -> None:
    try:
        decode(Version.V2, kind + data)
    except FrameError as error:
        assert str(error)


@given(json_values, versions)
def test_any_json_as_a_frame_raises_nothing_but_frame_errors(value, version) -> None:
    try:
        decode(version, msgspec.json.encode(value).decode())
    except FrameError as error:
        assert str(error)


@given(refs, refs, texts, texts, payloads)
def test_version_2_frames_round_trip(join_ref, ref, topic, event, payload) -> None:
    line = encode(Version.V2, join_ref=join_ref, ref=ref, topic=topic, event=event, payload=payload)
    frame = decode(Version.V2, line)
    assert (frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload) == (
        join_ref,
        ref,
        topic,
        event,
        payload,
    )


@given(refs, texts, texts, payloads)
def test_version_1_frames_round_trip_without_join_ref(ref, topic, event, payload) -> None:
    line = encode(Version.V1, join_ref="9", ref=ref, topic=topic, event=event, payload=payload)
    assert list(msgspec.json.decode(line)) == ["topic", "event", "payload", "ref"]
    frame = decode(Version.V1, line)
    assert (frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload) == (
        None,
        ref,
        topic,
        event,
        payload,
    )


@given(versions, texts, texts, payloads)
def test_a_fanned_out_frame_is_what_encode_would_write(version, topic, event, payload) -> None:
    line = fanout(version, topic, event, msgspec.json.encode(payload))
    assert line == encode(
        version, join_ref=None, ref=None, topic=topic, event=event, payload=payload
    )


@given(texts, texts, texts, texts, st.binary(max_size=20))
def test_kind_3_frames_round_trip(join_ref, ref, topic, event, body) -> None:
    frame = decode(Version.V2, kind3(join_ref, ref, topic, event, b"", 0, body))
    assert frame == ClientMessage(
        join_ref or None,
        ref or None,
        topic,
        "broadcast",
        BinaryBroadcast(event, body, Encoding.BINARY, {}),
    )


@pytest.mark.parametrize("version", Version)
def test_a_payload_is_never_null(version) -> None:
    line = encode(version, join_ref=None, ref=None, topic="t", event="e", payload=None)
    assert "{}" in line


def test_a_payload_may_hold_json_made_before() -> None:
    line = encode(
        Version.V2,
        join_ref=None,
        ref="1",
        topic="t",
        event="e",
        payload={"response": msgspec.Raw(b'{"n": 1.50}')},
    )
    assert line == '[null,"1","t","e",{"response":{"n": 1.50}}]'


def test_a_decimal_is_written_digit_for_digit_as_a_number() -> None:
    line = encode(
        Version.V2, join_ref=None, ref=None, topic="t", event="e", payload={"n": Decimal("1.50")}
    )
    assert line == '[null,null,"t","e",{"n":1.50}]'


@pytest.mark.parametrize(
    "topic, event, metadata, named",
    [
        ("é" * 128, "e", None, "topic"),
        ("t", "e" * 256, None, "event"),
        ("t", "e", {"id": "x" * 255}, "metadata"),
    ],
)
def test_a_section_too_long_for_its_length_byte_is_refused(topic, event, metadata, named) -> None:
    with pytest.raises(FrameError, match=f"{named} is longer than the 255 bytes"):
        binary_broadcast(topic, event, b"", Encoding.BINARY, metadata)


def test_sections_of_255_bytes_fit() -> None:
    assert (
        binary_broadcast("t" * 255, "e" * 255, b"", Encoding.BINARY)[:5] == b"\x04\xff\xff\x00\x00"
    )


@pytest.mark.parametrize("version", list(Version))
def test_a_payload_that_is_too_large_is_not_decoded_unless_it_is_a_joins(version: Version) -> None:
    def said(event: str) -> str:
        payload = '{"event":"track","list":[1,2,3]}'
        if version is Version.V2:
            return f'["1","2","realtime:a","{event}",{payload}]'
        return f'{{"topic":"realtime:a","event":"{event}","payload":{payload},"ref":"2"}}'

    for event in ("broadcast", "presence", "access_token"):
        message = decode(version, said(event), 10)
        assert (message.fields, len(message.raw), message.ref) == ({}, 32, "2")
        assert decode(version, said(event), 32).fields["event"] == "track"
        assert decode(version, said(event)).fields["list"] == [1, 2, 3]
    assert decode(version, said("phx_join"), 10).fields["list"] == [1, 2, 3]
