"""What the bus costs, by the number of server processes: `python -m benchmarks.bus`.

PostgreSQL, Redis, a tailer (`manage.py tail_wal`) and up to 50 server processes: each a dispatcher
with subscriptions, its own end of the bus and its own head monitor, and no sockets. Rows are
written at a fixed rate while they run, in windows of some seconds:

* idle: no row; trickle: one row a second, so that the tailer looks as often as under load;
* small: transactions of one row that no subscription matches; large: of many such rows;
* matching: with a fifth of the rows, which some subscriptions of every server match, each with a
  frame of its own.

From trickle, small and large follows what a batch costs, and what an event within it (see
benchmarks/windows.py): CPU time of a server, of Redis, of the tailer and of PostgreSQL, and bytes
through Redis. From large and matching follows what a match costs. At last one transaction of many
rows is written: the rate at which it reaches a single server is that of a tailer without a pause.

CPU time is the kernel's count for each process, so other work on the machine changes it little.
Every server must get every event, and its channels every match. With fewer processes than servers
(--processes) several dispatchers share one, and its CPU time is divided by their number.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.bus_server import MATCHED, UNMATCHED
from benchmarks.bus_world import World, environment, world
from benchmarks.chart import Panel, groups
from benchmarks.databases import url_of
from benchmarks.programs import Failed
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from benchmarks.windows import share
from tests.acceptance.support.server import migrate

LAYERS = ("pubsub", "core")
# Batches a second that all servers together get at most, so that one machine keeps up.
_MOST_BATCHES = 400.0
# The matching windows have fewer rows, because each makes many frames.
_FEWER = 5
# The counters, and by what a growth is multiplied to become microseconds or bytes.
COUNTERS = {
    "server_us": 1e6,
    "redis_us": 1e6,
    "tailer_us": 1e6,
    "database_writer_us": 1e6,
    "database_log_us": 1e6,
    "redis_in_bytes": 1.0,
    "redis_out_bytes": 1.0,
}
SAID = {
    "server_us": "a server process, CPU µs",
    "redis_us": "Redis, CPU µs",
    "tailer_us": "the tailer, CPU µs",
    "database_writer_us": "PostgreSQL for the writer, CPU µs",
    "database_log_us": "PostgreSQL for tailer and servers, CPU µs",
    "redis_in_bytes": "into Redis, bytes",
    "redis_out_bytes": "out of Redis, bytes",
}

# Figures of one number of servers, one per round.
Figures = dict[str, list[float]]


def figures_of(world: World, arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of one round."""
    many, seconds = arguments.rows, arguments.seconds
    # The same for every number of servers, because a batch costs more after a longer pause.
    rate = min(arguments.transactions, _MOST_BATCHES / max(arguments.servers))
    idle = world.window(0, 0, UNMATCHED, seconds)
    trickle = world.window(1, 1, UNMATCHED, seconds)
    small = world.window(rate, 1, UNMATCHED, seconds)
    large = world.window(rate, many, UNMATCHED, seconds)
    matching = world.window(rate, max(2, many // _FEWER), MATCHED, seconds)
    found: dict[str, float] = {
        "subscription_kb": world.subscription_kb,
        "servers_per_process": world.servers_per_process,
    }
    for name, unit in COUNTERS.items():
        of = share(name, trickle, small, large)
        # Of one server, where all of them were counted together.
        each = unit / world.servers if name.startswith("server") else unit
        found[f"{name}_idle_second"] = idle.grown[name] / idle.seconds * each
        found[f"{name}_second"] = of.second * each
        found[f"{name}_batch"] = of.batch * each
        found[f"{name}_event"] = of.event * each
    unmatched = share("server_us", trickle, small, large)
    rest = matching.grown["server_us"] / world.servers - (
        unmatched.second / world.servers * matching.seconds
        + unmatched.batch / world.servers * matching.batches
        + unmatched.event / world.servers * matching.events
    )
    found["server_us_match"] = rest * 1e6 / (matching.events * arguments.matches)
    found["frame_bytes"] = matching.grown["frame_bytes"] / matching.grown["frames"]
    found["row_bytes"] = world.row_bytes()
    found["healed"] = sum(one.grown["healed"] for one in (trickle, small, large, matching))
    return found


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Figures]]:
    results: dict[str, dict[str, Figures]] = {layer: {} for layer in arguments.layers}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as name, url_of("postgresql", name):
        migrate({**environment(), "REDIS_URL": "redis://127.0.0.1:1/0"})
        for servers in arguments.servers:
            for layer in arguments.layers:
                folder = Path(name) / f"{layer}-{servers}"
                folder.mkdir()
                say(f"{servers} servers, {layer}\n")
                found: Figures = {}
                with world(servers, folder, layer, arguments) as made:
                    for _ in range(arguments.rounds):
                        for what, value in figures_of(made, arguments).items():
                            found.setdefault(what, []).append(value)
                    if servers == min(arguments.servers):
                        for _ in range(arguments.rounds):
                            rate = made.catch_up(arguments.catch_up)
                            found.setdefault("changes_per_second", []).append(rate)
                results[layer][str(servers)] = found
    return results


