"""The constants of the load model: from the JSON files of benchmarks, and the file that keeps them.

Each constant is the median of a figure's rounds, and the file says of which figure. Runs nothing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.load_model import Constants

KEPT = Path(__file__).with_name("capacity.json")
LAYERS = ("pubsub", "core")
FAST_PATH = "Rowcast, uvicorn, fast path"
# By benchmark, the command whose JSON has its figures.
COMMANDS: dict[str, list[str]] = {
    "bus": ["benchmarks.bus", "--servers", "1", "10", "50"],
    "fanout": ["benchmarks.fanout", "--only", "fast path"],
    "connections": ["benchmarks.connections"],
    "rls": ["benchmarks.rls"],
    "writes": ["benchmarks.writes", "--only", "wal", "--vendors", "postgresql"],
}


class Unusable(Exception):
    """A file that has not the figures it should have; the text says which file, why, and what to
    do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Constants by layer, where each comes from, the machine that they were measured on, and the
    options of each benchmark's run."""

    layers: Mapping[str, Constants]
    sources: Mapping[str, str]
    machine: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]


class Figures:
    """The results in the JSON file of one benchmark."""

    def __init__(self, benchmark: str, path: Path, found: Mapping[str, Any]) -> None:
        self.benchmark = benchmark
        self.path = path
        self.results: Mapping[str, Any] = found["results"]
        self.machine: Mapping[str, Any] = found["machine"]
        self.options: Mapping[str, Any] = found["arguments"]

    def median(self, *keys: str) -> float:
        """The median of the rounds of a figure. Raises Unusable where the file has none."""
        found: Any = self.results
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        if not isinstance(found, list) or not found:
            raise Unusable(
                f"{self.path} has no figure {' / '.join(keys)}: a version of Rowcast before"
                f" benchmarks.capacity wrote it, or a run of other parts. {_again(self.benchmark)}"
            )
        return float(statistics.median(found))


def _again(benchmark: str) -> str:
    return f"Run: python -m {' '.join(COMMANDS[benchmark])} --json FILE"


def read(path: Path) -> Figures:
    """The figures of one file. Raises Unusable."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Unusable(f"{path} is not the JSON file of a benchmark (--json)") from None
    name = found.get("benchmark") if isinstance(found, dict) else None
    if name is None:
        raise Unusable(
            f"{path} does not say which benchmark wrote it: a version of Rowcast before"
            " benchmarks.capacity did, or another program. Run the benchmark again."
        )
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise Unusable(f"{path} is of benchmarks.{name}; of use are those of {known}")
    return Figures(name, path, found)


# --- from the figures of benchmarks ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a constant comes from: a benchmark, what is read from it in words, and the reading."""

    benchmark: str
    words: str
    value: Callable[[Figures, str], float]


def _of_most(figure: str) -> Source:
    """A figure of the run with the most servers, which is the mean of so many."""

    def value(figures: Figures, layer: str) -> float:
        return figures.median(layer, str(_servers(figures, layer)[-1]), figure)

    return Source("bus", f"{figure}, most servers", value)


def _of_own_process(figure: str) -> Source:
    """A figure of the run with the most servers of which each had a process."""

    def value(figures: Figures, layer: str) -> float:
        alone = [
            count
            for count in _servers(figures, layer)
            if figures.median(layer, str(count), "servers_per_process") == 1
        ]
        if not alone:
            raise Unusable(f"{figures.path}: no run has a process for each server. {_again('bus')}")
        return figures.median(layer, str(alone[-1]), figure)

    return Source("bus", f"{figure}, most servers with a process each", value)


def _of_all(figure: str) -> Source:
    """A figure that servers and layers do not change: the median over all of them."""

    def value(figures: Figures, layer: str) -> float:
        return statistics.median(
            figures.median(one, str(count), figure)
            for one in LAYERS
            for count in _servers(figures, one)
        )

    return Source("bus", f"{figure}, all runs", value)


def _of_fewest(figure: str, change: Callable[[float], float] = lambda value: value) -> Source:
    """A figure of the run with the fewest servers."""

    def value(figures: Figures, layer: str) -> float:
        return change(figures.median(layer, str(min(_servers(figures, layer))), figure))

    return Source("bus", f"{figure}, fewest servers", value)


def _each(figure: str) -> Source:
    """What each server adds to a figure: the slope over the numbers of servers."""
    return Source(
        "bus", f"{figure}, slope by servers", lambda found, layer: _line(found, layer, figure)[0]
    )


def _beside(figure: str) -> Source:
    """What a figure is beside what each server adds."""
    return Source(
        "bus",
        f"{figure}, without what servers add",
        lambda found, layer: _line(found, layer, figure)[1],
    )


def _servers(figures: Figures, layer: str) -> list[int]:
    by_servers = figures.results.get(layer)
    if not by_servers or len(by_servers) < 2:
        raise Unusable(
            f"{figures.path} has not two numbers of servers of the layer {layer}. {_again('bus')}"
        )
    return sorted(map(int, by_servers))


