"""The serializers: messages of clients decoded, frames for clients encoded.

Owns the V1 object, the V2 array and the binary kinds. The meaning of events, state and I/O are
elsewhere. Every malformed message is a `FrameError`, whose text may be logged or shown to the
client unchanged.
"""

from __future__ import annotations

import enum
import gc
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import msgspec

PREFIX = "realtime:"
"""What the name of a topic begins with on the wire."""

MAX_DEPTH = 64
"""Levels of nesting a payload may have: other clients must be able to parse what is relayed."""

_KIND_PUSH = 0
_KIND_USER_BROADCAST_PUSH = 3
_KIND_USER_BROADCAST = 4
_TEXT_KEYS = ("join_ref", "ref", "topic", "event", "payload")
_VERSION_1 = re.compile(r"1\.0\.(0|[1-9][0-9]{0,8})", re.ASCII)
_VERSION_2 = re.compile(r"2\.0\.(0|[1-9][0-9]{0,8})", re.ASCII)


class FrameError(ValueError):
    """The frame is malformed."""


class Version(enum.Enum):
    """The serializer of a connection, chosen by its `vsn` parameter."""

    V1 = "1.0.0"
    V2 = "2.0.0"


class Encoding(enum.IntEnum):
    """The type of a binary broadcast's payload."""

    BINARY = 0
    JSON = 1


class BinaryBroadcast(msgspec.Struct, frozen=True):
    """A broadcast that came in a binary frame.

    `payload` holds the bytes as sent; with Encoding.JSON they have been checked to be JSON, so they
    may be spliced into a text frame.
    """

    event: str
    payload: bytes
    encoding: Encoding
    metadata: dict[str, Any]


class ClientMessage(msgspec.Struct, frozen=True):
    """One message from a client. `payload` is a BinaryBroadcast when the frame was binary.

    `raw` is the payload's JSON text as sent (empty for a binary frame), for relaying a payload
    unchanged: numbers beyond a double and repeated keys survive.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: dict[str, Any] | BinaryBroadcast
    raw: bytes = b""

    @property
    def fields(self) -> dict[str, Any]:
        """The payload as an object; empty for a binary frame, which has no fields."""
        return {} if isinstance(self.payload, BinaryBroadcast) else self.payload


class _ObjectFrame(msgspec.Struct, frozen=True):
    topic: str
    event: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    ref: str | int | None = None
    join_ref: str | int | None = None


_decode_array = msgspec.json.Decoder(
    tuple[str | int | None, str | int | None, str, str, msgspec.Raw]
).decode
_decode_object = msgspec.json.Decoder(_ObjectFrame).decode


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise msgspec.ValidationError("Number out of range")
    return value


# For some numbers msgspec takes a hundred times longer than Python to make a float.
_decode_payload = msgspec.json.Decoder(dict[str, Any], float_hook=_finite).decode
_decode_any = msgspec.json.Decoder(Any, float_hook=_finite).decode
# Brackets as steps into a container and, as signed bytes, out of one.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_encode = msgspec.json.Encoder(decimal_format="number").encode


def negotiate(vsn: str | None) -> Version:
    """The serializer for the `vsn` query parameter; absent means V1. Raises FrameError."""
    if vsn is None or _VERSION_1.fullmatch(vsn):
        return Version.V1
    if _VERSION_2.fullmatch(vsn):
        return Version.V2
    raise FrameError("unsupported vsn: expected 1.0.0 or 2.0.0")


# --- client to server ---------------------------------------------------------------------------


def decode(version: Version, data: str | bytes, payload_bytes: int | None = None) -> ClientMessage:
    """Decode one WebSocket message: `str` for a text message, `bytes` for a binary one.

    A payload of more than `payload_bytes` is left as `raw` text, as if it had no fields, unless it
    is a join's: it will be refused, and decoding it would take long.

    Raises FrameError, and nothing else, for a message that this version does not have.
    """
    if isinstance(data, bytes):
        if version is Version.V1:
            raise FrameError("binary frames need vsn 2.0.0")
        return _decode_binary(data)
    try:
        if version is Version.V2:
            join_ref, ref, topic, event, raw = _decode_array(data)
        else:
            message = _decode_object(data)
            join_ref, ref, raw = message.join_ref, message.ref, message.payload
            topic, event = message.topic, message.event
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FrameError(_explain(error, version)) from None
    text = bytes(raw)
    if payload_bytes is not None and len(text) > payload_bytes and event != "phx_join":
        return ClientMessage(_ref(join_ref), _ref(ref), topic, event, {}, text)
    payload, text = _text_payload(text)
    return ClientMessage(_ref(join_ref), _ref(ref), topic, event, payload, text)


def _ref(value: str | int | None) -> str | None:
    """Refs are decimal strings; some clients send the number itself."""
    return value if value is None or isinstance(value, str) else str(value)


def _text_payload(raw: bytes) -> tuple[dict[str, Any], bytes]:
    if raw == b"null":
        return {}, b"{}"
    payload = _json(raw, _decode_payload, "payload")
    return payload, raw


def check_json(raw: bytes, what: str) -> None:
    """Raises FrameError, which names `what`, unless this is JSON that clients can parse."""
    _json(raw, _decode_any, what)


def _json(raw: bytes, decoder: Any, what: str) -> Any:
    nested = raw.count(b"{") + raw.count(b"[") > MAX_DEPTH
    try:
        if nested:
            with _without_collector():
                value = decoder(raw)
        else:
            value = decoder(raw)
    except msgspec.ValidationError as error:
        # The path inside the payload is left out; the text names the expected type.
        raise FrameError(f"{what}: {str(error).partition(' - at ')[0]}") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise FrameError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise FrameError(f"{what} is nested deeper than {MAX_DEPTH} levels") from None
    if nested and _depth(raw) > MAX_DEPTH:
        raise FrameError(f"{what} is nested deeper than {MAX_DEPTH} levels")
    return value


@contextmanager
def _without_collector() -> Iterator[None]:
    """Suspend the collector of cycles. JSON has none, and decoding many small lists would have it
    search the whole heap again and again, which takes ten times longer than the decoding."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _depth(raw: bytes) -> int:
    """How deep containers nest in valid JSON. Counts brackets outside strings without a loop in
    Python, because a client may send the text for which a loop takes longest."""
    outside = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _explain(error: Exception, version: Version) -> str:
    """msgspec's own text, with the index in the array replaced by the part's name."""
    if isinstance(error, RecursionError):
        return "the frame is nested too deeply"
    if isinstance(error, UnicodeError):
        return "the frame is not UTF-8"
    if not isinstance(error, msgspec.ValidationError):
        return f"the frame is not JSON: {error}"
    text, _, path = str(error).partition(" - at `$")
    if version is Version.V2 and not path:
        return "expected [join_ref, ref, topic, event, payload]"
    if path.startswith("["):
        return f"{_TEXT_KEYS[int(path[1])]}: {text}"
    return f"{path[1:-1]}: {text}" if path else text


