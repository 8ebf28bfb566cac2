"""uvicorn with a fast path: `uvicorn --ws realtime.server:FanoutProtocol project.asgi:application`.

Serves every ASGI application as uvicorn's own protocol does. One that knows the extension
`rowcast.fanout` may ask for a line to its socket, and hand over frames that it shares with other
sockets (`line.py`). From then on everything that is sent goes by the line, in the order of calling,
and uncompressed unless the server offers compression (`--ws-per-message-deflate true`, which is
uvicorn's default) and the client took it: then once for all who did, which is why this server only
offers it without context takeover. Control frames, the handshakes, limits and time-outs remain
uvicorn's.
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

from realtime.delivery.direct_outbox import DirectOutbox
from realtime.delivery.frame import WINDOW_BITS

EXTENSION = "rowcast.fanout"


_DEFLATE = [
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        # What clients compress is read without keeping a window for each of them either.
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings={"memLevel": 5},
    )
]


class FanoutProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    _line: DirectOutbox | None = None
    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        if config.ws_per_message_deflate:
            self.conn.available_extensions = _DEFLATE
        self._offers: dict[str, Any] = {}

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application runs in the next turn of the loop at the earliest.
            self._offers = cast(dict[str, Any], self.scope["extensions"])
            self._offers[EXTENSION] = {"open": self.open_line}

    def open_line(
        self, bound: int | None, ended: Callable[[Exception | None], None]
    ) -> DirectOutbox:
        """After the accept: the way for prepared frames. At most `bound` bytes wait in it."""
        line = DirectOutbox(self.transport, bound, ended, self._compressed)
        self._line = line
        if self.disconnected or self.close_sent or self.transport.is_closing():
            line.drop()
        elif line.fd >= 0:
            # Who writes beside the transport has to know whenever that holds anything at all.
            # (With TLS nobody does, and asyncio's takes 0 for always full.)
            self.transport.set_write_buffer_limits(high=0)
            if not self.writable.is_set():
                # It holds something already, of which it told the protocol before.
                line.hold()
        return line

    @property
    def _compressed(self) -> bool:
        """Whether the client takes what is compressed for all."""
        return any(
            isinstance(extension, PerMessageDeflate)
            and extension.local_max_window_bits >= WINDOW_BITS
            for extension in self.conn.extensions
        )

    # --- the application ------------------------------------------------------------------------

    async def send(self, message: Any) -> None:
        line = self._line
        if line is not None and message["type"] == "websocket.close":
            # It follows what waits, and waits for nothing: a slow client is to find it there.
            line.finish()
            self.writable.set()
            if self.transport.get_write_buffer_size():
                self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        elif line is not None and message["type"] == "websocket.send" and not self.close_sent:
            if not self.disconnected:
                text = message.get("text")
                line.put(text if text is not None else message["bytes"])
                line.flush()
            await self.writable.wait()
            if self.disconnected:
                raise ClientDisconnected
            return
        await super().send(message)

    # --- the transport --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._line is not None:
            self._line.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._line is not None:
            self._line.resume()

    # --- ends: no frame may follow a close frame ------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line is not None:
            self._line.drop()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)
        # It leads back here, and what goes in circles waits for a full garbage collection: half a
        # second of standing still for every ten thousand sockets that have gone.
        self._offers.pop(EXTENSION, None)

    def handle_close(self, event: Any) -> None:
        if self._line is not None:
            self._line.drop()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        if self._line is not None:
            self._line.drop()
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        if self._line is not None:
            self._line.drop()
        super().keepalive_timeout()

    def shutdown(self) -> None:
        if self._line is not None:
            self._line.finish()
        super().shutdown()
