"""uvicorn with a fast path: `uvicorn --ws realtime.server:FanoutProtocol project.asgi:application`.

Serves every ASGI application as uvicorn's own protocol does. An application that uses the
extension `rowcast.fanout` may open a direct outbox for its socket, and put frames into it that it
shares with other sockets. From then on every message goes by that outbox, in the order of the
calls. Frames are compressed where the server offers it (`--ws-per-message-deflate true`, uvicorn's
default) and the client accepts: once for all such clients, so compression is offered without
context takeover only.

Bounds what a client may cost below the application: pings, pongs and fragments in number, pongs
that are not read, messages in size before they are complete, frames before the handshake is
answered, and the time for the head of a request. The other limits and time-outs are uvicorn's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

from realtime.delivery.client_frames import deliver_uvicorn, end_uvicorn, fail_uvicorn
from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import WINDOW_BITS
from realtime.delivery.frame_budget import FrameBudget
from realtime.delivery.request_heads import limit_request_heads
from realtime.delivery.uvicorn_pieces import (
    forget_unread,
    hold_reading,
    holds_too_much,
    parse_pieces,
    receive_pieces,
    release,
)
from realtime.protocol.errors import CloseCode

EXTENSION = "rowcast.fanout"

_DEFLATE = [
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        # Messages of clients are inflated without a window kept for each client, either.
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings={"memLevel": 5},
    )
]

limit_request_heads()


class FanoutProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    _outbox: DirectOutbox | None = None
    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        if config.ws_per_message_deflate:
            self.conn.available_extensions = _DEFLATE
        self._offers: dict[str, Any] = {}
        self._budget = FrameBudget()
        # Whether the application waits for a message.
        self._awaited = False
        # The answer to the last ping of a client that does not read.
        self._pong: bytes | None = None

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application runs in the next iteration of the loop at the earliest.
            self._offers = cast(dict[str, Any], self.scope["extensions"])
            self._offers[EXTENSION] = {"open": self.open_outbox}
            # A client may send nothing before its handshake is answered; what it sends all the same
            # waits in the kernel.
            self.transport.pause_reading()

    def open_outbox(
        self,
        bound: int | None,
        ended: Callable[[Exception | None], None],
        message_bytes: int | None = None,
    ) -> DirectOutbox:
        """The direct outbox of this socket, after the accept. At most `bound` bytes wait in it.

        A message of the client with more than `message_bytes` closes the socket with 4413, before
        it is complete.
        """
        if message_bytes is not None:
            self.conn.max_message_size = message_bytes
        outbox = DirectOutbox(self.transport, bound, ended, self._compressed)
        self._outbox = outbox
        if self.disconnected or self.close_sent or self.transport.is_closing():
            outbox.drop()
        elif outbox.fd >= 0:
            # Writes beside the transport must stop whenever its buffer holds a byte. (With TLS
            # there are none, and asyncio's transport takes 0 for always full.)
            self.transport.set_write_buffer_limits(high=0)
            if not self.writable.is_set():
                # Its buffer holds bytes already: `pause_writing` was called before.
                outbox.pause_writing()
        return outbox

    @property
    def _compressed(self) -> bool:
        """Whether the client takes messages that are compressed once for all."""
        return any(
            isinstance(extension, PerMessageDeflate)
            and extension.local_max_window_bits >= WINDOW_BITS
            for extension in self.conn.extensions
        )

    # --- the application ------------------------------------------------------------------------

    async def send(self, message: Any) -> None:
        outbox = self._outbox
        if outbox is not None and message["type"] == "websocket.close":
            # The close frame follows the frames that wait, without waiting: a slow client reads it.
            outbox.finish()
            self.writable.set()
            self._abort_unless_read()
        elif outbox is not None and message["type"] == "websocket.send" and not self.close_sent:
            if not self.disconnected:
                text = message.get("text")
                outbox.put(text if text is not None else message["bytes"])
                outbox.flush()
            await self.writable.wait()
            if self.disconnected:
                raise ClientDisconnected
            return
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.transport.resume_reading()
            # The scope has what the client sent. `websockets` keeps the request as long as the
            # connection, with a list for each header.
            self.request.headers.clear()
            self.response.headers.clear()

    # --- frames below the application -----------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        receive_pieces(self, super().data_received, data)
        if holds_too_much(self, FanoutProtocol.close_for_others):
            self.close_for_others()

    def close_for_others(self) -> None:
        """Close the socket because others of its client's address need the memory that it has."""
        self._fail(CloseCode.TOO_MANY)
        forget_unread(self)

    async def receive(self) -> Any:
        await parse_pieces(self, super().data_received)
        self._awaited = True
        message = await super().receive()
        self._awaited = False
        hold_reading(self)
        return message

    def handle_text(self, event: Any) -> None:
        super().handle_text(event)
        release(event)

    def handle_bytes(self, event: Any) -> None:
        super().handle_bytes(event)
        release(event)

    def handle_ping(self) -> None:
        if not self._budget.control(self.loop.time()):
            self._fail(CloseCode.TOO_MANY)
            return
        pongs = self.conn.data_to_send()
        if self.close_sent or not pongs:
            return
        if self.writable.is_set():
            self.transport.write(b"".join(pongs))
        else:
            # Only the last ping needs an answer (RFC 6455, section 5.5.3).
            self._pong = pongs[-1]

    def handle_pong(self, event: Any) -> None:
        if self._budget.control(self.loop.time()):
            super().handle_pong(event)
        else:
            self._fail(CloseCode.TOO_MANY)

    def handle_cont(self, event: Any) -> None:
        if self._budget.fragment(self.loop.time()):
            super().handle_cont(event)
            release(event)
        else:
            self._fail(CloseCode.TOO_MANY)

    def send_receive_event_to_app(self) -> None:
        # A message that the application waits for is taken in the next iteration of the loop,
        # before more is read. To stop reading and to begin again would cost two system calls.
        awaited, self._awaited = self._awaited, False
        deliver_uvicorn(self, reads_on=awaited)

    def _fail(self, code: CloseCode) -> None:
        """Close the socket with this code, because of the client's frames."""
        fail_uvicorn(self, int(code), code.meaning)

    # --- the transport --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._outbox is not None:
            self._outbox.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._pong = self._pong, None
        if pong is not None and not self.close_sent:
            self.transport.write(pong)
        if self._outbox is not None and self.writable.is_set():
            self._outbox.resume_writing()

    # --- ends: no frame may follow a close frame ------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        if self._outbox is not None:
            self._outbox.drop()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)
        # It refers back to this object. A reference cycle is freed only by a full garbage
        # collection, which stops the process for half a second for every ten thousand closed
        # sockets.
        self._offers.pop(EXTENSION, None)

    def handle_close(self, event: Any) -> None:
        if self._outbox is not None:
            self._outbox.drop()
        super().handle_close(event)
        self._abort_unless_read()

    def handle_parser_exception(self) -> None:
        if self._outbox is not None:
            self._outbox.drop()
        end_uvicorn(self)

    def _abort_unless_read(self) -> None:
        """A client that does not read keeps its socket, and what waits for it, no longer."""
        if self._abort_timer is None and self.transport.get_write_buffer_size():
            self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def keepalive_timeout(self) -> None:
        if self._outbox is not None:
            self._outbox.drop()
        super().keepalive_timeout()
        self._abort_unless_read()

    def shutdown(self) -> None:
        if self._outbox is not None:
            self._outbox.finish()
        super().shutdown()
