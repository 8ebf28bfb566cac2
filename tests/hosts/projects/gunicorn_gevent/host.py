from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.error import URLError
from urllib.request import urlopen

import programs
from commands import Host as Usual

PATIENCE = 60


class Host(Usual):
    """Renames by a page that a green thread answers, one of several at once."""

    def __init__(self) -> None:
        super().__init__()
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = ["-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{self.port}"]
        programs.start("-m", "gunicorn", *options, "--log-level", "warning", "wsgi:application")

    def rename(self, old: str, new: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.get(old, new)
                break
            except (URLError, ConnectionError):
                assert time.monotonic() < deadline, "gunicorn does not answer"
                time.sleep(0.1)
        # Several green threads at once, each with a broadcast and the ORM.
        with ThreadPoolExecutor(8) as threads:
            answers = set(threads.map(lambda _: self.get(old, new), range(16)))
        assert answers == {b"none"}, answers

    def get(self, old: str, new: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}/rename?old={old}&new={new}") as page:
            return bytes(page.read())


host = Host()
