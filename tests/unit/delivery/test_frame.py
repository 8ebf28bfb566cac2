"""A prepared message: the frame that the RFC asks for, made once."""

from __future__ import annotations

from hashlib import shake_128

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from realtime.delivery.frame import WINDOW_BITS, SharedFrame, compressed_frame, websocket_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("text", [True, False])
def test_a_frame_is_what_a_websocket_library_makes_of_the_message(size: int, text: bool) -> None:
    message: str | bytes = "x" * size if text else b"\x00" * size
    data = message.encode() if isinstance(message, str) else message
    opcode = Opcode.TEXT if text else Opcode.BINARY
    assert websocket_frame(message) == Frame(opcode, data).serialize(mask=False)


def test_a_length_counts_bytes_not_characters() -> None:
    assert websocket_frame("é" * 100)[:4] == bytes((0x81, 126, 0, 200))


def test_the_frame_is_made_when_it_is_asked_for_and_then_kept() -> None:
    prepared = SharedFrame("a message")
    assert prepared.made is None
    frame = prepared.frame()
    assert frame is prepared.frame() is prepared.made
    assert len(prepared) == len("a message")


def read(frame: bytes) -> bytes:
    """What a client that agreed to a window of this size, and to no other, reads."""
    reader = StreamReader()
    reader.feed_data(frame)
    reader.feed_eof()
    client = PerMessageDeflate(True, True, WINDOW_BITS, WINDOW_BITS)
    parsing = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=[client])
    with pytest.raises(StopIteration) as done:
        next(parsing)
    return bytes(done.value.value.data)


@given(st.text(max_size=50), st.integers(0, 3_000))
def test_a_compressed_frame_is_read_by_a_library_as_the_message(text: str, times: int) -> None:
    for message in (text * times, (text * times).encode()):
        data = message.encode() if isinstance(message, str) else message
        assert read(SharedFrame(message).form(True)) == data


def test_compression_makes_a_row_smaller_and_leaves_alone_what_it_would_not() -> None:
    row = '{"id":1,"title":"soup"},' * 40
    prepared = SharedFrame(row)
    assert len(prepared.form(True)) < len(row) / 5
    assert prepared.form(True) is prepared.form(True)
    assert prepared.form(False) is prepared.frame() is prepared.made
    assert compressed_frame("short") is None
    noise = shake_128(b"noise").digest(400)
    assert SharedFrame(noise).form(True) == websocket_frame(noise)
