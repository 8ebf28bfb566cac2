"""Ports for servers that the tests start. Needs no pytest: settings start servers too.

The system gives any free port to who asks for one: also the port that a server of another test is
about to use, or left for a moment to start again. So these come from below those that the system
gives, and each belongs to one process until that ends, which a locked file tells the others.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

PORTS = range(20_000, 30_000)
_FOLDER = Path(tempfile.gettempdir()) / f"rowcast-test-ports-{os.getuid()}"


def free_port() -> int:
    """A port at which nothing listens, and which no other test is given while this process runs."""
    _FOLDER.mkdir(exist_ok=True)
    for _ in PORTS:
        port = random.choice(PORTS)
        # Stays open, and with it locked, until the process ends.
        lock = os.open(_FOLDER / str(port), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            os.close(lock)
        else:
            return port
    raise RuntimeError(f"no port of {PORTS} is free")