def _decode_binary(data: bytes) -> ClientMessage:
    if not data:
        raise FrameError("empty binary frame")
    if data[0] == _KIND_USER_BROADCAST_PUSH:
        return _decode_broadcast(data)
    if data[0] == _KIND_PUSH:
        (join_ref, ref, topic, event), payload = _sections(
            data, 5, ("join_ref", "ref", "topic", "event")
        )
        binary = BinaryBroadcast(event, payload, Encoding.BINARY, {})
        return ClientMessage(join_ref or None, ref or None, topic, event, binary)
    raise FrameError(f"unknown binary kind {data[0]}: expected 0 or 3")


def _decode_broadcast(data: bytes) -> ClientMessage:
    names = ("join_ref", "ref", "topic", "event", "metadata")
    (join_ref, ref, topic, event, meta), payload = _sections(data, 7, names)
    if data[6] > Encoding.JSON:
        raise FrameError(f"unknown payload encoding {data[6]}: expected 0 or 1")
    encoding = Encoding(data[6])
    if encoding is Encoding.JSON:
        _json(payload, _decode_any, "payload")
    metadata = _json(meta.encode(), _decode_payload, "metadata") if meta else {}
    binary = BinaryBroadcast(event, payload, encoding, metadata)
    return ClientMessage(join_ref or None, ref or None, topic, "broadcast", binary)


def _sections(data: bytes, start: int, names: Sequence[str]) -> tuple[list[str], bytes]:
    """The named texts, from `start` on with lengths from byte 1 on, and the bytes after them."""
    if len(data) < start:
        raise FrameError(f"binary frame is cut short: {len(data)} of {start} header bytes")
    texts = []
    for name, length in zip(names, data[1:], strict=False):
        end = start + length
        if end > len(data):
            raise FrameError(f"binary frame is cut short in {name}")
        try:
            texts.append(data[start:end].decode())
        except UnicodeDecodeError:
            raise FrameError(f"{name} is not UTF-8") from None
        start = end
    return texts, data[start:]


# --- server to client ---------------------------------------------------------------------------


def encode(
    version: Version,
    *,
    join_ref: str | None,
    ref: str | None,
    topic: str,
    event: str,
    payload: Mapping[str, Any] | msgspec.Raw | None,
) -> str:
    """A frame for one client. The payload may be or hold msgspec.Raw; None is sent as {}.

    The JavaScript client throws on a null payload, so none is ever sent. V1 has no join_ref.
    """
    body = {} if payload is None else payload
    if version is Version.V2:
        return _encode((join_ref, ref, topic, event, body)).decode()
    return _encode({"topic": topic, "event": event, "payload": body, "ref": ref}).decode()


def fanout(version: Version, topic: str, event: str, payload: bytes) -> str:
    """A frame for all listeners of a topic, made once per version around a JSON payload."""
    names = _encode(topic), _encode(event)
    if version is Version.V2:
        return (b"[null,null,%b,%b,%b]" % (*names, payload)).decode()
    text = b'{"topic":%b,"event":%b,"payload":%b,"ref":null}' % (*names, payload)
    return text.decode()


def changes_payload(ids: Sequence[int], data: bytes) -> bytes:
    """The payload of a `postgres_changes` frame: ids of bindings, and the change."""
    return b'{"ids":%b,"data":%b}' % (_encode(ids), data)


def broadcast_payload(event: str, payload: bytes, meta: Mapping[str, Any] | None = None) -> bytes:
    """The payload of a `broadcast` text frame around a message that is already JSON."""
    if not meta:
        return b'{"type":"broadcast","event":%b,"payload":%b}' % (_encode(event), payload)
    return b'{"type":"broadcast","event":%b,"payload":%b,"meta":%b}' % (
        _encode(event),
        payload,
        _encode(meta),
    )


def binary_broadcast(
    topic: str,
    event: str,
    payload: bytes,
    encoding: Encoding,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """A broadcast as a binary frame: the only kind that V2 clients read. V1 clients read none.

    Raises FrameError when topic, event or metadata take more than 255 bytes of UTF-8.
    """
    sections = (topic.encode(), event.encode(), _encode(metadata) if metadata else b"")
    for name, section in zip(("topic", "event", "metadata"), sections, strict=True):
        if len(section) > 255:
            raise FrameError(f"{name} is longer than the 255 bytes a binary frame can carry")
    lengths = bytes(map(len, sections))
    return b"".join(
        (bytes((_KIND_USER_BROADCAST,)), lengths, bytes((encoding,)), *sections, payload)
    )
