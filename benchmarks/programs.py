"""The programs that benchmarks of sockets need: compiled, started, controlled and ended.

`Load` is the load client (`load.c`) in a process of its own. Measures nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0


class Failed(Exception):
    """A measured server did not do what it had to; the text says what."""


class Unavailable(Exception):
    """A program that is needed is missing; the text says which."""


def compile_c(name: str, folder: Path, *, deflate: bool = False) -> Path:
    """Compile a program of this folder and return its path. Raises Unavailable without a compiler.

    `deflate`: the program accepts compressed frames, for which it needs zlib.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("no C compiler: install gcc or clang; the load client is written in C")
    program = folder / (f"{name}-deflate" if deflate else name)
    if not program.exists():
        more = ["-DDEFLATE", "-lz"] if deflate else []
        source = str(HERE / f"{name}.c")
        built = subprocess.run([compiler, "-O2", "-o", str(program), source, *more], check=False)
        if built.returncode:
            needs = " (it needs zlib; Debian: apt install zlib1g-dev)" if deflate else ""
            raise Unavailable(f"{name}.c could not be built{needs}")
    return program


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server's sockets, and the messages by which a socket becomes a listener."""

    port: int
    path: str
    hello: str = ""
    ready: str = ""
    ping: str = ""
    pong: str = ""
    # The publisher: a socket of its own with these, or plain HTTP without a path.
    control_path: str = ""
    control_hello: str = ""
    control_ready: str = ""

    def arguments(self) -> list[str]:
        named = {
            "port": str(self.port),
            "path": self.path,
            "hello": self.hello,
            "ready": self.ready,
            "ping": self.ping,
            "pong": self.pong,
        }
        if self.control_path:
            named["control-path"] = self.control_path
            named["control-hello"] = self.control_hello
            named["control-ready"] = self.control_ready
        return [part for pair in named.items() for part in pair]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival of one or several messages at all sockets, in seconds of the monotonic clock:
    when they were sent, and when the first and the last socket had them. `text` is one frame."""

    sent: float
    first: float
    last: float
    text: str


class Load:
    """The load client: some thousands of sockets. Every method raises Failed with the client's
    report."""

    def __init__(self, program: Path, endpoint: Endpoint, sockets: int) -> None:
        command = [str(program), "sockets", str(sockets), *endpoint.arguments()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def connect(self) -> float:
        """Open all sockets. Returns the seconds until the last one had its answer."""
        return int(self._ask(b"connect\n").split()[1]) / 1e9

    def greet(self, text: str) -> None:
        """Set the message that sockets send when they connect next."""
        self._say(b"hello %d\n%s" % (len(text), text.encode()))

    def fire(self, request: bytes) -> Arrival:
        """Send one message by the publisher's connection, and wait until every socket has it."""
        return self._arrival(self._ask(b"fire 1 %d\n%s" % (len(request), request)))

    def expect(self, count: int = 1) -> None:
        """Announce messages that are sent by another program."""
        self._ask(b"expect %d\n" % count)

    def arrive(self, count: int = 1) -> Arrival:
        """Wait until every socket has the announced messages."""
        return self._arrival(self._ask(b"await %d\n" % count))

    def beat(self, seconds: float, text: str) -> tuple[float, float, float]:
        """Send a heartbeat from every socket, spread over so many seconds. Returns the median, the
        99th percentile and the maximum of the answers' times, in milliseconds."""
        answer = self._ask(b"beat %f %d\n%s" % (seconds, len(text), text.encode()))
        median, high, most = (int(part) / 1e6 for part in answer.split()[1:])
        return median, high, most

    def bytes_read(self) -> int:
        """The bytes that all sockets have read since the last call."""
        return int(self._ask(b"bytes\n").split()[1])

    def drop(self) -> None:
        """Close all sockets without close frames."""
        self._ask(b"drop\n")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, command: bytes) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(command)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_word()) from None

    def _ask(self, command: bytes) -> str:
        self._say(command)
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().decode(errors="replace").strip()
        if not line or line.startswith("failed"):
            raise Failed(line.removeprefix("failed ") or "the load client died")
        return line

    def _last_word(self) -> str:
        assert self._process.stdout
        return self._process.stdout.read().decode(errors="replace").strip() or "it died"

    def _arrival(self, line: str) -> Arrival:
        assert self._process.stdout
        _, sent, first, last, size = line.split()
        text = self._process.stdout.read(int(size) + 1)[:-1].decode()
        return Arrival(int(sent) / 1e9, int(first) / 1e9, int(last) / 1e9, text)


class Program:
    """A server in a process of its own; its output goes to a file."""

    def __init__(
        self, command: list[str], folder: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log = folder / "server.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=HERE.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def until_open(self, port: int) -> None:
        """Wait until it listens. Raises Failed with its last output if it ends instead."""
        import socket

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise Failed(f"it did not start: {self.log.read_text()[-500:]}") from None
                time.sleep(0.02)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.asynccontextmanager
async def beside(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours that runs beside the block, gone at the end whatever happened."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def memory_kilobytes(pid: int) -> int:
    """The private memory of a process, in kilobytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def cpu_seconds(pid: int) -> float:
    """The CPU seconds that all threads of a process have used so far, counted in nanoseconds."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used += int((thread / "schedstat").read_text().split()[0])
    return used / 1e9


def post(body: str, path: str = "/publish") -> bytes:
    """An HTTP request that publishes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