def tables(results: dict[str, dict[str, Figures]]) -> None:
    for layer, by_servers in results.items():
        head = [f"{layer}: min / median / max", *(f"{n} servers" for n in by_servers)]
        rows = []
        for name, said in SAID.items():
            for part in ("idle_second", "second", "batch", "event", "match"):
                key = f"{name}_{part}"
                if all(key in figures for figures in by_servers.values()):
                    about = part.replace("idle_second", "second at rest")
                    cells = [spread(figures[key], 1) for figures in by_servers.values()]
                    rows.append([f"{said}, a {about}".replace("a event", "an event"), *cells])
        say("\n" + table(head, rows))
        for figures in by_servers.values():
            if "changes_per_second" in figures:
                caught = spread(figures["changes_per_second"])
                say(f"\nwithout a pause, changes a second: {caught}\n")


def compared(results: dict[str, dict[str, Figures]]) -> list[Comparison]:
    """What an event costs a server among many, beside what it costs a server alone."""
    found = []
    for layer, by_servers in results.items():
        few, many = min(by_servers, key=int), max(by_servers, key=int)
        if few != many:
            for part in ("batch", "event"):
                key = f"server_us_{part}"
                by_round = ratios(by_servers[many][key], by_servers[few][key])
                said = f"CPU of a server, {layer}, a {part}".replace("a event", "an event")
                found.append(Comparison(said, f"{many} servers", few, by_round))
    return found


def drawn(results: dict[str, dict[str, Figures]]) -> list[Panel]:
    middle = statistics.median
    panels = []
    for layer, by_servers in results.items():
        costs = {
            f"{servers} servers": {
                part: middle(figures[f"server_us_{part}"]) for part in ("event", "match")
            }
            for servers, figures in by_servers.items()
        }
        title = f"What a server pays for an event, and more for a match, {layer}"
        panels.append(groups(title, costs, "CPU microseconds", ours="event"))
    return panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--processes", type=int, help="at most; several dispatchers share one then")
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--subscriptions", type=int, default=1_000, help="of each server")
    parser.add_argument("--matches", type=int, default=10, help="of each server, where some match")
    parser.add_argument(
        "--transactions", type=float, default=20.0, help="a second, fewer with many servers"
    )
    parser.add_argument("--rows", type=int, default=50, help="of a large transaction")
    parser.add_argument("--bytes", type=int, default=100, help="of the text of a row")
    parser.add_argument("--catch-up", type=int, default=20_000, help="rows written at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    if arguments.matches > arguments.subscriptions or arguments.rows < 2:
        parser.error("--matches must be at most --subscriptions, and --rows at least 2")
    try:
        results = measure(arguments)
    except Failed as error:
        sys.exit(str(error))
    tables(results)
    conclude(arguments, results, compared(results), drawn(results))


if __name__ == "__main__":
    main()
