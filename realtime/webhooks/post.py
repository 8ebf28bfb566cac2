"""One request to a receiver, within bounds of time and size.

The name is looked up once, every address that it has is checked, and the connection is made to one
of these addresses, so a name cannot lead elsewhere between check and use. TLS and the header Host
have the name. Redirects are not followed. Proxies that the environment names are not used: through
one, the receiver's address would be looked up elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import h11

from auth_rls import forks
from realtime.webhooks.addresses import Allowed, is_allowed, refusal
from realtime.webhooks.answer import EXCERPT, Answer, excerpt_of
from realtime.webhooks.destination import (
    HOW_TO_ALLOW,
    UNENCRYPTED,
    BadUrl,
    Destination,
    check_destination,
)
from realtime.webhooks.retries import retry_after

# Lookups that hang occupy none of the threads of others.
_LOOKUPS = 8
# Of the addresses of a name, how many are tried.
_TRIED = 4
# Of an answer's head, and of all that is read.
_HEAD_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024
_CHUNK = 4 * 1024

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]
LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]
Trust = Callable[[], Awaitable[ssl.SSLContext]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of a request: to connect to one address, TLS included; for all of it; and to read the
    body of an answer whose status is known."""

    connect: float = 5.0
    total: float = 15.0
    body: float = 2.0


_BOUNDS = Bounds()


class _Refused(Exception):
    """Nothing was sent, for this reason."""


async def look_up(host: str, port: int) -> Sequence[Address]:
    """Every address of a name, by the system. Raises OSError or UnicodeError."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_lookups(), _getaddrinfo, host, port)
    return [(entry[0], entry[4]) for entry in found]  # type: ignore[misc]


def _getaddrinfo(host: str, port: int) -> list[tuple[object, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)  # type: ignore[return-value]


async def trusted() -> ssl.SSLContext:
    """TLS with the certificates that the system trusts. Reading them takes some time, once."""
    global _context
    if _context is None:
        _context = await asyncio.get_running_loop().run_in_executor(
            _lookups(), ssl.create_default_context
        )
    return _context


async def post(
    destination: Destination,
    headers: Mapping[str, str],
    body: bytes,
    allowed: Allowed,
    *,
    bounds: Bounds = _BOUNDS,
    look_up: LookUp = look_up,
    trust: Trust = trusted,
) -> Answer:
    """Send one request and return what came of it. Raises nothing but a cancellation.

    `headers` come beside those that every request has.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    exchange = _Exchange(destination, bounds, trust)
    try:
        async with asyncio.timeout(bounds.total):
            await exchange.run(headers, body, allowed, look_up)
        error = ""
    except TimeoutError:
        error = f"no answer within {bounds.total:g} s"
    except (_Refused, BadUrl) as reason:
        error = str(reason)
    except ssl.SSLCertVerificationError as failure:
        error = f"the certificate of {destination.host} is not accepted: {failure.verify_message}"
    except ssl.SSLError as failure:
        error = f"TLS with {destination.host} failed: {failure.reason or 'no handshake'}"
    except (h11.LocalProtocolError, ValueError) as failure:
        error = f"the request cannot be made: {failure}"
    except h11.RemoteProtocolError as failure:
        error = f"the answer is not HTTP: {failure}"
    except EOFError:
        error = "the connection was closed before an answer"
    except OSError as failure:
        error = f"the connection failed: {failure.strerror or failure or 'closed'}"
    finally:
        exchange.end()
    return exchange.answer(error, loop.time() - began)


