"""The servers that are measured: how each is started, listened to and made to publish.

`Contestant.start` is a context manager that yields a `RunningServer`. It raises Unavailable if a
program that it needs is missing; the benchmark then reports and skips it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.programs import Endpoint, Failed, Program, Unavailable, compile_c, dumps, post
from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.server import (
    ANON_KEY,
    COMMANDS,
    copy_database,
    free_port,
    make_database,
)
from tests.acceptance.support.server import running as running_server
from tests.support import redis as redises

TOPIC = "realtime:fanout"
HEARTBEAT = dumps([None, "1", "phoenix", "heartbeat", {}])
TABLE = "zoo_note"
SOCKET_IO = "socket.io@4.8.4"
NCHAN_MODULES = (
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/share/nginx/modules/ngx_nchan_module.so",
)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs. `message` returns the request that publishes a text; `text_in` reads the
    text from a frame."""

    endpoint: Endpoint
    pid: int
    message: Callable[[str], bytes]
    text_in: Callable[[str], str]
    # Writes rows with these titles in one transaction; None for a server without rows.
    write: Callable[[list[str]], None] | None = None
    # The frame that a socket has to send once a minute.
    heartbeat: str = ""


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    start: Callable[[Path], AbstractContextManager[RunningServer]]


# --- ours -------------------------------------------------------------------------------------


def join(since: int | None = None) -> str:
    """A join for one topic's broadcasts and for the changes of one table."""
    binding: dict[str, object] = {"event": "*", "schema": "public", "table": TABLE}
    if since is not None:
        binding["since"] = since
    return dumps(["1", "1", TOPIC, "phx_join", {"config": {"postgres_changes": [binding]}}])


def _broadcast(text: str) -> bytes:
    payload = {"type": "broadcast", "event": "e", "payload": {"text": text}}
    return dumps(["1", "2", TOPIC, "broadcast", payload]).encode()


def text_of_ours(frame: str) -> str:
    """The text of a broadcast, or the title of a row."""
    payload = json.loads(frame)[4]
    if "data" in payload:
        return str(payload["data"]["record"]["title"])
    return str(payload["payload"]["text"])


@contextlib.contextmanager
def ours(kind: str, folder: Path) -> Iterator[RunningServer]:
    """Rowcast on one machine: SQLite, in-memory layer, one process."""
    template = folder.parent / "rowcast.sqlite3"
    if not template.exists():
        make_database(template)
    database = copy_database(template, folder / "db.sqlite3")
    orm = OrmProcess(database)
    orm.policy("public notes", {"is_public": True}, audience="anyone")
    orm.close()
    limits = {"LIMITS": {"broadcasts_per_second": None}}
    writer = sqlite3.connect(database, isolation_level=None, timeout=30)

    def write(titles: list[str]) -> None:
        writer.execute("BEGIN IMMEDIATE")
        insert = f"INSERT INTO {TABLE} (title, body, is_public) VALUES (?, '', 1)"
        writer.executemany(insert, [(title,) for title in titles])
        writer.execute("COMMIT")

    with running_server(database, kind, limits) as server:
        path = f"/realtime/v1/websocket?apikey={ANON_KEY}&vsn=2.0.0"
        endpoint = Endpoint(
            port=server.port,
            path=path,
            hello=join(),
            ready="Subscribed to PostgreSQL",
            control_path=path,
            control_hello=dumps(["1", "1", TOPIC, "phx_join", {"config": {}}]),
            control_ready='"status":"ok"',
        )
        try:
            yield RunningServer(endpoint, server.pid, _broadcast, text_of_ours, write, HEARTBEAT)
        finally:
            writer.close()


# --- others -----------------------------------------------------------------------------------


def _serve(kind: str, application: str) -> tuple[list[str], int]:
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[kind]]
    return [sys.executable, *command, application], port


@contextlib.contextmanager
def stock(kind: str, layer: str, folder: Path) -> Iterator[RunningServer]:
    """The chat of the Channels tutorial."""
    environment = {**os.environ, "BENCHMARK_LAYER": layer}
    with contextlib.ExitStack() as stack:
        if layer != "memory":
            if redises.missing():
                raise Unavailable(redises.missing())
            environment["REDIS_URL"] = stack.enter_context(redises.running(folder)).url
        command, port = _serve(kind, "benchmarks.baseline_apps:application")
        server = Program(command, folder, environment)
        stack.callback(server.end)
        server.until_open(port)
        yield RunningServer(Endpoint(port, "/"), server.pid, post, str)


