"""The broadcasts in the body of a POST. Pure.

The cost of a body is bounded by its size and by the number of its messages, also for a body made to
be expensive: only necessary parts become Python objects, reading ends after the first few wrong
messages, and the answer stays small.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from realtime.protocol.serializer import PREFIX, Encoding, FrameError, check_json
from realtime.topics.broadcast import LONGEST_EVENT, LONGEST_TOPIC, Broadcast

# Messages whose errors are reported.
_MOST_ERRORS = 10
# A body of this size is cheap to read whatever it holds, so its errors are reported in full.
_SMALL_BYTES = 32_768
_BLANK = "can't be blank"
_ABSENT = msgspec.Raw(b"null")

Errors = dict[str, Any]


class Unreadable(Exception):
    """A body that is not JSON. The text is for the sender."""


class Invalid(Exception):
    """A body of JSON with errors, by field."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(errors)
        self.errors = errors


class _Body(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct, gc=False):
    """Every field as raw JSON, which is checked below."""

    topic: msgspec.Raw = _ABSENT
    event: msgspec.Raw = _ABSENT
    payload: msgspec.Raw = _ABSENT
    private: msgspec.Raw = _ABSENT
    id: msgspec.Raw = _ABSENT


class _Shape(msgspec.Struct, gc=False):
    """The required fields of a message: decoding stops at the first message without them."""

    topic: msgspec.Raw
    event: msgspec.Raw
    payload: msgspec.Raw


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_shapes = msgspec.json.Decoder(list[_Shape]).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_batch(body: bytes, most: int | None, payload_bytes: int | None) -> list[Broadcast]:
    """The messages of a batch: at most `most`, each payload of at most `payload_bytes`.

    Raises Unreadable for a body that is not JSON, Invalid for one with errors.
    """
    given = bytes(_decode(_decode_body, body).messages)
    if not given:
        raise Invalid({"messages": [_BLANK]})
    if not given.startswith(b"["):
        raise Invalid({"messages": ["is not a list"]})
    if len(given) > _SMALL_BYTES:
        try:
            _decode(_decode_shapes, given)
        except Invalid as error:
            # The text names the index and the field: "... - at `$[3]`".
            raise Invalid({"messages": error.errors["body"]}) from None
    items = _decode(_decode_list, given)
    if most is not None and len(items) > most:
        raise Invalid({"messages": [f"should have at most {most} item(s)"]})
    found: list[Broadcast] = []
    errors: list[Errors] = []
    wrong = 0
    for item in items:
        message = _read_message(item, payload_bytes)
        if isinstance(message, Broadcast):
            found.append(message)
            errors.append({})
            continue
        errors.append(message)
        wrong += 1
        if wrong == _MOST_ERRORS:
            break
    if wrong:
        raise Invalid({"messages": errors})
    return found


def read_payload(body: bytes) -> bytes:
    """A JSON body as the payload of one broadcast. Raises Unreadable."""
    payload = body or b"{}"
    _check(payload)
    return payload


def name_errors(topic: object, event: object) -> Errors:
    """The errors of a topic's name (with or without the prefix) and of an event's."""
    if isinstance(topic, str):
        topic = topic.removeprefix(PREFIX)
    errors: Errors = {}
    for field, value, most in (("topic", topic, LONGEST_TOPIC), ("event", event, LONGEST_EVENT)):
        if value in (None, ""):
            errors[field] = [_BLANK]
        elif not isinstance(value, str):
            errors[field] = ["is not a string"]
        elif len(value) > most:
            errors[field] = [f"should be at most {most} character(s)"]
    return errors


def payload_errors(payload: bytes, most: int | None) -> Errors:
    """The error of a payload with more than `most` bytes."""
    if most is None or len(payload) <= most:
        return {}
    return {"payload": ["Payload size exceeds tenant limit"]}


def _read_message(item: msgspec.Raw, payload_bytes: int | None) -> Broadcast | Errors:
    """One message of a batch, or its errors by field."""
    try:
        fields = _decode_message(item)
    except msgspec.ValidationError:
        return {"message": ["is not an object"]}
    topic, event = _text(fields.topic), _text(fields.event)
    errors = name_errors(topic, event)
    private = bytes(fields.private)
    if private not in (b"null", b"true", b"false"):
        errors["private"] = ["is not true or false"]
    id_ = _text(fields.id)
    if id_ is not None and not _is_uuid(id_):
        errors["id"] = ["is not a UUID"]
    payload = bytes(fields.payload)
    if payload == b"null":
        errors["payload"] = [_BLANK]
    errors |= payload_errors(payload, payload_bytes)
    if errors or not isinstance(topic, str) or not isinstance(event, str):
        return errors
    _check(payload)
    return Broadcast(
        topic.removeprefix(PREFIX),
        private == b"true",
        event,
        payload,
        Encoding.JSON,
        id=id_ if isinstance(id_, str) else "",
    )


def _text(raw: msgspec.Raw) -> object:
    """A JSON string as text, null as None, any other value as raw JSON."""
    value = bytes(raw)
    if value == b"null":
        return None
    return _decode(_decode_text, value) if value.startswith(b'"') else raw


def _is_uuid(value: object) -> bool:
    try:
        UUID(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _check(payload: bytes) -> None:
    # The whole payload: every receiver must be able to read it.
    try:
        check_json(payload, "The body")
    except FrameError as error:
        raise Unreadable(str(error)) from None


def _decode(decode: Any, text: bytes) -> Any:
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise Invalid({"body": [str(error)]}) from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Unreadable(f"The body is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("The body is nested too deeply") from None
