"""One message to many sockets, by Rowcast and by other servers: `python -m benchmarks.fanout`.

Each server has the same number of sockets on the same machine, one server after the other, in
several rounds; the load client (C) is a process of its own. A message of about 220 bytes is
published, and the next one when every socket has it, so no server gains by batching messages.

* broadcasts: from the moment the publisher sends until the last socket has the message;
* row changes (Rowcast only): from the COMMIT of one INSERT until the last socket has the row. The
  tailer looks every 20 ms, so `fan-out`, the time from the first socket to the last, is shown too;
* a burst of rows in one transaction (Rowcast only): until every socket has all of them.

`CPU` is the server's own time for one delivery of a broadcast, with the kernel and without Redis.
It stays comparable when the machine has other work.

The load client checks every frame: each message once at each socket, in order, with the same bytes
everywhere; its text is compared with the text that was sent. `--json` saves the figures, and
`--chart` draws them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.chart import bars
from benchmarks.contestants import ALL, LIMIT, Contestant
from benchmarks.programs import Failed, Load, Unavailable, compile_c, cpu_seconds
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from benchmarks.rounds import Round

# The goals: our server, the other one, the ratio, and the figure.
WHOLE, ALONE = "broadcasts", "fan_out"
SAID = {WHOLE: "deliveries a second", ALONE: "the same, from the first socket to the last"}
GOALS = (
    ("Rowcast, daphne", "Channels in-memory, daphne", 8.0, WHOLE),
    ("Rowcast, uvicorn", "Channels in-memory, uvicorn", 20.0, WHOLE),
    ("Rowcast, uvicorn, fast path", "Channels in-memory, uvicorn", 20.0, WHOLE),
    ("Rowcast, uvicorn, fast path", LIMIT, 0.8, WHOLE),
    # Without the time until the first socket has the message, which the bare loop hardly has.
    ("Rowcast, uvicorn, fast path", LIMIT, 0.8, ALONE),
)


@dataclass(slots=True)
class Figures:
    """The figures of one server, one per round. Rates are deliveries per second."""

    broadcasts: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    fan_out: list[float] = field(default_factory=list)
    # Microseconds of the server's CPU time for one delivery, the kernel's part included.
    cpu: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    rows_fan_out: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)
    connecting: list[float] = field(default_factory=list)
    absent: str = ""


def measure(
    contestant: Contestant, figures: Figures, folder: Path, arguments: argparse.Namespace
) -> None:
    """One round with one server. Raises Failed or Unavailable."""
    sockets = arguments.sockets
    with contestant.start(folder) as running:
        load = Load(compile_c("load", folder.parent), running.endpoint, sockets)
        try:
            connecting = load.connect()
            round_ = Round(running, load, arguments)
            round_.broadcasts(arguments.warm_up)
            used = cpu_seconds(running.pid)
            took = round_.broadcasts(arguments.messages)
            used = cpu_seconds(running.pid) - used
            whole = statistics.median(seconds for seconds, _ in took)
            fan_out = statistics.median(seconds for _, seconds in took)
            figures.connecting.append(connecting)
            figures.broadcasts.append(sockets / whole)
            figures.milliseconds.append(1_000 * whole)
            figures.fan_out.append(sockets / fan_out)
            figures.cpu.append(1e6 * used / (sockets * len(took)))
            if running.write:
                took = round_.rows(arguments.messages, 1)
                whole = statistics.median(seconds for seconds, _ in took)
                fan_out = statistics.median(seconds for _, seconds in took)
                figures.rows.append(sockets / whole)
                figures.rows_fan_out.append(sockets / fan_out)
                took = round_.rows(3, arguments.burst)
                burst = statistics.median(seconds for seconds, _ in took)
                figures.burst.append(sockets * arguments.burst / burst)
        finally:
            load.close()


def report(results: dict[str, Figures]) -> list[Comparison]:
    head = ["", "deliveries a second: min / median / max", "ms", "fan-out alone", "CPU µs"]
    rows = []
    for name, figures in results.items():
        if not figures.broadcasts:
            rows.append([name, figures.absent, "", "", ""])
            continue
        middle = f"{statistics.median(figures.milliseconds):.1f}"
        fan_out = f"{statistics.median(figures.fan_out):,.0f}"
        cpu = f"{statistics.median(figures.cpu):.2f}"
        rows.append([name, spread(figures.broadcasts), middle, fan_out, cpu])
        for label, values, also in (
            ("one row", figures.rows, figures.rows_fan_out),
            ("rows, in one transaction", figures.burst, []),
        ):
            if values:
                more = f"{statistics.median(also):,.0f}" if also else ""
                rows.append([f"  {label}", spread(values), "", more, ""])
    say("\n" + table(head, rows))
    found = []
    for ours, theirs, goal, what in GOALS:
        one, other = results.get(ours), results.get(theirs)
        if one is None or other is None or not (one.broadcasts and other.broadcasts):
            continue
        by_round = ratios(getattr(one, what), getattr(other, what))
        found.append(Comparison(SAID[what], ours, theirs, by_round, goal))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=50, help="at most, of a kind and round")
    parser.add_argument("--seconds", type=float, default=4.0, help="at most, of a kind and round")
    parser.add_argument("--warm-up", type=int, default=5, help="messages before those that count")
    parser.add_argument("--burst", type=int, default=50, help="rows of one transaction")
    parser.add_argument("--bytes", type=int, default=220)
    parser.add_argument("--only", action="append", help="contestants whose name contains this")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    wanted = [
        one for one in ALL if not arguments.only or any(part in one.name for part in arguments.only)
    ]
    results = {one.name: Figures() for one in wanted}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as base:
        try:
            compile_c("load", Path(base))
        except Unavailable as error:
            sys.exit(str(error))
        for number in range(arguments.rounds):
            for one in wanted:
                figures = results[one.name]
                if figures.absent:
                    continue
                folder = Path(base) / f"{number}-{wanted.index(one)}"
                folder.mkdir()
                say(f"round {number + 1}: {one.name}\n")
                try:
                    measure(one, figures, folder, arguments)
                except (Failed, Unavailable) as error:
                    figures.absent = str(error)
                    say(f"  {error}\n")
    comparisons = report(results)
    # Of each server the best round counts, which is the least disturbed one.
    best = {name: max(one.broadcasts) for name, one in results.items() if one.broadcasts}
    title = f"One message to {arguments.sockets:,} sockets, best round"
    drawn = [bars(title, best, "deliveries a second", ours="Rowcast")]
    kept = {name: asdict(figures) for name, figures in results.items()}
    conclude(arguments, kept, comparisons, drawn)


if __name__ == "__main__":
    main()
