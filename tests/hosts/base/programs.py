"""Programs that a host runs beside its commands. They end with them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

PATIENCE = 60.0
# For a program that may not end at all.
SHORT = 10.0

_running = ExitStack()


def start(*arguments: str, ends: bool = True, **environment: str) -> None:
    """Start a Python program. When the commands are done it is asked to end, by SIGTERM.

    `ends`: False for a program that is known to hang at times when it is asked to end. Such a
    program is killed.
    """
    program = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    _running.callback(_end, program, ends)


def end() -> None:
    """End all that were started. Raises TimeoutExpired where one had to be killed that should have
    ended."""
    _running.close()


def _end(program: subprocess.Popen[bytes], ends: bool) -> None:
    program.terminate()
    try:
        program.wait(PATIENCE if ends else SHORT)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        if ends:
            raise
