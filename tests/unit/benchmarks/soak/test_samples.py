"""Memory and CPU time as the system tells them."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.soak.samples import usage, usage_of_all


def test_the_memory_of_a_process_grows_with_what_it_allocates() -> None:
    before = usage(os.getpid())
    block = bytearray(os.urandom(1 << 20) * 32)
    after = usage(os.getpid())
    assert after.memory >= before.memory + 24
    assert after.cpu >= before.cpu
    del block


def test_the_memory_of_children_is_included() -> None:
    text = "import os, sys; block = os.urandom(1 << 25); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", text]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:  # type: ignore[call-overload]
        child.stdout.readline()
        both, mine = usage_of_all(os.getpid()), usage(os.getpid())
        child.stdin.close()
    assert both.memory >= mine.memory + 24
