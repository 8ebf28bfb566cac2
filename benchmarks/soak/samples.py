"""What every part of a running deployment takes: memory, CPU time, and the log's size on disk.

Reads /proc and the database, and judges nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
# Each table of this name with all its partitions. What is deleted or dropped meanwhile counts
# nothing.
_SIZES = """
WITH RECURSIVE part AS (
    SELECT oid, relname AS root FROM pg_class
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname LIKE 'realtime\\_%%'
        AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT i.inhrelid, part.root FROM pg_inherits AS i JOIN part ON i.inhparent = part.oid
)
SELECT root, count(*), coalesce(sum(pg_table_size(oid)), 0)::bigint,
    coalesce(sum(pg_indexes_size(oid)), 0)::bigint,
    coalesce(sum(pg_stat_get_dead_tuples(oid)), 0)::bigint
FROM part GROUP BY root ORDER BY root
"""


class Usage(NamedTuple):
    """The memory of a part, in MB, and the CPU seconds that it has used."""

    memory: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A table with its partitions, in the database. Sizes in bytes."""

    name: str
    partitions: int
    table: int
    indexes: int
    dead: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All parts at one time, in seconds from the beginning, and `own`, those of the benchmark.
    `backlog` changes have no number, the oldest of them for `lag_ms`."""

    at: float
    parts: dict[str, Usage]
    own: dict[str, Usage]
    stored: list[Stored]
    backlog: int
    lag_ms: int

    @property
    def log_mb(self) -> float:
        return sum(one.table + one.indexes for one in self.stored) / 2**20

    @property
    def dead(self) -> int:
        return sum(one.dead for one in self.stored)


def usage(pid: int) -> Usage:
    """Of one process, with all its threads."""
    return Usage(_own_megabytes(pid), _cpu(pid, children=False))


def usage_of_all(pid: int) -> Usage:
    """Of a process and its children, those that have ended among them: PostgreSQL's. What they
    share is counted once, and its shared buffers, which fill up to their set size, not at all."""
    pids = [pid, *_children(pid)]
    memory, cpu = 0.0, 0.0
    for one in pids:
        # One may end meanwhile.
        with contextlib.suppress(OSError):
            memory += _own_megabytes(one)
            cpu += _cpu(one, children=one == pid)
    return Usage(memory, cpu)


def stored(sql: Any) -> list[Stored]:
    """The tables of this product. `sql` runs a statement and returns the rows."""
    return [Stored(*row) for row in sql(_SIZES)]


def _own_megabytes(pid: int) -> float:
    """Memory that is backed by no file and not shared: what a process has allocated."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) / 1_024
    raise OSError(f"no memory of process {pid} in /proc")


def _cpu(pid: int, *, children: bool) -> float:
    # Behind the name, which may hold anything, the third field is the first.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    counted = fields[11:15] if children else fields[11:13]
    return sum(map(int, counted)) / _TICKS


def _children(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    yield int(entry.name)
