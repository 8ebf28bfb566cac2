"""Constants of the load model are read from what benchmarks write, or refused in clear words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import constants
from benchmarks.constants import COMMANDS, FAST_PATH, LAYERS, SOURCES, Unusable

MACHINE = {"date": "2026-01-01", "cores": 2, "system": "Linux", "python": "3.11"}
COUNTERS = ("server", "redis", "tailer", "database_writer", "database_log")


def bus(servers: int) -> dict[str, list[float]]:
    """What a run of the bus finds; each server adds 10 to what is counted together."""
    figures = {f"{name}_us_{part}": [1.0] for name in COUNTERS for part in ("batch", "event")}
    seconds = {f"{name}_us_second": [5.0] for name in COUNTERS}
    return {
        **figures,
        **seconds,
        "server_us_match": [3.0],
        "servers_per_process": [1.0 if servers < 50 else 5.0],
        "redis_us_batch": [50.0 + 10 * servers, 51.0 + 10 * servers, 52.0 + 10 * servers],
        "redis_us_event": [-0.2 * servers],
        "database_log_us_idle_second": [100.0 + 7 * servers],
        "redis_out_bytes_batch": [400.0 * servers],
        "redis_out_bytes_event": [300.0 * servers],
        "frame_bytes": [700.0],
        "row_bytes": [200.0],
        "subscription_kb": [4.0],
        "changes_per_second": [8_000.0],
    }


def results() -> dict[str, Any]:
    """Of every benchmark, what its JSON has of use."""
    fast = {"cpu": [4.0, 6.0, 5.0], "burst": [2_000_000.0]}
    connections = {"heartbeat_cpu_us": [40.0], "join_cpu_us": [800.0], "process_mb": [80.0]}
    return {
        "bus": {layer: {str(n): bus(n) for n in (1, 10, 50)} for layer in LAYERS},
        "fanout": {FAST_PATH: fast},
        "connections": {"fanout": {**connections, "memory_kb": [31.0]}},
        "rls": {"matching_us": {"by owner": {"100": [20.0], "10000": [25.0]}}},
        "writes": {"postgresql": {"wal": {"all together": [865.0]}}},
    }


def written(folder: Path, found: dict[str, Any]) -> list[Path]:
    paths = []
    for name, of in found.items():
        paths.append(folder / f"{name}.json")
        whole = {"benchmark": name, "machine": MACHINE, "arguments": {"rounds": 3}, "results": of}
        paths[-1].write_text(json.dumps(whole))
    return paths


def test_constants_are_medians_and_what_each_server_adds(tmp_path: Path) -> None:
    kept = constants.measured(written(tmp_path, results()))
    known = kept.layers["pubsub"]
    assert (known.delivery_us, known.further_frame_us) == (5.0, 0.5)
    assert (known.redis_message_us, known.redis_batch_us) == pytest.approx((10.0, 51.0))
    assert (known.batch_bytes, known.event_bytes) == pytest.approx((400.0, 300.0))
    assert known.head_second_us == pytest.approx(7.0)
    assert (known.growth, known.tailer_change_us) == (1.25, 125.0)
    assert kept.machine == MACHINE
    assert kept.runs == {name: {"rounds": 3} for name in COMMANDS}


def test_what_a_process_pays_is_taken_where_each_server_has_one(tmp_path: Path) -> None:
    found = results()
    for servers, value in (("1", 1.0), ("10", 2.0), ("50", 3.0)):
        found["bus"]["pubsub"][servers]["server_us_batch"] = [value]
    known = constants.measured(written(tmp_path, found)).layers["pubsub"]
    assert known.server_batch_us == 2.0


def test_a_cost_below_nought_is_noise(tmp_path: Path) -> None:
    assert constants.measured(written(tmp_path, results())).layers["core"].redis_event_us == 0


def test_what_is_kept_can_be_read_again(tmp_path: Path) -> None:
    kept = constants.measured(written(tmp_path, results()))
    constants.save(kept, tmp_path / "kept.json")
    again = constants.load(tmp_path / "kept.json")
    assert again == kept
    assert again.sources.keys() == SOURCES.keys()


def test_the_file_of_an_older_benchmark_is_refused_by_name(tmp_path: Path) -> None:
    older = tmp_path / "older.json"
    older.write_text(json.dumps({"machine": MACHINE, "results": {}}))
    with pytest.raises(Unusable, match=r"older\.json does not say which benchmark"):
        constants.measured([older])


@pytest.mark.parametrize(
    ("benchmark", "path"),
    [
        ("connections", ("fanout", "join_cpu_us")),
        ("fanout", (FAST_PATH, "cpu")),
        ("bus", ("core", "10", "redis_us_batch")),
        ("rls", ("matching_us", "by owner", "10000")),
        ("writes", ("postgresql",)),
    ],
)
def test_a_figure_that_is_missing_is_named_with_the_command(
    tmp_path: Path, benchmark: str, path: tuple[str, ...]
) -> None:
    found = results()
    inside = found[benchmark]
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    with pytest.raises(Unusable) as refused:
        constants.measured(written(tmp_path, found))
    said = str(refused.value)
    assert f"{benchmark}.json has no figure" in said and path[-1] in said
    assert f"python -m {' '.join(COMMANDS[benchmark])} --json" in said


def test_one_number_of_servers_tells_no_slope(tmp_path: Path) -> None:
    found = results()
    found["bus"]["core"] = {"1": bus(1)}
    with pytest.raises(Unusable, match="not two numbers of servers of the layer core"):
        constants.measured(written(tmp_path, found))


def test_a_benchmark_without_a_file_is_named(tmp_path: Path) -> None:
    found = results()
    del found["rls"]
    with pytest.raises(Unusable, match=r"no file of benchmarks\.rls\. Run: python -m"):
        constants.measured(written(tmp_path, found))


def test_another_benchmark_s_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"is of benchmarks\.topics; of use are"):
        constants.measured(written(tmp_path, {"topics": {}}))


@pytest.mark.parametrize("text", ["no JSON", "[1]"])
def test_what_no_benchmark_wrote_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(text)
    with pytest.raises(Unusable, match=r"some\.json"):
        constants.measured([file])
    with pytest.raises(Unusable, match=r"some\.json .* --measure"):
        constants.load(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (constants.load, lambda path: constants.measured([path])):
        with pytest.raises(Unusable, match=r"nowhere\.json cannot be read: No such file"):
            read(tmp_path / "nowhere.json")


def test_kept_constants_of_another_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    constants.save(constants.measured(written(tmp_path, results())), file)
    found = json.loads(file.read_text())
    del found["constants"]["join_us"]
    file.write_text(json.dumps(found))
    with pytest.raises(Unusable, match=r"join_us.*--measure"):
        constants.load(file)