class _Exchange:
    """The connection of one request, and what was read of its answer."""

    def __init__(self, destination: Destination, bounds: Bounds, trust: Trust) -> None:
        self._trust = trust
        self._to = destination
        self._bounds = bounds
        self._writer: asyncio.StreamWriter | None = None
        self._whole = False
        self._status: int | None = None
        self._retry_after: float | None = None
        self._body = b""

    async def run(
        self, headers: Mapping[str, str], body: bytes, allowed: Allowed, look_up: LookUp
    ) -> None:
        check_destination(self._to, allowed)
        sock = await self._connect(await self._addresses(allowed, look_up))
        try:
            reader, self._writer = await self._open(sock)
        except BaseException:
            sock.close()
            raise
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        request = h11.Request(
            method="POST",
            target=self._to.target,
            headers=[
                ("host", self._to.authority),
                *headers.items(),
                ("content-length", str(len(body))),
                ("accept-encoding", "identity"),
                ("connection", "close"),
            ],
        )
        # Not waited for: a receiver may answer without reading all of it.
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(connection.send(event) or b"")
        await self._read(connection, reader)

    async def _addresses(self, allowed: Allowed, look_up: LookUp) -> list[Address]:
        host, port = self._to.host, self._to.port
        if self._to.is_address:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found: Sequence[Address] = [(family, (host, port))]
        else:
            try:
                found = await look_up(host, port)
            except (OSError, UnicodeError):
                raise _Refused(f"the name {host} cannot be found") from None
        by_host = host in allowed.hosts
        for _family, (address, *_rest) in found:
            what = refusal(address, allowed, by_host=by_host)
            if what is not None:
                raise _Refused(f"{host} is at {address}, {what}. {HOW_TO_ALLOW}")
            if self._to.scheme == "http" and not by_host and not is_allowed(address, allowed):
                raise _Refused(UNENCRYPTED)
        if not found:
            raise _Refused(f"the name {host} cannot be found")
        return list(found[:_TRIED])

    async def _connect(self, addresses: list[Address]) -> socket.socket:
        loop = asyncio.get_running_loop()
        last: OSError = ConnectionError()
        for family, address in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                async with asyncio.timeout(self._bounds.connect):
                    await loop.sock_connect(sock, address)
            except TimeoutError:
                sock.close()
                last = OSError(None, f"no connection within {self._bounds.connect:g} s")
            except OSError as error:
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last

    async def _open(self, sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._to.scheme == "http":
            return await asyncio.open_connection(sock=sock)
        return await asyncio.open_connection(
            sock=sock,
            ssl=await self._trust(),
            server_hostname=self._to.host,
            ssl_handshake_timeout=self._bounds.connect,
            ssl_shutdown_timeout=self._bounds.body,
        )

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        received = 0
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
                self._retry_after = retry_after(_header(event, b"retry-after"), datetime.now(UTC))
                break
            if event is h11.NEED_DATA:
                data = await reader.read(_CHUNK)
                received += len(data)
                if received > _READ_BYTES:
                    raise _Refused("the head of the answer does not end")
                if not data and connection.their_state is h11.SEND_RESPONSE and not received:
                    raise EOFError
                connection.receive_data(data)
        # The status decides, whatever becomes of the body.
        with contextlib.suppress(h11.RemoteProtocolError, OSError, TimeoutError):
            async with asyncio.timeout(self._bounds.body):
                await self._read_body(connection, reader)

    async def _read_body(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        while len(self._body) < _CHUNK:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                self._body += event.data
            elif event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_CHUNK))
            else:
                self._whole = True
                return

    def end(self) -> None:
        """Close the connection: at once, unless all of the answer was read."""
        if self._writer is None:
            return
        if self._whole:
            self._writer.close()
        else:
            self._writer.transport.abort()

    def answer(self, error: str, seconds: float) -> Answer:
        return Answer(
            status=self._status,
            # What is no HTTP is told with what came.
            error="" if self._status is not None else error[:EXCERPT] or "no answer",
            excerpt=excerpt_of(self._body),
            seconds=seconds,
            retry_after=self._retry_after,
        )


def _header(response: h11.Response, name: bytes) -> str | None:
    for found, value in response.headers:
        if found == name:
            return value.decode("ascii", "replace")
    return None


# --- of the process -------------------------------------------------------------------------------

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_context: ssl.SSLContext | None = None


def _lookups() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="rowcast-names")
        return _executor


def _begin_anew() -> None:
    global _lock, _executor
    _lock, _executor = threading.Lock(), None


forks.in_child(_begin_anew)