@contextlib.contextmanager
def bare(kind: str, folder: Path) -> Iterator[RunningServer]:
    """A server with an application that does nothing and publishes nothing."""
    command, port = _serve(kind, "benchmarks.baseline_apps:bare")
    server = Program(command, folder)
    try:
        server.until_open(port)
        yield RunningServer(Endpoint(port, "/"), server.pid, post, str)
    finally:
        server.end()


@contextlib.contextmanager
def nchan(folder: Path) -> Iterator[RunningServer]:
    """nginx with Debian's nchan, one worker."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    module = next((path for path in NCHAN_MODULES if Path(path).exists()), None)
    if nginx is None or module is None:
        raise Unavailable("nchan is not installed (Debian: apt install nginx libnginx-mod-nchan)")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"load_module {module}; daemon off; master_process off; pid {folder}/pid;"
        f" error_log {folder}/error.log; worker_rlimit_nofile 20000;"
        " events { worker_connections 19000; }"
        f" http {{ access_log off; client_body_temp_path {folder}/body;"
        f" proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;"
        f" uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;"
        f" keepalive_requests 1000000; server {{ listen 127.0.0.1:{port} backlog=4096;"
        " location = /publish { nchan_publisher; nchan_channel_id room;"
        " nchan_store_messages off; }"
        " location / { nchan_subscriber websocket; nchan_channel_id room; } } }"
    )
    server = Program([nginx, "-c", str(config), "-e", str(folder / "error.log")], folder)
    try:
        server.until_open(port)
        yield RunningServer(Endpoint(port, "/"), server.pid, post, str)
    finally:
        server.end()


@contextlib.contextmanager
def socket_io(folder: Path) -> Iterator[RunningServer]:
    """socket.io on Node, installed for this run."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise Unavailable("npm is not installed: socket.io is left out")
    home = folder.parent / "socket.io"
    if not (home / "node_modules" / "socket.io").exists():
        home.mkdir(exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(home), SOCKET_IO]
        done = subprocess.run(install, capture_output=True, text=True, timeout=300)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["npm failed"]
            raise Unavailable(f"socket.io could not be installed: {last[0]}")
    shutil.copy(Path(__file__).with_name("socketio.mjs"), home / "server.mjs")
    port = free_port()
    server = Program([node, str(home / "server.mjs"), str(port)], folder)
    try:
        server.until_open(port)
        endpoint = Endpoint(
            port,
            "/socket.io/?EIO=4&transport=websocket",
            hello="40",
            ready="40{",
            ping="2",
            pong="3",
        )
        yield RunningServer(endpoint, server.pid, post, lambda frame: json.loads(frame[2:])[1])
    finally:
        server.end()


@contextlib.contextmanager
def c_loop(folder: Path) -> Iterator[RunningServer]:
    """The lower bound: a C loop that writes."""
    port = free_port()
    server = Program([str(compile_c("bare_loop", folder.parent)), str(port)], folder)
    try:
        server.until_open(port)
        yield RunningServer(Endpoint(port, "/"), server.pid, post, str)
    finally:
        server.end()


KINDS = ("daphne", "uvicorn", "fanout")
LAYERS = {"memory": "in-memory", "core": "Redis core", "pubsub": "Redis pub/sub"}
SHOWN = {"daphne": "daphne", "uvicorn": "uvicorn", "fanout": "uvicorn, fast path"}
LIMIT = "C loop"

ALL = [
    *(Contestant(f"Rowcast, {SHOWN[kind]}", partial(ours, kind)) for kind in KINDS),
    *(
        Contestant(f"Channels {shown}, {kind}", partial(stock, kind, layer))
        for layer, shown in LAYERS.items()
        for kind in ("daphne", "uvicorn")
    ),
    Contestant("socket.io", socket_io),
    Contestant("nchan", nchan),
    Contestant(LIMIT, c_loop),
]

__all__ = ["ALL", "LIMIT", "Contestant", "Failed", "RunningServer", "bare", "join", "ours"]
