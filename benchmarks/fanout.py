"""One message to many sockets, beside the others: `python -m benchmarks.fanout`.

Each contestant serves the same sockets on the same machine, one after the other, in several rounds,
with the load client (C) in a process of its own. A message of about 220 bytes is published; when it
has reached every socket, the next one. So nobody can gain by sending several messages at once.

* broadcasts: from the moment the publisher sends until the last socket has it;
* row changes (ours alone): from the COMMIT of one INSERT until the last socket has the row. The
  tailer looks every 20 ms, so `fan-out`, from the first socket to the last, is shown beside it;
* a burst of rows in one transaction (ours alone): all of them at every socket.

`CPU` is the server's own time for one delivery of a broadcast, kernel included (Redis not): what
remains comparable when the machine has other work.

Every frame is checked by the load client: each message once at each socket, in order, and the same
bytes everywhere; and what it says is compared with what was sent. `--json` keeps the figures, and
`--chart` draws them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.chart import bars
from benchmarks.contestants import ALL, LIMIT, Contestant, Stand
from benchmarks.programs import Failed, Load, Unavailable, compile_c, cpu_seconds

# What the goals are about: ours, the other, how many times as much, and of what.
WHOLE, ALONE = "broadcasts", "fan_out"
GOALS = (
    ("Rowcast, daphne", "Channels in-memory, daphne", 8.0, WHOLE),
    ("Rowcast, uvicorn", "Channels in-memory, uvicorn", 20.0, WHOLE),
    ("Rowcast, uvicorn, fast path", "Channels in-memory, uvicorn", 20.0, WHOLE),
    ("Rowcast, uvicorn, fast path", LIMIT, 0.8, WHOLE),
    # Without the way of one message to the first socket, which the limit hardly has.
    ("Rowcast, uvicorn, fast path", LIMIT, 0.8, ALONE),
)
_SILENCE = 20.0
PACKAGES = ("channels", "channels-redis", "daphne", "Django", "uvicorn", "websockets", "Twisted")


@dataclass(slots=True)
class Figures:
    """One contestant: a figure a round. Rates are deliveries a second."""

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


def text_of(number: int, size: int) -> str:
    """A message that carries its number, padded to the size of the whole."""
    return f"#{number:010}#".ljust(size, "x")


class Round:
    """One contestant's turn."""

    def __init__(self, stand: Stand, load: Load, arguments: argparse.Namespace) -> None:
        self._stand = stand
        self._load = load
        self._arguments = arguments
        self._number = 0
        self._heard_at = time.monotonic()

    def _until(self, seconds: float, messages: int) -> range:
        if self._stand.heartbeat and time.monotonic() - self._heard_at > _SILENCE:
            self._load.beat(1.0, self._stand.heartbeat)
            self._heard_at = time.monotonic()
        # Who is slow has fewer messages, so that nobody takes all evening.
        self._ends = time.monotonic() + seconds
        return range(messages)

    def _next(self, size: int) -> str:
        self._number += 1
        return text_of(self._number, size)

    def texts(self, count: int) -> list[str]:
        """Titles of rows that will come next."""
        return [self._next(12) for _ in range(count)]

    def row(self) -> str:
        """One row to everybody; the frame that came."""
        assert self._stand.write
        self._load.expect()
        self._stand.write(self.texts(1))
        return self._load.arrive().text

    def _check(self, frame: str, text: str) -> None:
        if self._stand.told(frame) != text:
            raise Failed(f"it sent {frame!r} for {text!r}")

    def broadcasts(self, messages: int) -> list[tuple[float, float]]:
        """Seconds from sending to the last socket, and from the first socket to the last."""
        took = []
        for _ in self._until(self._arguments.seconds, messages):
            text = self._next(self._arguments.bytes - self._envelope)
            arrival = self._load.fire(self._stand.message(text))
            self._check(arrival.text, text)
            took.append((arrival.last - arrival.sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took

    @property
    def _envelope(self) -> int:
        # Ours wraps the text, so it is made shorter: what counts is what goes over the wire.
        return 120 if self._stand.write else 0

    def rows(self, transactions: int, size: int) -> list[tuple[float, float]]:
        """The same for committed rows, so many to a transaction."""
        assert self._stand.write
        took = []
        for _ in self._until(self._arguments.seconds, transactions):
            texts = self.texts(size)
            self._load.expect(size)
            sent = time.monotonic()
            self._stand.write(texts)
            arrival = self._load.arrive(size)
            self._check(arrival.text, texts[-1])
            took.append((arrival.last - sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took


def measure(
    contestant: Contestant, figures: Figures, folder: Path, arguments: argparse.Namespace
) -> None:
    """One round of one contestant. Raises Failed or Unavailable."""
    sockets = arguments.sockets
    with contestant.start(folder) as stand:
        load = Load(compile_c("load", folder.parent), stand.door, sockets)
        try:
            connecting = load.connect()
            turn = Round(stand, load, arguments)
            turn.broadcasts(arguments.warm_up)
            used = cpu_seconds(stand.pid)
            took = turn.broadcasts(arguments.messages)
            used = cpu_seconds(stand.pid) - used
            whole = statistics.median(seconds for seconds, _ in took)
            fan_out = statistics.median(seconds for _, seconds in took)
            figures.connecting.append(connecting)
            figures.broadcasts.append(sockets / whole)
            figures.milliseconds.append(1_000 * whole)
            figures.fan_out.append(sockets / fan_out)
            figures.cpu.append(1e6 * used / (sockets * len(took)))
            if stand.write:
                took = turn.rows(arguments.messages, 1)
                whole = statistics.median(seconds for seconds, _ in took)
                fan_out = statistics.median(seconds for _, seconds in took)
                figures.rows.append(sockets / whole)
                figures.rows_fan_out.append(sockets / fan_out)
                took = turn.rows(3, arguments.burst)
                burst = statistics.median(seconds for seconds, _ in took)
                figures.burst.append(sockets * arguments.burst / burst)
        finally:
            load.close()


def spread(values: list[float], digits: int = 0) -> str:
    """min / median / max"""
    three = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:,.{digits}f}" for value in three)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round: both were measured within the same minutes."""
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def report(results: dict[str, Figures]) -> list[dict[str, Any]]:
    say = sys.stdout.write
    say(f"\n{'deliveries a second':32} {'min / median / max':>32}   ms   fan-out alone  CPU µs\n")
    for name, figures in results.items():
        if not figures.broadcasts:
            say(f"{name:32} {figures.absent}\n")
            continue
        middle = statistics.median(figures.milliseconds)
        fan_out = statistics.median(figures.fan_out)
        cpu = statistics.median(figures.cpu)
        say(f"{name:32} {spread(figures.broadcasts):>32} {middle:6.1f} {fan_out:12,.0f}")
        say(f" {cpu:9.2f}\n")
        for label, values, also in (
            ("one row", figures.rows, figures.rows_fan_out),
            ("rows, in one transaction", figures.burst, []),
        ):
            if values:
                more = f"{statistics.median(also):19,.0f}" if also else ""
                say(f"{'  ' + label:32} {spread(values):>32} {more}\n")
    goals = []
    say(f"\n{'times as much, round by round':60} {'goal':>5}  min / median / max\n")
    for ours, theirs, goal, what in GOALS:
        one, other = results.get(ours), results.get(theirs)
        if one is None or other is None or not (one.broadcasts and other.broadcasts):
            continue
        found = ratios(getattr(one, what), getattr(other, what))
        goals.append({"ours": ours, "theirs": theirs, "goal": goal, "of": what, "ratios": found})
        named = f"{ours}  :  {theirs}" + ("  (fan-out alone)" if what == ALONE else "")
        say(f"{named:60} {goal:5}  {spread(found, 2)}\n")
    return goals


def machine() -> dict[str, Any]:
    import os

    return {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=50, help="at most, of a kind and round")
    parser.add_argument("--seconds", type=float, default=4.0, help="at most, of a kind and round")
    parser.add_argument("--warm-up", type=int, default=5, help="messages before those that count")
    parser.add_argument("--burst", type=int, default=50, help="rows of one transaction")
    parser.add_argument("--bytes", type=int, default=220)
    parser.add_argument("--only", action="append", help="contestants whose name contains this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
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
                sys.stdout.write(f"round {number + 1}: {one.name}\n")
                sys.stdout.flush()
                try:
                    measure(one, figures, folder, arguments)
                except (Failed, Unavailable) as error:
                    figures.absent = str(error)
                    sys.stdout.write(f"  {error}\n")
    goals = report(results)
    found = {
        "machine": machine(),
        "sockets": arguments.sockets,
        "bytes": arguments.bytes,
        "results": {name: asdict(figures) for name, figures in results.items()},
        "goals": goals,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.chart:
        # The best round is the least disturbed one, whoever it belongs to.
        best = {name: max(one.broadcasts) for name, one in results.items() if one.broadcasts}
        title = f"Deliveries a second, one message to {arguments.sockets:,} sockets, best round"
        arguments.chart.write_text(bars(title, best, ours="Rowcast"))


if __name__ == "__main__":
    main()
