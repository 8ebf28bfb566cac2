"""What each part of a deployment has to do under a workload, and what that is of what it can. Pure.

Every cost is a constant that a benchmark has measured (`Constants`); docs/scaling.md has the
formulas. All loads rise with sockets, changes and matches. Costs of one process are in
microseconds of CPU time, so a load of 1 is a whole core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# realtime.event_log: the rows of the largest batch, and the part of POLL_INTERVAL after which a
# tailer looks again while there are changes.
_BATCH = 1_000
_BUSY_FRACTION = 0.25
# Headers of Ethernet, IP and TCP for each write, and of WebSocket for each frame.
_PACKET_BYTES = 66
_FRAME_BYTES = 4
_WAL_ROW_BYTES = 200
_MOST_CHANGES = 1e9
_MOST_SERVERS = 10_000_000


@dataclass(frozen=True, slots=True)
class Constants:
    """What was measured. `us` is microseconds of CPU time, of a second, a batch, and so on."""

    # A server process.
    server_second_us: float
    server_batch_us: float
    server_event_us: float
    server_match_us: float
    delivery_us: float
    further_frame_us: float
    heartbeat_us: float
    join_us: float
    process_mb: float
    socket_kb: float
    subscription_kb: float
    # Times a match costs more with 10,000 subscriptions than with 100.
    growth: float
    # Redis: a batch, and what each server that gets it adds to that.
    redis_second_us: float
    redis_server_second_us: float
    redis_batch_us: float
    redis_message_us: float
    redis_event_us: float
    # Through Redis to one server, and what a row of `row_bytes` was part of.
    batch_bytes: float
    event_bytes: float
    frame_bytes: float
    row_bytes: float
    # The tailer; a change in large batches without a pause, with all that it waits for.
    tailer_batch_us: float
    tailer_change_us: float
    # PostgreSQL: for writers, for the tailer, and for the look of each server at the head.
    writer_batch_us: float
    writer_event_us: float
    log_second_us: float
    log_batch_us: float
    log_event_us: float
    head_second_us: float
    wal_bytes: float


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of a deployment. Rates are per second.

    `matches`: the sockets that get a change. `distinct`: how many different frames these get;
    sockets with equal joins and rights share one. `presence`: presence changes, each told to
    `presence_audience` sockets.
    """

    sockets: int
    changes: float
    matches: float
    distinct: float
    row_bytes: float = 200.0
    rows_per_transaction: float = 1.0
    presence: float = 0.0
    presence_audience: float = 20.0
    session_minutes: float = 30.0
    heartbeat_seconds: float = 25.0
    poll_interval: float = 0.02


@dataclass(frozen=True, slots=True)
class Limits:
    """What machines have, and how much of it may be used."""

    used: float = 2 / 3
    database_cores: int = 8
    database_disk_mb: float = 200.0
    gigabit: float = 10.0
    machine_cores: int = 8
    machine_gb: float = 32.0
    sockets_per_process: int = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """The load of a part, of 1. `shared`: more server processes do not relieve it."""

    name: str
    load: float
    shared: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """The loads with so many server processes on so many machines. `enough`: no load is above what
    may be used; `first` is the part that is nearest to it of those that more servers do not
    relieve. `most_changes` is the rate at which that one would be there."""

    servers: int
    machines: int
    parts: tuple[Part, ...]
    first: Part
    enough: bool
    megabytes_per_server: float
    megabits_out: float


def batches(load: Workload, known: Constants) -> float:
    """Batches a second: each transaction may be one, but the tailer pauses between two, and none
    has more than 1,000 rows."""
    pause = load.poll_interval * _BUSY_FRACTION * 1e6
    most = 1e6 / (pause + known.tailer_batch_us + known.log_batch_us)
    return max(min(load.changes / load.rows_per_transaction, most), load.changes / _BATCH)


def _row_more(load: Workload, known: Constants) -> float:
    return load.row_bytes - known.row_bytes


def bus_bytes(load: Workload, known: Constants) -> float:
    """Bytes a second that one server gets from Redis."""
    event = max(0.0, known.event_bytes + _row_more(load, known))
    return batches(load, known) * known.batch_bytes + (load.changes + load.presence) * event


def _frames(load: Workload) -> float:
    """Frames a second to all sockets."""
    matches = min(load.matches, load.sockets)
    audience = min(load.presence_audience, load.sockets)
    return load.changes * matches + load.presence * audience


def server_fixed_us(load: Workload, known: Constants) -> float:
    """What every server process pays whatever matches: more processes do not make it less."""
    messages = batches(load, known) + load.presence
    events = load.changes + load.presence
    return (
        known.server_second_us + messages * known.server_batch_us + events * known.server_event_us
    )


def _writes(load: Workload, known: Constants, servers: int) -> float:
    """Writes a second of one process: the frames of one batch to a socket leave in one."""
    frames = _frames(load) / servers
    sockets = load.sockets / servers
    return min(frames, sockets * (batches(load, known) + load.presence))


def server_us(load: Workload, known: Constants, servers: int) -> float:
    """Of one process of so many, in a second."""
    sockets = load.sockets / servers
    frames = _frames(load) / servers
    writes = _writes(load, known, servers)
    # A process makes each of the different frames that its own sockets get once.
    made = load.changes * min(load.distinct, min(load.matches, load.sockets) / servers)
    made += load.presence * min(1.0, min(load.presence_audience, load.sockets) / servers)
    heartbeats = sockets / load.heartbeat_seconds + load.presence / servers
    joins = sockets / (60 * load.session_minutes)
    return (
        server_fixed_us(load, known)
        + made * known.server_match_us * known.growth
        + writes * known.delivery_us
        + (frames - writes) * known.further_frame_us
        + heartbeats * known.heartbeat_us
        + joins * known.join_us
    )


