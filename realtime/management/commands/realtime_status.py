"""`manage.py realtime_status`: head, lag, leader, processes and channel layer at a glance."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db.utils import DatabaseError

from realtime import conf
from realtime.ops import status
from realtime.ops.handler_status import HandlerStatus
from realtime.ops.layer_probe import Layer, probe
from realtime.ops.status import COUNT_MOST, ProcessStatus, Status, Stored
from realtime.ops.webhook_status import WebhookStatus
from realtime.util.database_threads import close_connections, in_database_thread

_CLEAR = "\x1b[H\x1b[2J"
# Characters of a handler's error on its line.
_ERROR_LENGTH = 80


class Command(BaseCommand):
    help = "Shows how far the log is numbered, who runs, and whether the channel layer works."
    requires_system_checks = []
    # Between two looks of --watch.
    every_seconds = 1.0

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--watch", action="store_true", help="show it again every second until Ctrl-C"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        self._json = bool(options["json"])
        try:
            asyncio.run(self._watch() if options["watch"] else self._once())
        except KeyboardInterrupt:
            # The way to end --watch.
            self.stdout.write("")

    async def _once(self) -> None:
        try:
            found, layer = await self.look()
            self.stdout.write(self._as_json(found, layer) if self._json else _page(found, layer))
        finally:
            await close_connections()
        if found.leaderless:
            raise CommandError(_leaderless(found))

    async def _watch(self) -> None:
        tty = self.stdout.isatty() and not self._json
        try:
            while True:
                try:
                    found, layer = await self.look()
                except CommandError as error:
                    text = str(error)
                else:
                    if self._json:
                        text = self._as_json(found, layer)
                    else:
                        text = _page(found, layer) if tty else _line(found, layer)
                self.stdout.write(f"{_CLEAR}{text}" if tty else text)
                self.stdout.flush()
                await asyncio.sleep(self.every_seconds)
        finally:
            await close_connections()

    async def look(self) -> tuple[Status, Layer]:
        """The status and the channel layer's state now. Raises CommandError."""
        alias = conf.current().DATABASE
        try:
            found = await in_database_thread(status.read, alias)
        except DatabaseError as error:
            text = " ".join(str(error).split())
            raise CommandError(f"The database cannot be read: {text}") from None
        return found, await probe()

    def _as_json(self, found: Status, layer: Layer) -> str:
        shown = {**msgspec.to_builtins(found), "layer": asdict(layer)}
        return msgspec.json.encode(shown).decode()


def _leaderless(found: Status) -> str:
    backlog = found.numbering.backlog
    entries = "entry waits" if backlog == 1 else "entries wait"
    return (
        f"Nobody numbers the log and {backlog:,} {entries}: "
        "start a server with an embedded tailer, or `manage.py tail_wal`."
    )


def _line(found: Status, layer: Layer) -> str:
    numbering = found.numbering
    servers = [member for member in found.processes if member.kind == "server"]
    parts = {
        "head": numbering.head,
        "backlog": numbering.backlog,
        "lag_ms": numbering.lag_ms,
        "leader": numbering.leader or "nobody",
        "servers": len(servers),
        "connections": sum(member.connections for member in servers),
        "subscriptions": sum(member.subscriptions for member in servers),
        "behind": max((member.behind for member in servers), default=0),
        "heals": found.heals,
        "layer": layer.state,
    }
    if found.handlers:
        parts["handlers"] = len(found.handlers)
        parts["handlers_standing"] = sum(map(_stands, found.handlers))
    return " ".join(f"{name}={value}" for name, value in parts.items())


