"""The cost and the gain of compression: `python -m benchmarks.compression`.

One row to 1,000 sockets, in four ways that alternate: by the fast path, where a frame is compressed
once for all sockets that agreed to it, and by uvicorn's own protocol, which compresses it for each
socket; both with clients that offer compression and with clients that do not. Prints deliveries per
second from the first socket to the last, the server's CPU time for one delivery, the bytes of one
on the wire, and the memory of a socket in the server.

The load client inflates the frames, and checks that every socket got every row once, in order and
with the same text.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chart import bars
from benchmarks.contestants import SHOWN, ours
from benchmarks.programs import Failed, Load, Unavailable, compile_c, cpu_seconds, memory_kilobytes
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from benchmarks.rounds import Round

WAYS = [(kind, deflate) for kind in ("fanout", "uvicorn") for deflate in (True, False)]
_SETTLING = 1.0

Figures = dict[str, list[float]]


def named(kind: str, deflate: bool) -> str:
    return f"{SHOWN[kind]}, {'compressed' if deflate else 'plain'}"


def measure(
    kind: str, deflate: bool, folder: Path, arguments: argparse.Namespace
) -> dict[str, float]:
    """One round in one of the four ways. Raises Failed or Unavailable."""
    sockets = arguments.sockets
    with ours(kind, folder) as running:
        program = compile_c("load", folder.parent, deflate=deflate)
        # The first socket starts the hub, whose memory is not to be counted.
        first = Load(program, running.endpoint, 1)
        first.connect()
        before = memory_kilobytes(running.pid)
        load = Load(program, running.endpoint, sockets)
        try:
            load.connect()
            round_ = Round(running, load, arguments)
            round_.rows(5, 1)
            time.sleep(_SETTLING)
            memory = (memory_kilobytes(running.pid) - before) / sockets
            load.bytes_read()
            used = cpu_seconds(running.pid)
            took = round_.rows(arguments.messages, 1)
            used = cpu_seconds(running.pid) - used
            read = load.bytes_read()
        finally:
            load.close()
            first.close()
    deliveries = sockets * len(took)
    return {
        "rate": sockets / statistics.median(seconds for _, seconds in took),
        "cpu_us": 1e6 * used / deliveries,
        "bytes": read / deliveries,
        "memory_kb": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=50, help="rows a round, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for them")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    results: dict[str, Figures] = {named(*way): {} for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as base:
        for number in range(arguments.rounds):
            for kind, deflate in WAYS:
                folder = Path(base) / f"{number}-{kind}-{deflate}"
                folder.mkdir()
                try:
                    found = measure(kind, deflate, folder, arguments)
                except (Failed, Unavailable) as error:
                    sys.exit(f"{named(kind, deflate)}: {error}")
                for what, value in found.items():
                    results[named(kind, deflate)].setdefault(what, []).append(value)
    middle = {
        what: {name: statistics.median(figures[what]) for name, figures in results.items()}
        for what in ("rate", "cpu_us", "bytes", "memory_kb")
    }
    head = ["one row", "deliveries a second: min / median / max", "CPU µs", "bytes", "KB a socket"]
    rows = [
        [
            name,
            spread(figures["rate"]),
            f"{middle['cpu_us'][name]:.2f}",
            f"{middle['bytes'][name]:.0f}",
            f"{middle['memory_kb'][name]:.1f}",
        ]
        for name, figures in results.items()
    ]
    say(table(head, rows))
    shared = named("fanout", True)
    comparisons = [
        Comparison(said, shared, other, ratios(results[shared][what], results[other][what]))
        for what, said in (("rate", "deliveries a second"), ("bytes", "bytes of one on the wire"))
        for other in (named("uvicorn", True), named("fanout", False))
    ]
    to_all = f"One row to {arguments.sockets:,} sockets"
    drawn = [
        bars(
            f"{to_all}, from the first to the last", middle["rate"], "deliveries a second", shared
        ),
        bars("One delivery on the wire", middle["bytes"], "bytes", shared),
        bars("The server's CPU time for one delivery", middle["cpu_us"], "microseconds", shared),
    ]
    conclude(arguments, results, comparisons, drawn)


if __name__ == "__main__":
    main()
