"""pgbouncer in transaction mode before a PostgreSQL of the tests: each transaction of a client may
run in another session. The program comes from PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.waiting import until

# Fewer sessions than a server has connections, so that they must be shared.
SESSIONS = 3
_CONFIG = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
logfile = {folder}/pgbouncer.log
"""


def program() -> str | None:
    """The path of pgbouncer, or None where there is none."""
    return shutil.which("pgbouncer")


@contextmanager
def transaction_pooler(folder: Path, server: int) -> Iterator[int]:
    """A pooler before the PostgreSQL at port `server`; yields its own port."""
    path = program()
    assert path is not None, "no pgbouncer on PATH"
    port = free_port()
    folder.mkdir()
    config = folder / "pgbouncer.ini"
    config.write_text(_CONFIG.format(server=server, port=port, sessions=SESSIONS, folder=folder))
    command = [path, str(config)]
    if os.geteuid() == 0:  # it refuses to be root
        for place in (folder, *folder.parents):
            place.chmod(place.stat().st_mode | 0o011)
        folder.chmod(0o777)
        command[1:1] = ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port, process), "pgbouncer", every=0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "pgbouncer ended"
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
