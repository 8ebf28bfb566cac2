"""A version of uvicorn that names things otherwise is served all the same, and the log says what is
not bounded."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.websockets import websockets_sansio_impl
from uvicorn.server import ServerState

from realtime.delivery.client_frames import bound_first_connections, bound_frames
from tests.support.waiting import auntil

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def without(*names: str) -> Any:
    """uvicorn's class of protocols, but these methods."""
    own = websockets_sansio_impl.WebSocketsSansIOProtocol
    return type(
        own.__name__,
        own.__bases__,
        {name: value for name, value in vars(own).items() if name not in (*names, "__dict__")},
    )


@pytest.mark.parametrize("name", ["handle_cont", "receive", "send_receive_event_to_app"])
def test_a_class_that_is_not_as_expected_is_left_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    adapted = without(name, "handle_ping")
    monkeypatch.setattr(websockets_sansio_impl, "WebSocketsSansIOProtocol", adapted)
    before = dict(vars(adapted))
    with caplog.at_level(logging.WARNING, "realtime.server"):
        bound_first_connections()
        bound_first_connections()
    assert dict(vars(adapted)) == before
    (line,) = caplog.messages
    assert f"{name}, handle_ping" in line or f"handle_ping, {name}" in line
    assert "WebSocketsSansIOProtocol" in line and "without bound" in line


def test_a_module_without_the_class_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(websockets_sansio_impl, "WebSocketsSansIOProtocol")
    bound_first_connections()
    assert "websockets_sansio_impl has no WebSocketsSansIOProtocol" in caplog.text


class Transport:
    """What uvicorn asks of a transport."""

    def __init__(self) -> None:
        self.sent = b""

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


async def test_a_socket_that_is_not_as_expected_is_served_by_uvicorn_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapted = without()
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        bound_frames(send, 1_000)
        await receive()
        await send({"type": "websocket.accept"})
        received.append((await receive())["text"])

    config = Config(application, lifespan="off")
    config.load()
    one = adapted(config, ServerState(), {})
    # A later version might have another name for it.
    one.sending_closed = vars(one).pop("curr_msg_data_type")
    one.connection_made(Transport())
    one.data_received(HANDSHAKE)
    (task,) = one.tasks
    await auntil(lambda: b" 101 " in one.transport.sent)
    one.data_received(b"\x81\xfe\x08\x00\0\0\0\0" + b"x" * 2_048)
    await task
    assert received == ["x" * 2_048]
    assert "has no curr_msg_data_type" in caplog.text
