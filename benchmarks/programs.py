"""The programs a benchmark of sockets stands on: built on the spot, spoken to, and ended.

`Load` is the load client (`load.c`) in a process of its own. Nothing here knows what is measured.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0


class Failed(Exception):
    """What was measured did not do what it had to; says what."""


class Unavailable(Exception):
    """Something that is compared with is not here; says what is missing."""


def compile_c(name: str, folder: Path, *, deflate: bool = False) -> Path:
    """A program of this folder, built. Raises Unavailable without a compiler.

    `deflate`: it takes compressed frames, for which it needs zlib.
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
class Door:
    """Where a server's sockets are, and how one becomes a listener there."""

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
    """One message, or several, at every socket. In seconds of the monotonic clock."""

    sent: float
    first: float
    last: float
    text: str


class Load:
    """Some thousands of sockets. Every method raises Failed with what the client saw."""

    def __init__(self, program: Path, door: Door, sockets: int) -> None:
        command = [str(program), "sockets", str(sockets), *door.arguments()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def connect(self) -> float:
        """Open all; the seconds until the last of them had its answer."""
        return int(self._ask(b"connect\n").split()[1]) / 1e9

    def greet(self, text: str) -> None:
        """What sockets say when they connect next."""
        self._say(b"hello %d\n%s" % (len(text), text.encode()))

    def fire(self, request: bytes) -> Arrival:
        """Send one message by the publisher's connection and wait until it is everywhere."""
        return self._arrival(self._ask(b"fire 1 %d\n%s" % (len(request), request)))

    def expect(self, count: int = 1) -> None:
        """Messages will come that are sent from elsewhere."""
        self._ask(b"expect %d\n" % count)

    def arrive(self, count: int = 1) -> Arrival:
        """Wait until what was expected is everywhere."""
        return self._arrival(self._ask(b"await %d\n" % count))

    def beat(self, seconds: float, text: str) -> tuple[float, float, float]:
        """A heartbeat of every socket, spread: median, 99th percentile and worst answer, in ms."""
        answer = self._ask(b"beat %f %d\n%s" % (seconds, len(text), text.encode()))
        median, high, most = (int(part) / 1e6 for part in answer.split()[1:])
        return median, high, most

    def bytes_read(self) -> int:
        """What all sockets have read since this was asked last."""
        return int(self._ask(b"bytes\n").split()[1])

    def drop(self) -> None:
        """Close all sockets without a word."""
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
    """A server in a process of its own; its words go to a file."""

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
        """Wait until it listens. Raises Failed with its last words when it ends instead."""
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


def memory_kilobytes(pid: int) -> int:
    """What a process holds of the machine's memory alone (its private pages)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads. Counts in nanoseconds, unlike its times."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def post(body: str, path: str = "/publish") -> bytes:
    """An HTTP request that publishes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
