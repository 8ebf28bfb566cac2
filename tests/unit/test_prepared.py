"""A prepared message: the frame that the RFC asks for, made once."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from realtime.prepared import Prepared, websocket_frame


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
    prepared = Prepared("a message")
    assert prepared.made is None
    frame = prepared.frame()
    assert frame is prepared.frame() is prepared.made
    assert len(prepared) == len("a message")
