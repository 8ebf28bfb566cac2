"""The load model: loads rise with what is asked, and a part is full where its formula says."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import pytest

from benchmarks.load_model import (
    Constants,
    Limits,
    Workload,
    batches,
    database_us,
    estimate,
    least_servers,
    megabits_out,
    most_changes,
    redis_us,
    server_fixed_us,
    server_mb,
    server_us,
    servers_needed,
    tailer_us,
)

KNOWN = Constants(
    server_second_us=4_000,
    server_batch_us=400,
    server_event_us=10,
    server_match_us=5,
    delivery_us=4,
    further_frame_us=0.5,
    heartbeat_us=40,
    join_us=800,
    process_mb=80,
    socket_kb=30,
    subscription_kb=4,
    growth=1.1,
    redis_second_us=1_000,
    redis_server_second_us=20,
    redis_batch_us=60,
    redis_message_us=15,
    redis_event_us=0.2,
    batch_bytes=430,
    event_bytes=290,
    frame_bytes=700,
    row_bytes=200,
    tailer_batch_us=1_200,
    tailer_change_us=130,
    writer_batch_us=250,
    writer_event_us=60,
    log_second_us=45_000,
    log_batch_us=1_200,
    log_event_us=12,
    head_second_us=300,
    wal_bytes=865,
)
LIMITS = Limits()
LOAD = Workload(sockets=20_000, changes=100, matches=10, distinct=10)

MORE = {
    "sockets": (1_000, 20_000, 100_000, 1_000_000),
    "changes": (0, 1, 10, 199, 201, 1_000, 9_000, 100_000),
    "matches": (0, 1, 10, 1_000, 50_000),
    "distinct": (1, 5, 10, 100),
    "row_bytes": (0, 200, 5_000),
    "presence": (0, 1, 50, 1_000),
    "presence_audience": (0, 20, 200),
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("servers", [1, 7, 200])
def test_no_load_falls_when_more_is_asked(name: str, servers: int) -> None:
    base = replace(LOAD, presence=5)
    asked = [replace(base, **{name: value}) for value in MORE[name]]
    found = [estimate(load, KNOWN, LIMITS, servers) for load in asked]
    for less, more in itertools.pairwise(found):
        # All but the last: more machines share the network then.
        for one, other in zip(less.parts[:-1], more.parts[:-1], strict=True):
            assert one.load <= other.load + 1e-12, one.name
        assert less.megabits_out <= more.megabits_out


@pytest.mark.parametrize("name", [field.name for field in fields(Constants)])
def test_every_constant_counts(name: str) -> None:
    bulk = replace(LOAD, presence=5, matches=40_000, row_bytes=300, rows_per_transaction=50)
    # So many transactions that the tailer's pauses bind.
    busy = replace(LOAD, changes=1_000)

    def figures(known: Constants) -> list[float]:
        return [
            figure
            for load in (bulk, busy)
            for figure in (
                server_us(load, known, 3),
                server_mb(load, known, 3),
                megabits_out(load, known, 3),
                *(part.load for part in estimate(load, known, LIMITS, 3).parts),
            )
        ]

    value = getattr(KNOWN, name)
    assert figures(replace(KNOWN, **{name: 1.5 * value})) != figures(KNOWN)


def test_the_tailer_makes_a_batch_of_each_transaction_until_its_pauses_bind() -> None:
    assert batches(replace(LOAD, changes=50), KNOWN) == 50
    assert batches(replace(LOAD, changes=50, rows_per_transaction=10), KNOWN) == 5
    busy = batches(replace(LOAD, changes=1_000), KNOWN)
    assert busy == pytest.approx(1e6 / (5_000 + 1_200 + 1_200))
    # A longer pause makes fewer batches, and many changes fill them.
    assert batches(replace(LOAD, changes=1_000, poll_interval=0.2), KNOWN) < busy / 5
    assert batches(replace(LOAD, changes=1e6), KNOWN) == 1_000


def test_a_change_without_a_match_costs_each_server_the_same_however_many_there_are() -> None:
    nobody = replace(LOAD, sockets=1, matches=0)
    fixed = server_fixed_us(nobody, KNOWN)
    assert fixed == 4_000 + 100 * 400 + 100 * 10
    for servers in (1, 10, 1_000):
        assert server_us(nobody, KNOWN, servers) == pytest.approx(fixed, rel=0.001)


def test_frames_of_one_batch_to_a_socket_leave_in_one_write() -> None:
    everybody = Workload(1_000, 100, 1_000, 1, heartbeat_seconds=1e9, session_minutes=1e9)
    apart = server_us(everybody, KNOWN, 1)
    together = server_us(replace(everybody, rows_per_transaction=100), KNOWN, 1)
    # 100,000 frames in both; 1,000 writes a second where a transaction has all the rows.
    assert apart - together == pytest.approx(99_000 * (4 - 0.5) + 99 * 400)


def test_servers_share_what_matches_and_not_what_does_not() -> None:
    load = Workload(100_000, 100, 50_000, 1)
    needed = servers_needed(load, KNOWN, LIMITS)
    assert needed is not None
    assert server_us(load, KNOWN, needed) <= LIMITS.used * 1e6
    assert server_us(load, KNOWN, needed - 1) > LIMITS.used * 1e6
    assert servers_needed(replace(load, changes=1e6), KNOWN, LIMITS) is None


def test_sockets_alone_decide_where_little_happens() -> None:
    quiet = Workload(95_000, 0.1, 1, 1)
    assert servers_needed(quiet, KNOWN, LIMITS) == least_servers(quiet, LIMITS) == 10


def test_little_memory_asks_for_more_servers() -> None:
    small = replace(LIMITS, machine_gb=2.0)
    needed = servers_needed(replace(LOAD, sockets=100_000), KNOWN, small)
    assert needed is not None and needed > 10
    assert server_mb(replace(LOAD, sockets=100_000), KNOWN, needed) <= LIMITS.used * 256


def test_redis_is_full_where_batches_times_servers_say() -> None:
    # 1 s = 1,000 + 20 n + 50 (60 + 15 n) + 50 n 0.2: solved for n.
    load = replace(LOAD, changes=50)
    servers = (1e6 - 1_000 - 50 * 60) / (20 + 50 * 15 + 50 * 0.2)
    assert redis_us(load, KNOWN, int(servers)) < 1e6 < redis_us(load, KNOWN, int(servers) + 1)


def test_larger_rows_cost_redis_more() -> None:
    assert redis_us(replace(LOAD, row_bytes=2_000), KNOWN, 50) > redis_us(LOAD, KNOWN, 50)


@pytest.mark.parametrize("sockets", [1_000, 100_000])
@pytest.mark.parametrize("matches", [1, 100])
def test_the_highest_rate_is_one_at_which_a_part_is_full(sockets: int, matches: int) -> None:
    load = Workload(sockets, 1, matches, matches)
    most = most_changes(load, KNOWN, LIMITS)

    def highest(changes: float) -> float:
        asked = replace(load, changes=changes)
        needed = servers_needed(asked, KNOWN, LIMITS) or least_servers(asked, LIMITS)
        return estimate(asked, KNOWN, LIMITS, needed).first.load

    assert highest(most) <= LIMITS.used < highest(1.05 * most)


def test_the_database_is_full_first_where_it_has_one_slow_core() -> None:
    slow = replace(KNOWN, writer_event_us=5_000)
    found = estimate(LOAD, slow, replace(LIMITS, database_cores=1), 2)
    assert found.first.name == "database CPU" and not found.enough
    assert found.first.load == pytest.approx(database_us(LOAD, slow, 2) / 1e6)


def test_the_tailer_is_full_first_where_a_change_takes_it_long() -> None:
    slow = replace(KNOWN, tailer_change_us=7_000)
    found = estimate(LOAD, slow, LIMITS, 2)
    assert found.first.name == "tailer" and tailer_us(LOAD, slow) > LIMITS.used * 1e6


def test_traffic_to_clients_asks_for_machines() -> None:
    load = Workload(100_000, 10, 100_000, 1, row_bytes=20_000)
    narrow = replace(LIMITS, gigabit=1.0)
    needed = servers_needed(load, KNOWN, narrow)
    assert needed is not None
    found = estimate(load, KNOWN, narrow, needed)
    assert found.machines > needed / narrow.machine_cores
    assert found.megabits_out / found.machines <= narrow.used * 1_000
