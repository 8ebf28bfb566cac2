"""How handlers stand: those of the code, and those that only have a row left."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connections
from django.db.models import Count
from django.db.models.functions import Now

from realtime.handling import registry
from realtime.handling.definition import HandlerDefinition
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.models import DeadLetter, Handler, WalNumber
from realtime.wal.clock import now_us
from realtime.wal.head import find_head

RUNNING = "running"
RETRYING = "retrying"
STOPPED = "stopped"
PAUSED = "paused"
WAITING = "waiting"
NEW = "new"
UNFIT = "unfit"
UNKNOWN = "unknown"
_NO_CODE = (
    "No code has this handler. If it was renamed, give it its old name=...; if it is not coming"
    " back, delete its row in the admin."
)


@dataclass(frozen=True, slots=True)
class HandlerState:
    """One handler. `lag` is how many changes of the log it has yet to read, and `lag_seconds` how
    long ago the first of them was committed. `state`:

    running; retrying: its last attempt failed; stopped: it stands until a command sets it going;
    paused; waiting: no process runs it at the moment; new: none has run it yet; unfit: it does not
    fit its model; unknown: no code of this process has a handler of the name.
    """

    name: str
    state: str
    seq: int | None = None
    lag: int | None = None
    lag_seconds: float = 0.0
    error: str | None = None
    owner: str = ""
    attempts: int = 0
    failed_seq: int | None = None
    handled: int = 0
    failures: int = 0
    dead_letters: int = 0


def overview(alias: str) -> list[HandlerState]:
    """Every handler, by name. In a database thread; raises what the database raises."""
    definitions = {definition.name: definition for definition in registry.definitions()}
    rows = {row.name: row for row in Handler.objects.using(alias).annotate(now=Now())}
    letters = DeadLetter.objects.using(alias).values("handler").annotate(count=Count("pk"))
    dead = {letter["handler"]: letter["count"] for letter in letters.order_by()}
    head = find_head(connections[alias])
    found = []
    for name in sorted({*definitions, *rows}):
        row = rows.get(name)
        definition = definitions.get(name)
        if row is None:
            assert definition is not None
            found.append(HandlerState(name, (_unfit(definition) and UNFIT) or NEW))
            continue
        lag = 0 if head is None else max(0, head.seq - row.seq)
        found.append(
            HandlerState(
                name,
                _state(row, definition),
                row.seq,
                lag,
                _seconds(alias, row.seq) if lag else 0.0,
                row.last_error or (_NO_CODE if definition is None else _unfit(definition)),
                row.owner if _leased(row) else "",
                row.attempts,
                row.failed_seq,
                row.handled,
                row.failures,
                dead.get(name, 0),
            )
        )
    return found


def _state(row: Handler, definition: HandlerDefinition | None) -> str:
    if definition is None:
        return UNKNOWN
    if row.stopped:
        return STOPPED
    if row.paused:
        return PAUSED
    if _unfit(definition) is not None:
        return UNFIT
    if row.attempts:
        return RETRYING
    return RUNNING if _leased(row) else WAITING


def _leased(row: Handler) -> bool:
    return bool(row.owner) and row.lease is not None and row.lease > vars(row)["now"]


def _unfit(definition: HandlerDefinition) -> str | None:
    try:
        Matcher(definition)
    except UnfitHandler as error:
        return error.message
    return None


def _seconds(alias: str, seq: int) -> float:
    numbers = WalNumber.objects.using(alias).filter(seq__gt=seq).order_by("seq")
    for commit_us in numbers.values_list("commit_us", flat=True)[:1]:
        return float(max(0.0, (now_us(connections[alias]) - commit_us) / 1e6))
    return 0.0
