"""Python processes of the tests, which begin with the libraries imported already.

A run starts hundreds of servers, tailers and commands, and most of the work of each would be to
import Django, Twisted and other libraries. So one process, the starter, has imported them. A copy
of it becomes the program that is asked for, with its own arguments, environment, folder, streams
and signals. Nothing of this project is imported before: a copy meets settings and code as a new
interpreter does. What needs options of the interpreter, or replaces what libraries import, is
started without it. What is measured begins as a new interpreter (`start_anew`): a copy shares
memory, and no collection looks at what it began with.

Run as a program this is the starter of one process of the tests. When that ends, by whatever
cause, what the starter has started is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# What servers and commands import, as far as that needs no settings and opens nothing.
_LIBRARIES = (
    "asgiref.local",
    "asgiref.server",
    "asyncio",
    "attr",
    "autobahn.twisted.websocket",
    "cbor2",
    "channels.auth",
    "channels.consumer",
    "channels.db",
    "channels.layers",
    "channels.routing",
    "channels.security.websocket",
    "channels.sessions",
    "click",
    "concurrent.futures.thread",
    "daphne.access",
    "daphne.ws_protocol",
    "django.contrib.admin",
    "django.contrib.auth.hashers",
    "django.contrib.auth.password_validation",
    "django.contrib.messages.storage.fallback",
    "django.contrib.postgres.fields",
    "django.contrib.postgres.forms",
    "django.contrib.sessions.middleware",
    "django.contrib.staticfiles.handlers",
    "django.core.asgi",
    "django.core.cache",
    "django.core.management",
    "django.core.management.commands.check",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.template.loader",
    "django.views.generic",
    "docutils.core",
    "h11",
    "jwt",
    "markdown",
    "msgspec",
    "multiprocessing.connection",
    "psycopg",
    "psycopg.types.json",
    "pygments.formatters",
    "pygments.lexers",
    "re2",
    "redis.asyncio",
    "requests",
    "rest_framework.compat",
    "rest_framework.exceptions",
    "service_identity",
    "sqlparse",
    "twisted.internet.asyncioreactor",
    "twisted.internet.endpoints",
    "twisted.internet.tcp",
    "twisted.protocols.tls",
    "twisted.web.http",
    "uvicorn.main",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "wsgiref.simple_server",
    "yaml",
    "zoneinfo",
)
_LENGTH = 8
_anew = False


def start_anew() -> None:
    """From here on programs of this process begin as new interpreters, for measurements."""
    global _anew
    _anew = True


class Python:
    """A Python program that runs; as `subprocess.Popen`, of which it has what tests use.

    `arguments` begin with the path of a program, or `-m` and a module, or `-c` and its text.
    Streams are files or what `subprocess` calls PIPE, DEVNULL and STDOUT; by default the standard
    input is empty. Pipes carry text. What the program prints is not buffered.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> None:
        self.args = list(arguments)
        self.stdin: TextIOWrapper | None = None
        self.stdout: TextIOWrapper | None = None
        self.returncode: int | None = None
        self._reading = threading.Lock()
        with contextlib.ExitStack() as ours:
            devnull = ours.enter_context(open(os.devnull, "r+b"))

            def pipe() -> tuple[int, int]:
                return os.pipe()

            def end_of(stream: int | IO[Any] | None, usual: int) -> int:
                if stream is None:
                    return usual
                if stream == subprocess.DEVNULL:
                    return devnull.fileno()
                return stream if isinstance(stream, int) else stream.fileno()

            if stdin == subprocess.PIPE:
                theirs, own = pipe()
                ours.callback(os.close, theirs)
                self.stdin = os.fdopen(own, "w")
                stdin = theirs
            if stdout == subprocess.PIPE:
                own, theirs = pipe()
                ours.callback(os.close, theirs)
                self.stdout = os.fdopen(own)
                stdout = theirs
            streams = [end_of(stdin, 0), end_of(stdout, 1)]
            streams.append(streams[1] if stderr == subprocess.STDOUT else end_of(stderr, 2))
            self._ending, theirs = pipe()
            ours.callback(os.close, theirs)
            request = {
                "arguments": self.args,
                "cwd": str(cwd),
                "env": dict(env),
                "anew": _anew,
                # A program that a shell starts in the background inherits this.
                "ignores_interrupts": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            }
            self.pid = _starter().start(request, [*streams, theirs])

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended. Raises subprocess.TimeoutExpired after so many
        seconds."""
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._ending, select.POLLIN)
            if not ended.poll(None if timeout is None else timeout * 1000):
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            with self._reading:
                if self.returncode is None:
                    said = os.read(self._ending, 100)
                    os.close(self._ending)
                    # The starter is gone, and with it what it had started.
                    self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self, timeout: float) -> int:
        """Close its pipes and wait for its end: the exit code. Kills it after so many seconds, and
        raises subprocess.TimeoutExpired then."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
            raise
        finally:
            if self.stdout is not None:
                self.stdout.close()


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    stderr: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """What a program prints, and its exit code, when it has ended. Standard error is kept by
    itself, or with the output for `subprocess.STDOUT`. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = Python(
            arguments, cwd=cwd, env=env, stdout=output, stderr=errors if stderr is None else stderr
        )
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(process.args, code, *said)


class _Starter:
    """The starter, as its process of the tests sees it."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair()
        self._asking = threading.Lock()
        dropped = ("PYTHONPATH", "PYTHONWARNINGS", "DJANGO_SETTINGS_MODULE")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # What ends the tests at a keyboard reaches it by the end of the link. Linux shares
                # processors between sessions, so what is measured stays in that of its load.
                start_new_session=not _anew,
            )
        atexit.register(self._end)

    def start(self, request: dict[str, Any], streams: list[int]) -> int:
        """The process id of a new program. `streams`: its standard ones, and where its exit code
        is written."""
        body = json.dumps(request).encode()
        with self._asking:
            socket.send_fds(self._link, [len(body).to_bytes(_LENGTH, "big")], streams)
            self._link.sendall(body)
            return int.from_bytes(_exactly(self._link, _LENGTH), "big")

    def _end(self) -> None:
        self._link.close()
        self._process.wait()


