"""A process that streams through memory, so that a benchmark beside it has neither the processor's
shared caches nor its memory for itself.

Measures nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MEGABYTES = 64
# It ends by itself if the benchmark is killed.
_STREAM = f"""
import os
parent, one, other = os.getppid(), bytearray({_MEGABYTES} << 20), bytearray({_MEGABYTES} << 20)
print(flush=True)
while os.getppid() == parent:
    one[:] = other
"""


@contextmanager
def streaming() -> Iterator[None]:
    """While the block runs, another process copies between two blocks of memory."""
    command = [sys.executable, "-c", _STREAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()