def server_mb(load: Workload, known: Constants, servers: int) -> float:
    """Memory of one process, each socket with a subscription of its own."""
    each = known.socket_kb + known.subscription_kb
    return known.process_mb + load.sockets / servers * each / 1024


def megabits_out(load: Workload, known: Constants, servers: int) -> float:
    """What all servers send to clients in a second."""
    frame = max(0.0, known.frame_bytes + _row_more(load, known)) + _FRAME_BYTES
    writes = _writes(load, known, servers) * servers
    return (_frames(load) * frame + writes * _PACKET_BYTES) * 8 / 1e6


def redis_us(load: Workload, known: Constants, servers: int) -> float:
    """Of Redis in a second."""
    messages = batches(load, known) + load.presence
    events = load.changes + load.presence
    larger = max(0.0, known.event_bytes + _row_more(load, known)) / known.event_bytes
    return (
        known.redis_second_us
        + servers * known.redis_server_second_us
        + messages * (known.redis_batch_us + servers * known.redis_message_us)
        + events * servers * known.redis_event_us * larger
    )


def tailer_us(load: Workload, known: Constants) -> float:
    """Of the tailer in a second, the time that it waits for PostgreSQL included, where its batches
    are as large as its load makes them. With pauses between small ones it is busier than that, and
    less so the more it has to do."""
    return load.changes * known.tailer_change_us


def database_us(load: Workload, known: Constants, servers: int) -> float:
    """Of PostgreSQL in a second: writes of published tables, the log, and looks at its head."""
    transactions = load.changes / load.rows_per_transaction + load.presence
    return (
        known.log_second_us
        + servers * known.head_second_us
        + transactions * known.writer_batch_us
        + (load.changes + load.presence) * known.writer_event_us
        + batches(load, known) * known.log_batch_us
        + load.changes * known.log_event_us
    )


def database_mb(load: Workload, known: Constants) -> float:
    """Megabytes that PostgreSQL writes to its own log in a second, for the log of changes."""
    each = max(0.0, known.wal_bytes + load.row_bytes - _WAL_ROW_BYTES)
    return load.changes * each / 1e6


def least_servers(load: Workload, limits: Limits) -> int:
    """The fewest processes that may hold the sockets, whatever these get."""
    return max(1, math.ceil(load.sockets / limits.sockets_per_process))


def servers_needed(load: Workload, known: Constants, limits: Limits) -> int | None:
    """The fewest processes of which none is above what may be used; None where no number is enough,
    because what every process pays is too much already."""
    if server_fixed_us(load, known) >= limits.used * 1e6:
        return None
    if not _fits(load, known, limits, _MOST_SERVERS):
        return None
    low = high = least_servers(load, limits)
    while not _fits(load, known, limits, high):
        low, high = high, min(2 * high, _MOST_SERVERS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(load, known, limits, middle) else (middle, high)
    return low if _fits(load, known, limits, low) else high


def _fits(load: Workload, known: Constants, limits: Limits, servers: int) -> bool:
    return server_us(load, known, servers) <= limits.used * 1e6 and server_mb(
        load, known, servers
    ) <= limits.used * _memory_mb(limits)


def _memory_mb(limits: Limits) -> float:
    """What a process may have where a machine has one for each core."""
    return limits.machine_gb * 1024 / limits.machine_cores


def estimate(load: Workload, known: Constants, limits: Limits, servers: int) -> Estimate:
    """The loads of all parts with so many server processes."""
    network = limits.gigabit * 1e3
    out = megabits_out(load, known, servers)
    machines = max(
        math.ceil(servers / limits.machine_cores), math.ceil(out / (network * limits.used))
    )
    megabytes = server_mb(load, known, servers)
    parts = (
        Part(
            "database CPU",
            database_us(load, known, servers) / 1e6 / limits.database_cores,
            shared=True,
        ),
        Part("database disk", database_mb(load, known) / limits.database_disk_mb, shared=True),
        Part("tailer", tailer_us(load, known) / 1e6, shared=True),
        Part("Redis CPU", redis_us(load, known, servers) / 1e6, shared=True),
        Part(
            "Redis network",
            servers * bus_bytes(load, known) * 8 / 1e6 / network,
            shared=True,
        ),
        Part("server without a match", server_fixed_us(load, known) / 1e6, shared=True),
        Part("server CPU", server_us(load, known, servers) / 1e6, shared=False),
        Part("server memory", megabytes / _memory_mb(limits), shared=False),
        Part("server network", out / machines / network, shared=False),
    )
    first = max((part for part in parts if part.shared), key=lambda part: part.load)
    enough = all(part.load <= limits.used + 1e-9 for part in parts)
    return Estimate(servers, machines, parts, first, enough, megabytes, out)


def most_changes(load: Workload, known: Constants, limits: Limits) -> float:
    """The highest rate of changes at which no part is above what may be used, with as many servers
    as that takes; 0 where the sockets alone are too much."""

    def possible(changes: float) -> bool:
        asked = replace(load, changes=changes)
        servers = servers_needed(asked, known, limits)
        return servers is not None and estimate(asked, known, limits, servers).enough

    if not possible(0):
        return 0.0
    low, high = 0.0, 1.0
    while possible(high) and high < _MOST_CHANGES:
        low, high = high, 2 * high
    while high - low > max(0.01, high / 1_000):
        middle = (low + high) / 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return low
