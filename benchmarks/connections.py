"""The cost of many sockets in one process: `python -m benchmarks.connections`.

uvicorn and uvicorn with the fast path alternate, each with 10,000 sockets that joined one topic and
listen to one table under a policy. Measured are:

* the time until all sockets are connected and have joined, compared with the time in which the same
  server connects them with an application that does nothing;
* the memory of a socket, compared with the same server with that application;
* one message to all sockets, and one row: the fast path compared with plain uvicorn;
* a heartbeat from every socket, spread over some seconds: the times of the answers;
* a reconnect of all sockets after some rows were written: the time until each has what it missed,
  compared with the time in which the server that does nothing connects them; and meanwhile the
  times of a heartbeat from another client, ten times a second.

The load client checks that every socket got every message once and in order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chart import Panel, groups
from benchmarks.contestants import HEARTBEAT, SHOWN, RunningServer, bare, join, ours
from benchmarks.programs import (
    Failed,
    Load,
    Unavailable,
    compile_c,
    cpu_seconds,
    memory_kilobytes,
)
from benchmarks.pulse import Pulse
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from benchmarks.rounds import Round

KINDS = ("uvicorn", "fanout")
# Goals: kilobytes of a socket more than without an application, and milliseconds for one message
# to all and for a heartbeat while all come back.
GOALS = {"above_bare_kb": 30.0, "message_ms": 250.0, "herd_heartbeat_p99_ms": 100.0}
# The printed figures, with their number of digits.
SAID = {
    "connect_s": ("connected and joined, s", 1),
    "bare_connect_s": ("a bare server: connected, s", 1),
    "join_cpu_us": ("CPU of a connection with its join, µs", 0),
    "process_mb": ("memory of the process before, MB", 0),
    "above_bare_kb": ("memory of a socket above a bare server's, KB", 1),
    "bare_memory_kb": ("a bare server's own, KB", 1),
    "message_ms": ("one message to all, ms", 0),
    "row_ms": ("one row to all, ms", 0),
    "heartbeat_ms": ("heartbeat answered, median, ms", 1),
    "heartbeat_p99_ms": ("heartbeat answered, 99 %, ms", 1),
    "heartbeat_worst_ms": ("heartbeat answered, worst, ms", 1),
    "heartbeat_cpu_us": ("CPU of a heartbeat, µs", 0),
    "rejoin_s": ("all gone and back in, s", 1),
    "resumed_s": ("and with what they missed, s", 1),
    "herd_heartbeat_p99_ms": ("meanwhile, another's heartbeat, 99 %, ms", 1),
    "herd_heartbeat_worst_ms": ("meanwhile, another's heartbeat, worst, ms", 1),
}
_SETTLING = 2.0

Figures = dict[str, list[float]]


def grown(running: RunningServer, load: Load, sockets: int) -> tuple[float, float]:
    """Seconds until all sockets have joined, and kilobytes per socket."""
    before = memory_kilobytes(running.pid)
    seconds = load.connect()
    time.sleep(_SETTLING)
    return seconds, (memory_kilobytes(running.pid) - before) / sockets


def at_rest(running: RunningServer) -> float:
    """CPU seconds of a second in which clients do nothing."""
    used, began = cpu_seconds(running.pid), time.monotonic()
    time.sleep(_SETTLING)
    return (cpu_seconds(running.pid) - used) / (time.monotonic() - began)


def alone(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The server with an application that does nothing."""
    with bare(kind, folder) as running:
        load = Load(compile_c("load", folder.parent), running.endpoint, arguments.sockets)
        try:
            seconds, kilobytes = grown(running, load, arguments.sockets)
        finally:
            load.close()
    return {"bare_connect_s": seconds, "bare_memory_kb": kilobytes}


