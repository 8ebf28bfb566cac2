"""What many sockets cost one process: `python -m benchmarks.connections`.

For uvicorn and for uvicorn with the fast path, each with 10,000 sockets that joined one topic and
listen to one table under a policy:

* how long it takes until all are connected, and until all have joined;
* the memory of a socket, beside that of the same server with an application that does nothing;
* one message to all, and one row;
* a heartbeat of every socket, spread over a while: how long the answers take, the worst too;
* all gone at once, some rows meanwhile, all back: how long until each has heard what it missed.

The load client checks that every socket got everything, once and in order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.contestants import HEARTBEAT, SHOWN, Stand, bare, join, ours
from benchmarks.fanout import Round, machine
from benchmarks.programs import Failed, Load, Unavailable, compile_c, memory_kilobytes

KINDS = ("uvicorn", "fanout")
# Kilobytes a socket above a bare server, and milliseconds for one message to all.
GOALS = {"memory_kb": 30.0, "message_ms": 250.0}
_SETTLING = 2.0

Start = Callable[[Path], AbstractContextManager[Stand]]


def grown(stand: Stand, load: Load, sockets: int) -> tuple[float, float]:
    """Seconds until all are in, and kilobytes a socket."""
    before = memory_kilobytes(stand.pid)
    seconds = load.connect()
    time.sleep(_SETTLING)
    return seconds, (memory_kilobytes(stand.pid) - before) / sockets


def alone(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The server with an application that does nothing."""
    with bare(kind, folder) as stand:
        load = Load(compile_c("load", folder.parent), stand.door, arguments.sockets)
        try:
            seconds, kilobytes = grown(stand, load, arguments.sockets)
        finally:
            load.close()
    return {"connect_s": seconds, "memory_kb": kilobytes}


def whole(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    sockets = arguments.sockets
    with ours(kind, folder) as stand:
        load = Load(compile_c("load", folder.parent), stand.door, sockets)
        try:
            # The first socket starts what a process has once.
            first = Load(compile_c("load", folder.parent), stand.door, 1)
            first.connect()
            seconds, kilobytes = grown(stand, load, sockets)
            first.close()
            median, high, worst = load.beat(arguments.heartbeat, HEARTBEAT)
            turn = Round(stand, load, arguments)
            messages = [took for took, _ in turn.broadcasts(arguments.messages)]
            rows = [took for took, _ in turn.rows(arguments.messages, 1)]
            again, resumed = come_back(stand, load, turn, arguments.missed)
        finally:
            load.close()
    return {
        "join_s": seconds,
        "memory_kb": kilobytes,
        "message_ms": 1_000 * statistics.median(messages),
        "row_ms": 1_000 * statistics.median(rows),
        "heartbeat_ms": median,
        "heartbeat_p99_ms": high,
        "heartbeat_worst_ms": worst,
        "rejoin_s": again,
        "resumed_s": resumed,
    }


def come_back(stand: Stand, load: Load, turn: Round, missed: int) -> tuple[float, float]:
    """Seconds until all are back in, and until all have what they missed, from when they began."""
    assert stand.write
    since = json.loads(turn.row())[4]["data"]["seq"]
    load.drop()
    load.expect(missed)
    stand.write(turn.texts(missed))
    load.greet(join(since))
    began = time.monotonic()
    seconds = load.connect()
    load.arrive(missed)
    return seconds, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for the messages")
    parser.add_argument(
        "--heartbeat", type=float, default=15.0, help="seconds they are spread over"
    )
    parser.add_argument("--missed", type=int, default=20, help="rows while all are away")
    parser.add_argument("--bytes", type=int, default=220)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    say = sys.stdout.write
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as base:
        try:
            for kind in KINDS:
                folder = Path(base) / kind
                folder.mkdir()
                (Path(base) / f"bare-{kind}").mkdir()
                nothing = alone(kind, Path(base) / f"bare-{kind}", arguments)
                found = whole(kind, folder, arguments)
                results[kind] = {"bare": nothing, **found}
        except (Failed, Unavailable) as error:
            sys.exit(str(error))
    for kind, found in results.items():
        nothing = found["bare"]
        above = found["memory_kb"] - nothing["memory_kb"]
        found["above_bare_kb"] = above
        say(f"{SHOWN[kind]}, {arguments.sockets:,} sockets\n")
        bare_server = f"a bare server: {nothing['connect_s']:.1f} s"
        say(f"  connected and joined      {found['join_s']:8.1f} s     ({bare_server})\n")
        at_bare = f"{found['memory_kb']:.1f} in all, {nothing['memory_kb']:.1f} the bare server"
        say(f"  memory of a socket        {above:8.1f} KB    ({at_bare};")
        say(f" goal {GOALS['memory_kb']:.0f})\n")
        say(f"  one message to all        {found['message_ms']:8.0f} ms    ")
        say(f"(goal {GOALS['message_ms']:.0f})\n")
        say(f"  one row to all            {found['row_ms']:8.0f} ms\n")
        beats = "heartbeat_ms", "heartbeat_p99_ms", "heartbeat_worst_ms"
        three = " / ".join(f"{found[name]:.1f}" for name in beats)
        say(f"  heartbeat answered        {three} ms (median / 99 % / worst)\n")
        say(f"  all gone and back in      {found['rejoin_s']:8.1f} s\n")
        say(f"  and has what it missed    {found['resumed_s']:8.1f} s     ")
        say(f"({arguments.missed} rows each)\n")
    if arguments.json:
        found = {"machine": machine(), "sockets": arguments.sockets, "results": results}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