def _page(found: Status, layer: Layer) -> str:
    numbering, stored = found.numbering, found.stored
    size = "" if stored.bytes is None else f", {stored.bytes / 1_048_576:,.1f} MB"
    oldest = "" if stored.oldest_seq is None else f", oldest {stored.oldest_seq:,}"
    parts = "" if stored.partitions is None else f", {stored.partitions} partitions"
    trip = "" if layer.ms is None else f", {layer.ms} ms there and back"
    trouble = f": {layer.error}" if layer.error else ""
    alone = " (reaches one process only; workers cannot be reached)"
    lines = [
        f"head      {numbering.head:,}  (epoch {numbering.epoch})",
        f"backlog   {numbering.backlog:,}, lag {numbering.lag_ms:,} ms",
        f"log       {stored.entries:,} entries{oldest}{size}{parts}",
        f"leader    {_leader(found)}",
        f"standby   {', '.join(map(_name, _standbys(found))) or 'none'}",
        f"layer     {layer.state}{alone if layer.state == 'in-memory' else ''}{trip}{trouble}",
        f"heals     {found.heals:,}",
    ]
    if stored.strays:
        lines.insert(3, f"strays    {_strays(stored)}")
    if found.processes:
        lines += ["", *_table(found.processes)]
    if found.handlers:
        lines += ["", *_table_of_handlers(found.handlers)]
    if found.webhooks:
        lines += ["", *_table_of_webhooks(found.webhooks)]
    return "\n".join(lines)


def _strays(stored: Stored) -> str:
    many = f"{stored.strays:,}{' or more' if stored.strays >= COUNT_MOST else ''}"
    return (
        f"{many} entries in the default partition: no other was made in time, because nobody leads "
        "or the log's role does not own realtime_wal; pruning deletes them one by one"
    )


def _leads(member: ProcessStatus, found: Status) -> bool:
    # A tailer's id begins so, whichever kind of process it runs in.
    leader = found.numbering.leader or ""
    return member.tailing and leader.startswith(f"{member.host[:32]}:{member.pid}:")


def _leader(found: Status) -> str:
    numbering = found.numbering
    if numbering.leader is None:
        return "nobody"
    names = [_name(member) for member in found.processes if _leads(member, found)]
    return f"{names[0] if names else numbering.leader}  (term {numbering.term})"


def _standbys(found: Status) -> list[ProcessStatus]:
    return [member for member in found.processes if member.tailing and not _leads(member, found)]


def _name(member: ProcessStatus) -> str:
    return f"{member.kind} {member.host}:{member.pid}"


def _stands(handler: HandlerStatus) -> bool:
    return handler.stuck or handler.state == "stopped"


def _table_of_handlers(handlers: list[HandlerStatus]) -> list[str]:
    rows = [("handler", "state", "seq", "lag", "oldest", "failures", "dead letters")]
    for one in handlers:
        rows.append(
            (
                one.name,
                f"{one.state}, stuck" if one.stuck else one.state,
                f"{one.seq:,}",
                f"{one.lag:,}",
                f"{one.lag_ms / 1000:,.1f} s",
                f"{one.failures:,}",
                f"{one.dead_letters:,}",
            )
        )
    errors = ["", *(_cut(one.error) for one in handlers)]
    return [f"{line}  {error}".rstrip() for line, error in zip(_aligned(rows), errors, strict=True)]


def _table_of_webhooks(webhooks: list[WebhookStatus]) -> list[str]:
    rows = [("webhook", "state", "failures", "pending", "oldest")]
    for one in webhooks:
        waits = f"{one.lag_ms / 1000:,.1f} s"
        rows.append((one.name, one.state, f"{one.failures:,}", f"{one.pending:,}", waits))
    return _aligned(rows)


def _cut(error: str) -> str:
    """The last line that says something, which names the error of a traceback."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return text if len(text) <= _ERROR_LENGTH else f"{text[:_ERROR_LENGTH]}…"


def _table(members: list[ProcessStatus]) -> list[str]:
    header = (
        "process", "seen", "connections", "channels", "subscriptions", "position", "behind", "heals"
    )  # fmt: skip
    rows = [header]
    for member in members:
        rows.append(
            (
                _name(member),
                f"{member.seen_ms / 1000:.0f} s ago",
                f"{member.connections:,}",
                f"{member.channels:,}",
                f"{member.subscriptions:,}",
                f"{member.position:,}",
                f"{member.behind:,}",
                f"{member.counters.get('heals', 0):,}",
            )
        )
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of the same width; the first one begins at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
