"""How late a process is that has nothing to do: `python -m benchmarks.idle SECONDS`.

It sleeps for a hundredth of a second again and again, until the time is over or its input ends, and
prints by how many milliseconds each sleep was too long. What another process measures beside it
cannot be better.
"""

from __future__ import annotations

import json
import select
import sys
import time

STEP = 0.01


def lateness(seconds: float) -> list[float]:
    """Milliseconds that each sleep was too long."""
    until = time.monotonic() + seconds
    found = []
    while (began := time.monotonic()) < until:
        time.sleep(STEP)
        found.append((time.monotonic() - began - STEP) * 1_000)
        if select.select([sys.stdin], [], [], 0)[0]:
            break
    return found


if __name__ == "__main__":
    print(json.dumps(lateness(float(sys.argv[1]))))