def _exactly(link: socket.socket, count: int) -> bytes:
    """So many bytes. Raises RuntimeError when the other side ends before."""
    got = b""
    while len(got) < count:
        part = link.recv(count - len(got))
        if not part:
            raise RuntimeError("the other side of the starter of Python programs has ended")
        got += part
    return got


@functools.cache
def _starter() -> _Starter:
    return _Starter()


def _ended_child() -> tuple[int, int] | None:
    """The process id and the exit code of a child that has ended and was not given yet."""
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            return pid, os.waitstatus_to_exitcode(status)
    return None


def _serve(link: socket.socket) -> dict[str, Any] | None:
    """Starts what is asked for. Returns the request in the process that is to be the program, and
    None when no more can come."""
    running: dict[int, int] = {}

    def reap(*_: object) -> None:
        # Another end may interrupt this, and be served within it: so each is asked for once.
        while ended := _ended_child():
            pid, code = ended
            told = running.pop(pid)
            # Nobody may be there to read it.
            with contextlib.suppress(BrokenPipeError):
                os.write(told, str(code).encode())
            os.close(told)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        head, streams, *_ = socket.recv_fds(link, _LENGTH, 4)
        if not head:
            break
        body = _exactly(link, int.from_bytes(head, "big"))
        # A child that ends at once must be known when that is told.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            link.close()
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            for stream in {*streams, *running.values()}:
                os.close(stream)
            request: dict[str, Any] = json.loads(body)
            return request
        *standard, running[pid] = streams
        for stream in standard:
            os.close(stream)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        link.sendall(pid.to_bytes(_LENGTH, "big"))
    for pid in list(running):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return None


def _become(request: dict[str, Any], path: list[str]) -> None:
    """Run the program, as the interpreter does that is started for it."""
    env, cwd = request["env"], request["cwd"]
    if request["ignores_interrupts"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if request["anew"]:
        os.execv(sys.executable, [sys.executable, "-u", *request["arguments"]])
    sys.warnoptions[:] = filter(None, env.get("PYTHONWARNINGS", "").split(","))
    for option in sys.warnoptions:
        warnings.simplefilter(option)  # type: ignore[arg-type]
    first, *rest = request["arguments"]
    also = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    if first == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        sys.path[:] = [cwd, *also, *path]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif first == "-c":
        text, *rest = rest
        sys.argv = ["-c", *rest]
        sys.path[:] = [cwd, *also, *path]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(text, "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        program = os.path.join(cwd, first)
        sys.argv = [first, *rest]
        sys.path[:] = [os.path.dirname(program), *also, *path]
        runpy.run_path(program, run_name="__main__")


def _main() -> None:
    # Beside this file are modules with the names of libraries.
    path = sys.path[1:]
    sys.path[:] = path
    for library in _LIBRARIES:
        # The other Django, or a machine without it, may lack one. A program that needs it says so.
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    gc.collect()
    # Copies share these objects until they change them, which a collection would do.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as link:
        request = _serve(link)
    if request is not None:
        _become(request, path)


if __name__ == "__main__":
    _main()
