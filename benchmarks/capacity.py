"""What a deployment has to carry, and what of it is full first: `python -m benchmarks.capacity`.

From the costs that the other benchmarks have measured (benchmarks/capacity.json keeps them, with
the machine), for so many sockets, changes a second and matches: the load of the database, of Redis,
of the tailer and of the servers, how many servers are needed, and the rate at which the first part
is full. docs/scaling.md has the formulas and what was not measured.

* `--from FILE ...`: with the figures of these JSON files instead, which benchmarks write (--json).
* `--measure`: run the benchmarks, keep what they found in benchmarks/capacity.json, and write the
  tables of docs/scaling.md anew. Takes about 40 minutes on a quiet machine; `--quick` takes fewer
  sockets and servers, to try it.
* `--write`: write the tables of docs/scaling.md anew from what is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import constants
from benchmarks.constants import COMMANDS, LAYERS, Kept, Unusable
from benchmarks.load_model import (
    Constants,
    Estimate,
    Limits,
    Workload,
    estimate,
    least_servers,
    most_changes,
    servers_needed,
)
from benchmarks.report import say, table

DOC = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
ALL = "all"
SOCKETS = (1_000, 10_000, 100_000, 1_000_000)
CHANGES = (10, 100, 1_000, 10_000)
MATCHES = ("1", "10", "100", ALL)
# What `--quick` adds to the commands.
_QUICK = {
    "bus": ["--servers", "1", "10", "--subscriptions", "200", "--rounds", "1", "--seconds", "3"],
    "fanout": ["--rounds", "1", "--messages", "10"],
    "connections": ["--sockets", "1000", "--rounds", "1", "--heartbeat", "5"],
    "rls": ["--scale", "0.1", "--rounds", "1"],
    "writes": ["--entries", "20000", "--rounds", "1"],
}


def workload(sockets: int, changes: float, matches: str, **more: Any) -> Workload:
    """`matches` is a number or "all". Sockets that all get the same changes share their frames."""
    count = float(sockets) if matches == ALL else float(matches)
    given: dict[str, Any] = {"distinct": 1.0 if matches == ALL else count, **more}
    return Workload(sockets, changes, count, **given)


# --- the tables of docs/scaling.md ----------------------------------------------------------------


def percent(load: float) -> str:
    """Of what a part can do, in percent; loads above it are multiples."""
    return f"{load:,.0f} ×" if load >= 10 else f"{100 * load:,.0f} %"


def cell(load: Workload, known: Constants, limits: Limits) -> str:
    """Processes needed, and the shared part with the highest load; bold if that is too much."""
    servers = servers_needed(load, known, limits)
    found = estimate(load, known, limits, servers or least_servers(load, limits))
    text = f"{found.first.name} {percent(found.first.load)}"
    if found.first.load > limits.used:
        text = f"**{text}**"
    return f"{servers:,}; {text}" if servers else f"none enough; {text}"


def worked(known: Constants, limits: Limits) -> str:
    """The worked table: servers and what is full first, by sockets, changes and matches."""
    head = ["sockets", "changes/s", *(f"{n} matches" if n != "1" else "1 match" for n in MATCHES)]
    rows = [
        [f"{sockets:,}", f"{changes:,}"]
        + [cell(workload(sockets, changes, matches), known, limits) for matches in MATCHES]
        for sockets in SOCKETS
        for changes in CHANGES
    ]
    return table(head, rows)


def highest(known: Constants, limits: Limits) -> str:
    """The highest rates of changes, by sockets and matches, and what is full there."""
    rows = []
    for sockets in SOCKETS:
        cells = [f"{sockets:,}"]
        for matches in MATCHES:
            most = most_changes(workload(sockets, 1, matches), known, limits)
            cells.append(f"{_round(most):,g}")
        rows.append(cells)
    return table(["sockets", *(f"{n} matches" if n != "1" else "1 match" for n in MATCHES)], rows)


def _round(value: float) -> float:
    """To two digits, and never up."""
    if value < 1:
        return round(value, 2)
    step = 10 ** max(0, len(str(int(value))) - 2)
    return float(int(value) // step * step)


def costs(kept: Kept) -> str:
    """Every constant, by layer, with its source."""
    rows = []
    for name, source in kept.sources.items():
        values = [getattr(kept.layers[layer], name) for layer in LAYERS]
        rows.append([f"`{name}`", *(f"{value:,.4g}" for value in values), source])
    return table(["constant", *LAYERS, "from"], rows)


def machine(kept: Kept) -> str:
    """The machine, and the options of each benchmark."""
    said = kept.machine
    rows = [[f"`benchmarks.{name}`", _options(options)] for name, options in kept.runs.items()]
    return (
        f"Measured on {said['date']}: {said['cores']} cores, {said['system']},"
        f" Python {said['python']}.\n\n" + table(["run", "with"], rows)
    )


def _options(options: Mapping[str, Any]) -> str:
    """As they were given or are by default."""
    found = []
    for name, value in options.items():
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        found.append(f"{name.replace('_', '-')} {text}")
    return ", ".join(found)


def documented(kept: Kept) -> dict[str, str]:
    """The parts of docs/scaling.md that this program writes, by the name of their marks."""
    known, limits = kept.layers[LAYERS[0]], Limits()
    return {
        "machine": machine(kept),
        "costs": costs(kept),
        "worked": worked(known, limits),
        "highest": highest(known, limits),
    }


def with_tables(text: str, kept: Kept) -> str:
    """The page with these parts between their marks. Raises ValueError for a mark that is not
    there."""
    for name, part in documented(kept).items():
        begin, end = f"<!-- {name}: python -m benchmarks.capacity --write -->\n", "<!-- end -->"
        before, mark, rest = text.partition(begin)
        _, closing, after = rest.partition(end)
        if not mark or not closing:
            raise ValueError(f"the page has no part between {begin.strip()} and {end.strip()}")
        text = f"{before}{mark}\n{part}\n{closing}{after}"
    return text


# --- measuring ------------------------------------------------------------------------------------


def measure(folder: Path, quick: bool) -> Kept:
    """Run every benchmark whose figures are needed. Raises Unusable."""
    files = []
    for name, command in COMMANDS.items():
        file = folder / f"{name}.json"
        more = _QUICK[name] if quick else []
        say(f"python -m {' '.join([*command, *more])}\n")
        run = [sys.executable, "-m", *command, *more, "--json", str(file)]
        if subprocess.run(run, check=False).returncode:
            raise Unusable(f"benchmarks.{name} failed; what it said is above")
        files.append(file)
    return constants.measured(files)


# --- one workload ---------------------------------------------------------------------------------


def told(load: Workload, found: Estimate, most: float, needed: int | None, limits: Limits) -> str:
    rows = [
        [part.name, percent(part.load), "" if part.load <= limits.used else "too much"]
        for part in found.parts
    ]
    text = table(["part", "load", ""], rows)
    servers = f"{needed:,}" if needed else "no number is enough"
    text += (
        f"\nservers needed: {servers}; with {found.servers:,} of them on {found.machines:,}"
        f" machines: {found.megabytes_per_server:,.0f} MB each,"
        f" {found.megabits_out:,.0f} Mbit/s to clients\n"
    )
    text += f"fullest of what more servers do not relieve: {found.first.name}\n"
    return text + f"the most changes a second: {most:,.0f}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    usual, machines = Workload(0, 0, 0, 0), Limits()
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--changes", type=float, default=100.0, help="a second")
    parser.add_argument("--matches", default="10", help="sockets that get a change, or all")
    parser.add_argument(
        "--distinct", type=float, help="different frames among these; as many, or 1 for all"
    )
    parser.add_argument("--row-bytes", type=float, default=usual.row_bytes)
    parser.add_argument("--rows-per-transaction", type=float, default=usual.rows_per_transaction)
    parser.add_argument("--presence", type=float, default=usual.presence, help="changes a second")
    parser.add_argument("--presence-audience", type=float, default=usual.presence_audience)
    parser.add_argument("--session-minutes", type=float, default=usual.session_minutes)
    parser.add_argument("--heartbeat-seconds", type=float, default=usual.heartbeat_seconds)
    parser.add_argument("--poll-interval", type=float, default=usual.poll_interval)
    parser.add_argument("--servers", type=int, help="processes; as many as needed")
    parser.add_argument("--layer", choices=LAYERS, default=LAYERS[0])
    parser.add_argument("--used", type=float, default=machines.used, help="of a part, at most")
    parser.add_argument("--database-cores", type=int, default=machines.database_cores)
    parser.add_argument("--database-disk-mb", type=float, default=machines.database_disk_mb)
    parser.add_argument("--gigabit", type=float, default=machines.gigabit, help="of a machine")
    parser.add_argument("--machine-cores", type=int, default=machines.machine_cores)
    parser.add_argument("--machine-gb", type=float, default=machines.machine_gb)
    parser.add_argument("--sockets-per-process", type=int, default=machines.sockets_per_process)
    parser.add_argument("--from", nargs="+", type=Path, dest="files", metavar="FILE")
    parser.add_argument("--measure", action="store_true", help="and keep what is found")
    parser.add_argument("--quick", action="store_true", help="a smaller --measure, to try it")
    parser.add_argument("--write", action="store_true", help="the tables of docs/scaling.md anew")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if problem := wrong(arguments):
        parser.error(problem)
    try:
        run(arguments)
    except Unusable as error:
        sys.exit(str(error))


def wrong(arguments: argparse.Namespace) -> str:
    """What is wrong with the options; empty where nothing is."""
    if arguments.matches != ALL and not arguments.matches.isdecimal():
        return f"--matches must be a number or {ALL}, not {arguments.matches!r}"
    for name in (
        *("changes", "row_bytes", "presence", "presence_audience"),
        *("session_minutes", "heartbeat_seconds", "poll_interval", "rows_per_transaction"),
    ):
        least = 0 if name in ("changes", "row_bytes", "presence", "presence_audience") else 1e-3
        if getattr(arguments, name) < least:
            return f"--{name.replace('_', '-')} must be at least {least:g}"
    if arguments.sockets < 1 or (arguments.servers is not None and arguments.servers < 1):
        return "--sockets and --servers must be at least 1"
    if arguments.distinct is not None and arguments.distinct < 1:
        return "--distinct must be at least 1"
    if not 0 < arguments.used <= 1:
        return "--used must be more than 0 and at most 1"
    for name in (
        *("database_cores", "database_disk_mb", "gigabit"),
        *("machine_cores", "machine_gb", "sockets_per_process"),
    ):
        if getattr(arguments, name) <= 0:
            return f"--{name.replace('_', '-')} must be more than 0"
    return ""


def run(arguments: argparse.Namespace) -> None:
    """Raises Unusable."""
    if arguments.measure:
        with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
            kept = measure(Path(folder), arguments.quick)
        constants.save(kept)
    elif arguments.files:
        kept = constants.measured(arguments.files)
        if arguments.write:
            constants.save(kept)
    else:
        kept = constants.load()
    if arguments.measure or arguments.write:
        # As the file has them, so that the page is true of it to the last digit.
        DOC.write_text(with_tables(DOC.read_text(), constants.load()))
        say(f"{constants.KEPT} and {DOC} are written\n")
        return
    known = kept.layers[arguments.layer]
    limits = Limits(
        **{name: getattr(arguments, name) for name in asdict(Limits())},
    )
    names = set(asdict(Workload(0, 0, 0, 0))) - {"sockets", "changes", "matches", "distinct"}
    load = workload(
        arguments.sockets,
        arguments.changes,
        arguments.matches,
        **{name: getattr(arguments, name) for name in names},
    )
    if arguments.distinct is not None:
        load = replace(load, distinct=arguments.distinct)
    needed = servers_needed(load, known, limits)
    servers = arguments.servers or needed or least_servers(load, limits)
    found = estimate(load, known, limits, servers)
    most = most_changes(load, known, limits)
    say(told(load, found, most, needed, limits))
    if arguments.json:
        whole = {
            "workload": asdict(load),
            "limits": asdict(limits),
            "constants": asdict(known),
            "machine": dict(kept.machine),
            "servers_needed": needed,
            "most_changes": most,
            "estimate": asdict(found),
        }
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