def whole(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    sockets = arguments.sockets
    with ours(kind, folder) as running:
        load = Load(compile_c("load", folder.parent), running.endpoint, sockets)
        try:
            # The first socket starts the hub, whose memory is not to be counted.
            first = Load(compile_c("load", folder.parent), running.endpoint, 1)
            first.connect()
            process = memory_kilobytes(running.pid)
            used = cpu_seconds(running.pid)
            seconds, kilobytes = grown(running, load, sockets)
            joining = cpu_seconds(running.pid) - used
            first.close()
            resting = at_rest(running)
            used, began = cpu_seconds(running.pid), time.monotonic()
            median, high, worst = load.beat(arguments.heartbeat, HEARTBEAT)
            beating = cpu_seconds(running.pid) - used - resting * (time.monotonic() - began)
            round_ = Round(running, load, arguments)
            messages = [took for took, _ in round_.broadcasts(arguments.messages)]
            rows = [took for took, _ in round_.rows(arguments.messages, 1)]
            again, resumed, high_back, worst_back = come_back(
                running, load, round_, arguments.missed
            )
        finally:
            load.close()
    return {
        "connect_s": seconds,
        "join_cpu_us": 1e6 * joining / sockets,
        "process_mb": process / 1024,
        "memory_kb": kilobytes,
        "message_ms": 1_000 * statistics.median(messages),
        "row_ms": 1_000 * statistics.median(rows),
        "heartbeat_ms": median,
        "heartbeat_p99_ms": high,
        "heartbeat_worst_ms": worst,
        "heartbeat_cpu_us": 1e6 * max(0.0, beating) / sockets,
        "rejoin_s": again,
        "resumed_s": resumed,
        "herd_heartbeat_p99_ms": high_back,
        "herd_heartbeat_worst_ms": worst_back,
    }


def come_back(
    running: RunningServer, load: Load, round_: Round, missed: int
) -> tuple[float, float, float, float]:
    """Seconds until all sockets have joined again, and until all have what they missed; and
    milliseconds of the heartbeats of another client meanwhile, 99 % and the longest."""
    assert running.write
    since = json.loads(round_.row())[4]["data"]["seq"]
    load.drop()
    load.expect(missed)
    running.write(round_.texts(missed))
    load.greet(join(since))
    with Pulse(running.endpoint, running.heartbeat) as pulse:
        began = time.monotonic()
        seconds = load.connect()
        load.arrive(missed)
        resumed = time.monotonic() - began
    return seconds, resumed, *pulse.milliseconds()


def named(kind: str) -> str:
    return f"Rowcast, {SHOWN[kind]}"


def compared(results: dict[str, Figures]) -> list[Comparison]:
    found = [
        Comparison(
            said,
            named(kind),
            f"bare server, {SHOWN[kind]}",
            ratios(figures[what], figures[f"bare_{bare_what}"]),
        )
        for what, bare_what, said in (
            ("connect_s", "connect_s", "time until all are in"),
            ("resumed_s", "connect_s", "time until all are back with what they missed"),
            ("memory_kb", "memory_kb", "memory of a socket"),
        )
        for kind, figures in results.items()
    ]
    plain, fast = (results[kind] for kind in KINDS)
    for what, said in (
        ("message_ms", "speed, one message to all"),
        ("row_ms", "speed, one row to all"),
    ):
        # How many times as fast: the other's time divided by ours.
        by_round = ratios(plain[what], fast[what])
        found.append(Comparison(said, named("fanout"), named("uvicorn"), by_round))
    return found


def drawn(results: dict[str, Figures], sockets: int) -> list[Panel]:
    def bare_and_ours(what: str) -> dict[str, dict[str, float]]:
        return {
            SHOWN[kind]: {
                "bare server": statistics.median(figures[f"bare_{what}"]),
                "Rowcast": statistics.median(figures[what]),
            }
            for kind, figures in results.items()
        }

    to_all = {
        said: {named(kind): statistics.median(figures[what]) for kind, figures in results.items()}
        for what, said in (("message_ms", "one message"), ("row_ms", "one row, from its COMMIT"))
    }
    many = f"{sockets:,} sockets"
    return [
        groups(f"Memory of each of {many}", bare_and_ours("memory_kb"), "kilobytes", "Rowcast"),
        groups(f"Until {many} are in", bare_and_ours("connect_s"), "seconds", "Rowcast"),
        groups(f"Until all of {many} have it", to_all, "milliseconds", named("fanout")),
    ]


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
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    results: dict[str, Figures] = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as base:
        for number in range(arguments.rounds):
            for kind in KINDS:
                say(f"round {number + 1}: {named(kind)}\n")
                for run in (alone, whole):
                    folder = Path(base) / f"{number}-{kind}-{run.__name__}"
                    folder.mkdir()
                    try:
                        found = run(kind, folder, arguments)
                    except (Failed, Unavailable) as error:
                        sys.exit(f"{named(kind)}: {error}")
                    for what, value in found.items():
                        results[kind].setdefault(what, []).append(value)
                own = results[kind]["memory_kb"][-1] - results[kind]["bare_memory_kb"][-1]
                results[kind].setdefault("above_bare_kb", []).append(own)
    head = [f"{arguments.sockets:,} sockets: min / median / max", "goal"]
    rows = [
        [said, f"{GOALS[what]:g}" if what in GOALS else ""]
        + [spread(figures[what], digits) for figures in results.values()]
        for what, (said, digits) in SAID.items()
    ]
    say("\n" + table([*head, *map(named, results)], rows))
    conclude(arguments, results, compared(results), drawn(results, arguments.sockets))


if __name__ == "__main__":
    main()