def _line(figures: Figures, layer: str, figure: str) -> tuple[float, float]:
    servers = _servers(figures, layer)
    values = [figures.median(layer, str(count), figure) for count in servers]
    slope, beside = statistics.linear_regression(servers, values)
    return slope, beside


def _figure(benchmark: str, *keys: str, change: Callable[[float], float] | None = None) -> Source:
    def value(figures: Figures, layer: str) -> float:
        found = figures.median(*keys)
        return found if change is None else change(found)

    return Source(benchmark, " / ".join(keys), value)


def _growth(figures: Figures, layer: str) -> float:
    few, many = (figures.median("matching_us", "by owner", n) for n in ("100", "10000"))
    return max(1.0, many / few)


SOURCES: dict[str, Source] = {
    "server_second_us": _of_own_process("server_us_second"),
    "server_batch_us": _of_own_process("server_us_batch"),
    "server_event_us": _of_most("server_us_event"),
    "server_match_us": _of_most("server_us_match"),
    "delivery_us": _figure("fanout", FAST_PATH, "cpu"),
    "further_frame_us": _figure("fanout", FAST_PATH, "burst", change=lambda rate: 1e6 / rate),
    "heartbeat_us": _figure("connections", "fanout", "heartbeat_cpu_us"),
    "join_us": _figure("connections", "fanout", "join_cpu_us"),
    "process_mb": _figure("connections", "fanout", "process_mb"),
    "socket_kb": _figure("connections", "fanout", "memory_kb"),
    "subscription_kb": _of_fewest("subscription_kb"),
    "growth": Source("rls", "matching_us / by owner, 10,000 : 100 subscriptions", _growth),
    "redis_second_us": _beside("redis_us_second"),
    "redis_server_second_us": _each("redis_us_second"),
    "redis_batch_us": _beside("redis_us_batch"),
    "redis_message_us": _each("redis_us_batch"),
    "redis_event_us": _each("redis_us_event"),
    "batch_bytes": _each("redis_out_bytes_batch"),
    "event_bytes": _each("redis_out_bytes_event"),
    "frame_bytes": _of_fewest("frame_bytes"),
    "row_bytes": _of_fewest("row_bytes"),
    "tailer_batch_us": _of_all("tailer_us_batch"),
    "tailer_change_us": _of_fewest("changes_per_second", lambda rate: 1e6 / rate),
    "writer_batch_us": _of_all("database_writer_us_batch"),
    "writer_event_us": _of_all("database_writer_us_event"),
    "log_second_us": _beside("database_log_us_second"),
    "log_batch_us": _of_all("database_log_us_batch"),
    "log_event_us": _of_all("database_log_us_event"),
    "head_second_us": _each("database_log_us_idle_second"),
    "wal_bytes": _figure("writes", "postgresql", "wal", "all together"),
}


def measured(paths: list[Path]) -> Kept:
    """Constants from the JSON files of all benchmarks of COMMANDS. Raises Unusable."""
    figures = {found.benchmark: found for found in map(read, paths)}
    missing = [benchmark for benchmark in COMMANDS if benchmark not in figures]
    if missing:
        raise Unusable(f"there is no file of benchmarks.{missing[0]}. {_again(missing[0])}")
    layers = {}
    for layer in LAYERS:
        values = {
            # Less than nothing is the noise of a cost that is too small to be seen.
            name: _short(max(0.0, source.value(figures[source.benchmark], layer)))
            for name, source in SOURCES.items()
        }
        layers[layer] = Constants(**values)
    sources = {name: f"{source.benchmark}: {source.words}" for name, source in SOURCES.items()}
    runs = {name: figures[name].options for name in COMMANDS}
    return Kept(layers, sources, figures["bus"].machine, runs)


# --- the file -------------------------------------------------------------------------------------


def load(path: Path = KEPT) -> Kept:
    """The constants that are kept. Raises Unusable."""
    try:
        found = json.loads(path.read_text())
        names = [field.name for field in fields(Constants)]
        constants: dict[str, dict[str, float]] = {layer: {} for layer in LAYERS}
        sources = {}
        for name in names:
            one = found["constants"][name]
            sources[name] = one["from"]
            for layer in LAYERS:
                constants[layer][name] = float(one[layer])
        layers = {layer: Constants(**constants[layer]) for layer in LAYERS}
        return Kept(layers, sources, found["machine"], found["runs"])
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(
            f"{path} is not a file of constants, or of another version ({error!r})."
            " Run: python -m benchmarks.capacity --measure"
        ) from None


def save(kept: Kept, path: Path = KEPT) -> None:
    constants = {
        name: {
            **{layer: getattr(known, name) for layer, known in kept.layers.items()},
            "from": kept.sources[name],
        }
        for name in SOURCES
    }
    whole = {"machine": kept.machine, "runs": kept.runs, "constants": constants}
    text = json.dumps(whole, indent=2)
    path.write_text(text + "\n")


def _short(value: float) -> float:
    """To four digits, which is more than any measurement is worth."""
    return float(f"{value:.4g}")
