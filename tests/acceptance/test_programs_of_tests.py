"""The starter of the tests' own programs loses none of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.acceptance.support.server import PATIENCE
from tests.support.python import Python

ROUNDS = 25
PROGRAMS = 8


def test_programs_that_end_together_have_all_ended(tmp_path: Path) -> None:
    for _ in range(ROUNDS):
        programs = [
            Python(["-c", "import signal; signal.pause()"], cwd=tmp_path, env=os.environ)
            for _ in range(PROGRAMS)
        ]
        for program in programs:
            os.kill(program.pid, signal.SIGKILL)
        assert {program.wait(PATIENCE) for program in programs} == {-signal.SIGKILL}
