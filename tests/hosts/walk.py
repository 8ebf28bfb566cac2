"""Follows pages as a reader does: writes files, types into terminals, looks at pages in a browser.

A block with a file's name is written, or added to the file where the name ends with ", at the
end".
A block of `sh` is run to its end in the first terminal, whose environment stays; one of "Terminal
N" goes on in a terminal of its own. A block "Output" is compared with what the block before it
printed.
Steps in comments: `stop Terminal N`, `NAME: open URL`, `NAME: sign in`, `NAME: sees "text"`,
`NAME: does not see "text"`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.support.devtools import Browser, Page, wait_for
from tests.support.pages import Block, Step, parts

AT_THE_END = ", at the end"
PATIENCE = 180.0  # seconds for one block in the first terminal; most of it is for packages


class Failed(AssertionError):
    """A block or step that did not do what the page says."""


class Walk:
    """One reader, in one folder."""

    def __init__(
        self, folder: Path, *, wheels: Path, browser: Browser, instead: Mapping[str, str]
    ) -> None:
        """`wheels` holds the packages that pip is to find before those of the index. `instead` has
        the texts of the pages (ports, addresses) that are others here."""
        self._folder = folder
        self._browser = browser
        self._instead = re.compile("|".join(rf"\b{re.escape(text)}\b" for text in instead))
        self._others = dict(instead)
        self._output = ""
        self._people: dict[str, Page] = {}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._blocks = 0
        self._begun: list[Path] = []
        self._ended: list[Path] = []
        dropped = ("PYTEST", "PYTHON", "DJANGO", "ROWCAST", "VIRTUAL_ENV", "DATABASE_URL", "PS1")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        self._environment = {
            **kept,
            "PATH": os.pathsep.join([str(Path(sys.base_prefix) / "bin"), os.environ["PATH"]]),
            "PIP_FIND_LINKS": f"{wheels} {os.environ.get('PIP_FIND_LINKS', '')}".strip(),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def follow(self, page: Path) -> None:
        """Do everything that the page says, unless that was done. Raises Failed with the place and
        what was seen, and again for a page that failed before."""
        if page in self._ended:
            return
        if page in self._begun:
            raise Failed(f"{page.name} failed before")
        self._begun.append(page)
        for part in parts(page):
            if isinstance(part, Step):
                self._do(part, self._here(part.text))
            elif part.title == "Output":
                self._compare(part, self._here(part.text))
            elif part.language == "sh" and part.title:
                self._start(part, self._here(part.text))
            elif part.language == "sh":
                self._run(part, self._here(part.text))
            elif part.title:
                self._write(part, self._here(part.text))
            else:
                raise Failed(f"{part}: a block that nobody can follow: it has no title")
        self._ended.append(page)

    def close(self) -> None:
        for name in list(self._programs):
            self._stop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        for person in self._people.values():
            person.close()

    def _here(self, text: str) -> str:
        return self._instead.sub(lambda found: self._others[found[0]], text)

    def _write(self, block: Block, text: str) -> None:
        name = block.title.removesuffix(AT_THE_END)
        path = self._folder / name
        if name != block.title:
            path.write_text(f"{path.read_text()}\n{text}")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _run(self, block: Block, text: str) -> None:
        self._blocks += 1
        terminal = self._folder.parent / "terminal"
        terminal.mkdir(exist_ok=True)
        script, output, end = (
            terminal / f"{self._blocks}.{kind}" for kind in ("sh", "output", "end")
        )
        script.write_text(text)
        line = f". {script} </dev/null >{output} 2>&1; touch {end}\n"
        assert self._shell.stdin is not None
        self._shell.stdin.write(line.encode())
        self._shell.stdin.flush()
        try:
            wait_for(lambda: end.exists() or self._shell.poll() is not None, str(block), PATIENCE)
        except TimeoutError as error:
            raise Failed(f"{error}\n{output.read_text()}") from None
        self._output = output.read_text()
        if not end.exists():
            raise Failed(f"{block} failed:\n{self._output}")

    def _start(self, block: Block, text: str) -> None:
        self._stop(block.title)
        with (self._folder.parent / f"{block.title}.log").open("ab") as log:
            self._programs[block.title] = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-ec", text],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self, name: str) -> None:
        """As Ctrl+C does: the signal goes to all that runs in the terminal."""
        program = self._programs.pop(name, None)
        if program is None:
            return
        for kind in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(20)
                return

    def _compare(self, block: Block, expected: str) -> None:
        rest = iter(self._output.splitlines())
        for line in expected.splitlines():
            pattern = re.escape(line.strip()).replace(r"\.\.\.", ".*")
            if not any(re.fullmatch(pattern, row.strip()) for row in rest):
                raise Failed(f"{block}: {line!r} is not in what was printed:\n{self._output}")

    def _do(self, step: Step, text: str) -> None:
        if text.startswith("stop "):
            self._stop(text.removeprefix("stop "))
            return
        name, _, deed = text.partition(": ")
        try:
            self._look(name, deed)
        except TimeoutError:
            logs = "".join(
                f"\n--- {name}\n{(self._folder.parent / f'{name}.log').read_text()[-4000:]}"
                for name in self._programs
            )
            seen = self._people[name].run("document.body.innerText") if name in self._people else ""
            raise Failed(f"{step}: {text}; the page says:\n{seen}{logs}") from None

    def _look(self, name: str, deed: str) -> None:
        if deed.startswith("open "):
            url = deed.removeprefix("open ")
            place = urlsplit(url)
            wait_for(lambda: _listens(place.hostname or "", place.port or 80), url)
            if name not in self._people:
                self._people[name] = self._browser.new_page()
            self._people[name].go(url)
            return
        page = self._people[name]
        if deed == "sign in":
            page.wait("document.querySelector('#login-form')")
            page.run(
                "(() => { const form = document.querySelector('#login-form');"
                f"form.elements.username.value = {json.dumps(name)};"
                "form.elements.password.value = 'demo'; form.submit(); })()"
            )
            page.wait("!document.querySelector('#login-form')")
            return
        found = re.fullmatch(r'(sees|does not see) "(.+)"', deed)
        if found is None:
            raise Failed(f"nobody knows how to {deed!r}")
        shown = f"document.body.innerText.includes({json.dumps(found[2])})"
        page.wait(shown if found[1] == "sees" else f"!{shown}")


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
