"""Every line of the golden transcripts, byte for byte, in both directions and both serializers."""

from __future__ import annotations

import msgspec
import pytest

from realtime.protocol.serializer import (
    BinaryBroadcast,
    ClientMessage,
    Encoding,
    Version,
    binary_broadcast,
    broadcast_payload,
    changes_payload,
    decode,
    encode,
    fanout,
)

TOPIC = "realtime:room"
JOIN = (
    '{"config":{"broadcast":{"ack":true,"self":true},"presence":{"key":"me","enabled":true},'
    '"postgres_changes":[{"event":"INSERT","schema":"public","table":"t","filter":"id=eq.1"}],'
    '"private":false},"access_token":"J"}'
)
TRACK = '{"type":"presence","event":"track","payload":{"n":1}}'
CHANGE = (
    '{"schema":"public","table":"t","type":"INSERT",'
    '"commit_timestamp":"2025-11-19T00:22:40.877Z","columns":[{"name":"id","type":"int8"}],'
    '"record":{"id":1},"errors":null}'
)
OK = {"status": "ok", "response": {}}

FROM_CLIENT = [
    ("1", "1", TOPIC, "phx_join", JOIN),
    ("1", "2", TOPIC, "presence", TRACK),
    (None, "4", "phoenix", "heartbeat", "{}"),
    ("1", "5", TOPIC, "phx_leave", "{}"),
]


def quoted(value: str | None) -> str:
    return "null" if value is None else f'"{value}"'


@pytest.mark.parametrize("line", FROM_CLIENT, ids=lambda line: line[3])
def test_a_client_line_is_read_in_both_serializers(line) -> None:
    join_ref, ref, topic, event, payload = line
    v2 = f'[{quoted(join_ref)},{quoted(ref)},"{topic}","{event}",{payload}]'
    v1 = (
        f'{{"topic":"{topic}","event":"{event}","payload":{payload},'
        f'"ref":{quoted(ref)},"join_ref":{quoted(join_ref)}}}'
    )
    expected = ClientMessage(
        join_ref, ref, topic, event, msgspec.json.decode(payload), payload.encode()
    )
    assert decode(Version.V2, v2) == expected
    assert decode(Version.V1, v1) == expected


TO_ONE_CLIENT = [
    (
        ("1", "1", TOPIC, "phx_reply"),
        {
            "status": "ok",
            "response": {
                "postgres_changes": [
                    {
                        "id": 47,
                        "event": "INSERT",
                        "schema": "public",
                        "table": "t",
                        "filter": "id=eq.1",
                    }
                ]
            },
        },
        '["1","1","realtime:room","phx_reply",{"status":"ok","response":{"postgres_changes":'
        '[{"id":47,"event":"INSERT","schema":"public","table":"t","filter":"id=eq.1"}]}}]',
    ),
    (
        ("1", None, TOPIC, "presence_state"),
        {},
        '["1",null,"realtime:room","presence_state",{}]',
    ),
    (
        ("1", None, TOPIC, "system"),
        {
            "status": "ok",
            "message": "Subscribed to PostgreSQL",
            "extension": "postgres_changes",
            "channel": "room",
        },
        '["1",null,"realtime:room","system",{"status":"ok","message":"Subscribed to PostgreSQL",'
        '"extension":"postgres_changes","channel":"room"}]',
    ),
    (
        ("1", "2", TOPIC, "phx_reply"),
        OK,
        '["1","2","realtime:room","phx_reply",{"status":"ok","response":{}}]',
    ),
    (
        ("1", "3", TOPIC, "phx_reply"),
        OK,
        '["1","3","realtime:room","phx_reply",{"status":"ok","response":{}}]',
    ),
    (
        (None, "4", "phoenix", "phx_reply"),
        OK,
        '[null,"4","phoenix","phx_reply",{"status":"ok","response":{}}]',
    ),
    (
        ("1", "5", TOPIC, "phx_reply"),
        OK,
        '["1","5","realtime:room","phx_reply",{"status":"ok","response":{}}]',
    ),
    (("1", "1", TOPIC, "phx_close"), {}, '["1","1","realtime:room","phx_close",{}]'),
]


