"""The project of the tutorial's first page, and a server of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.acceptance.support.devtools import wait_for
from tests.support.pages import DOCS, Block, blocks
from tests.support.ports import free_port
from tests.support.python import Python, run

PATIENCE = 120.0  # seconds for one command, or for a server to answer
AT_THE_END = ", at the end"


class Project:
    """The tutorial's project after its first page, with other settings by name."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
            "PYTHONPATH": os.pathsep.join([str(folder), str(installed)]),
            "PYTHONUNBUFFERED": "1",
        }
        # Each process of the tutorial finds them by manage.py.
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)
        self.run("-m", "django", "startproject", "helpdesk", ".")
        self.run("manage.py", "startapp", "desk")
        for block in blocks(DOCS / "tutorial" / "1-live-page.md", "python", "html"):
            self.write(block)
        self.run("manage.py", "makemigrations", "desk")

    @classmethod
    def migrated(cls, folder: Path, installed: Path) -> Project:
        """With its tables, and with the people of the page."""
        made = cls(folder, installed)
        code, said = made.run("manage.py", "migrate")
        assert code == 0, said
        made.run("manage.py", "shell", "-c", (folder / "people.py").read_text())
        return made

    def write(self, block: Block) -> None:
        """Write the file that the block names, or add to it."""
        path = self.folder / block.title.removesuffix(AT_THE_END)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() + "\n" if block.title.endswith(AT_THE_END) else ""
        path.write_text(before + block.text)

    def run(self, *command: str) -> tuple[int, str]:
        """The code and the output of a Python program."""
        done = run(
            command,
            cwd=self.folder,
            env=self.environment,
            timeout=PATIENCE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode, done.stdout

    def settings(self, name: str, lines: str) -> str:
        """Settings that differ from the project's by these lines, as the option of a command."""
        text = f"from helpdesk.settings import *\n{lines}\n"
        (self.folder / f"{name}.py").write_text(text)
        return f"--settings={name}"

    def check(self, name: str, lines: str, *options: str) -> str:
        return self.run("manage.py", "check", *options, self.settings(name, lines))[1]


class Server:
    """`runserver`, or uvicorn, of a project."""

    def __init__(self, project: Project, name: str = "runserver", *options: str) -> None:
        """`options` are those of `runserver`, such as its settings. Returns when it answers."""
        self.port = free_port()
        commands = {
            "runserver": ["manage.py", "runserver", "--noreload", str(self.port), *options],
            "uvicorn": ["-m", "uvicorn", "--port", str(self.port), "helpdesk.asgi:application"],
        }
        self._log = project.folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = Python(
                commands[name],
                cwd=project.folder,
                env=project.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._answers, "the server", PATIENCE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