@pytest.mark.parametrize("parts, payload, line", TO_ONE_CLIENT)
def test_a_line_to_one_client_is_written_byte_for_byte(parts, payload, line) -> None:
    names = dict(zip(("join_ref", "ref", "topic", "event"), parts, strict=True))
    assert encode(Version.V2, **names, payload=payload) == line


def test_a_version_1_reply_is_written_byte_for_byte() -> None:
    line = encode(Version.V1, join_ref="1", ref="1", topic=TOPIC, event="phx_reply", payload=OK)
    assert line == (
        '{"topic":"realtime:room","event":"phx_reply",'
        '"payload":{"status":"ok","response":{}},"ref":"1"}'
    )


def test_a_version_1_push_has_a_null_ref_and_no_join_ref() -> None:
    line = encode(Version.V1, join_ref="1", ref=None, topic=TOPIC, event="system", payload={})
    assert line == '{"topic":"realtime:room","event":"system","payload":{},"ref":null}'


def test_a_presence_diff_is_fanned_out_byte_for_byte() -> None:
    diff = b'{"joins":{"me":{"metas":[{"phx_ref":"a1","n":1}]}},"leaves":{}}'
    assert fanout(Version.V2, TOPIC, "presence_diff", diff) == (
        '[null,null,"realtime:room","presence_diff",'
        '{"joins":{"me":{"metas":[{"phx_ref":"a1","n":1}]}},"leaves":{}}]'
    )


def test_a_change_is_fanned_out_byte_for_byte() -> None:
    payload = changes_payload([47], CHANGE.encode())
    assert fanout(Version.V2, TOPIC, "postgres_changes", payload) == (
        '[null,null,"realtime:room","postgres_changes",{"ids":[47],"data":' + CHANGE + "}]"
    )
    assert fanout(Version.V1, TOPIC, "postgres_changes", payload) == (
        '{"topic":"realtime:room","event":"postgres_changes","payload":{"ids":[47],"data":'
        + CHANGE
        + '},"ref":null}'
    )


def test_a_broadcast_is_fanned_out_byte_for_byte() -> None:
    assert fanout(Version.V2, TOPIC, "broadcast", broadcast_payload("ev", b'{"a":1}')) == (
        '[null,null,"realtime:room","broadcast",'
        '{"type":"broadcast","event":"ev","payload":{"a":1}}]'
    )


def test_a_replayed_broadcast_says_so_in_its_meta() -> None:
    meta = {"replayed": True, "id": "u"}
    assert broadcast_payload("ev", b"{}", meta) == (
        b'{"type":"broadcast","event":"ev","payload":{},"meta":{"replayed":true,"id":"u"}}'
    )


def test_the_verified_bytes_of_a_kind_3_frame_are_read() -> None:
    data = bytes.fromhex("03 01 01 0d 02 00 01") + b"67" + b"realtime:room" + b"ev" + b'{"a":1}'
    assert decode(Version.V2, data) == ClientMessage(
        "6", "7", TOPIC, "broadcast", BinaryBroadcast("ev", b'{"a":1}', Encoding.JSON, {})
    )


def test_a_kind_4_frame_is_written_byte_for_byte() -> None:
    assert binary_broadcast(TOPIC, "ev", b'{"a":1}', Encoding.JSON) == (
        bytes.fromhex("04 0d 02 00 01") + b'realtime:roomev{"a":1}'
    )


def test_a_binary_kind_4_frame_with_metadata_is_written_byte_for_byte() -> None:
    assert binary_broadcast(TOPIC, "é", b"\x00\xff", Encoding.BINARY, {"id": "u"}) == (
        bytes.fromhex("04 0d 02 0a 00") + b"realtime:room" + "é".encode() + b'{"id":"u"}\x00\xff'
    )
