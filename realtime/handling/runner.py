"""The runner of a process: takes handlers by their leases and gives each a thread.

Its own thread looks at the head of the log, at the definitions, which may change, and at the rows
of the handlers, renews leases, and gives attempts up whose time is over. A handler that fails, is
slow or hangs has a thread to itself, so it keeps no other one from its changes. Decides nothing of
changes: see `in_order` and `by_key`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from django.db import connections

from auth_rls.sql import stored_types
from realtime.event_log.leadership import is_gone, new_id
from realtime.event_log.table import oldest_seq
from realtime.handling import cursors, registry
from realtime.handling.attempt import GivenUp
from realtime.handling.by_key import ByKey
from realtime.handling.cancellable_lock import CancellableLock
from realtime.handling.cursors import Fenced, Lease
from realtime.handling.definition import HandlerDefinition
from realtime.handling.handler_thread import HandlerThread
from realtime.handling.in_order import InOrder
from realtime.handling.log_feed import ChangesLost, LogFeed
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.models import Handler
from realtime.util.backoff import Backoff
from realtime.util.database_threads import passes, unpooled
from realtime.util.outage_log import OutageLog
from realtime.wal.head import Head, find_head, read_head

logger = logging.getLogger("realtime.handlers")

# After changes the log is looked at more often for a while: they come in groups.
_BUSY_LOOKS = 200
_BUSY_FRACTION = 0.25
_BACKOFF_FIRST = 0.1
# Between looks at how long attempts take.
_WATCH_SECONDS = 0.1
_BACKOFF_MOST = 5.0
# Functions that hang keep their threads. With so many, their handler is not run here any more.
MOST_HANGING = 20


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between looks at definitions and rows, between renewals of leases, and until a
    handler whose thread failed is begun again."""

    refresh: float = 1.0
    renew: float = 4.0
    again: float = 1.0


USUAL = Timing()


@dataclass(slots=True)
class _Running:
    """A handler that this process runs, and its thread."""

    worker: HandlerThread
    thread: threading.Thread
    definition: HandlerDefinition
    ended: bool = False

    @property
    def lease(self) -> Lease:
        return self.worker.lease


class Runner:
    """Runs handlers in this process: those that `definitions` returns, or only those called
    `names`. `interval` is the time between looks at the log, in seconds."""

    def __init__(
        self,
        alias: str,
        interval: float,
        definitions: Callable[[], Iterable[HandlerDefinition]] = registry.definitions,
        *,
        names: Collection[str] | None = None,
        timing: Timing = USUAL,
    ) -> None:
        self._alias = alias
        self._interval = interval
        self._definitions = definitions
        self._names = None if names is None else frozenset(names)
        self._timing = timing
        self.id = new_id()
        self._feed = LogFeed(alias)
        self._suspects_lock = CancellableLock()
        self._running: dict[str, _Running] = {}
        self._matchers: dict[str, tuple[HandlerDefinition, Matcher | None]] = {}
        # When a handler whose thread failed may run again.
        self._not_before: dict[str, float] = {}
        self._hanging: dict[str, list[threading.Thread]] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._refreshed = self._renewed = float("-inf")
        self._outage = OutageLog(
            logger,
            failing="handlers cannot be looked after: %s",
            failing_action="handlers_failing",
            works="handlers can be looked after again",
            works_action="handlers_work",
        )

    def start(self) -> None:
        """Run in threads of its own."""
        self._thread = threading.Thread(target=self.run, name="rowcast-handlers", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """The log has gone on: look at once. From any thread."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Begin no more attempts, and wait up to so many seconds for those that run; then let
        nothing of them be committed. Others may take the handlers at once."""
        self._stop.set()
        self._wake.set()
        deadline = time.monotonic() + seconds
        running = list(self._running.values())
        for one in running:
            one.worker.stop()
        for one in running:
            # One that is not started yet finds that it is to stop.
            if one.thread.is_alive():
                one.thread.join(max(0.0, deadline - time.monotonic()))
        for one in running:
            if one.thread.is_alive():
                one.worker.give_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            # It releases what is left.
            self._thread.join(max(1.0, deadline - time.monotonic()))

    # --- the runner's thread ----------------------------------------------------------------------

    def run(self) -> None:
        """Run until stopped, in this thread."""
        watch = threading.Thread(target=self._watch, name="rowcast-handlers-watch", daemon=True)
        watch.start()
        with unpooled(self._alias):
            try:
                self._run()
            finally:
                self._release_all()
                connections.close_all()

    def _run(self) -> None:
        backoff = Backoff(_BACKOFF_FIRST, _BACKOFF_MOST)
        busy = 0
        while not self._stop.is_set():
            self._wake.clear()
            try:
                busy = _BUSY_LOOKS if self._look() else max(busy - 1, 0)
            except Exception as error:
                if self._outage.problem is None and not passes(error):
                    logger.exception("handlers failed", extra={"action": "handlers_failing"})
                self._outage.failed(error)
                connections.close_all()
                self._wait(backoff.next())
                continue
            self._outage.worked()
            backoff.reset()
            self._wait(self._interval * _BUSY_FRACTION if busy else self._interval)

    def _wait(self, seconds: float) -> None:
        if not self._running:
            seconds = max(seconds, self._timing.refresh)
        self._wake.wait(seconds)

    def _look(self) -> bool:
        """Do what is to be done now. Returns whether the log has gone on."""
        now = time.monotonic()
        for one in list(self._running.values()):
            self._look_at(one)
        news = False
        if now - self._refreshed >= self._timing.refresh:
            self._refresh(read_head(connections[self._alias]))
            self._refreshed = now
        if self._running:
            news = self._look_at_log()
            if now - self._renewed >= self._timing.renew:
                cursors.renew(self._alias, self.id, list(self._running))
                for one in self._running.values():
                    # One that is another's now is let go at the next look.
                    with contextlib.suppress(Fenced):
                        one.worker.save()
                self._renewed = now
        return news

    def _look_at_log(self) -> bool:
        head = find_head(connections[self._alias])
        last = self._feed.head
        if head is None or head == last:
            return False
        if last is not None and head.epoch != last.epoch:
            self._refreshed = float("-inf")
            return False
        events = self._feed.look(head)
        if events is None:
            for one in self._running.values():
                one.worker.wake()
        elif events:
            tables = {(event.relation.schema, event.relation.table) for event in events}
            for one in self._running.values():
                one.worker.offer(events[0].seq - 1, events[-1].seq, tables)
        return True

    def _look_at(self, one: _Running) -> None:
        name = one.definition.name
        if one.worker.overdue:
            one.worker.stop()
            try:
                one.worker.count_overdue()
                lease = cursors.under_new_term(one.lease)
            except Fenced:
                del self._running[name]
                return
            hanging = [thread for thread in self._hanging.get(name, ()) if thread.is_alive()]
            self._hanging[name] = [*hanging, one.thread]
            del self._running[name]
            if len(hanging) + 1 >= MOST_HANGING:
                cursors.stop(
                    lease,
                    Handler.Stopped.FAILED,
                    f"{len(hanging) + 1} calls of its function have not ended, and keep threads of"
                    " this process. Give what it waits for a time limit, and restart the process",
                )
            else:
                self._begin(lease, one.worker.matcher)
        elif one.ended:
            del self._running[name]
            cursors.release(one.lease)

    def _watch(self) -> None:
        """The body of the thread that gives attempts up. It makes no query, because a function that
        hangs may keep other connections from writing."""
        while not self._stop.wait(_WATCH_SECONDS):
            for one in list(self._running.values()):
                one.worker.give_up_if_overdue()
                if one.worker.overdue:
                    self._wake.set()

    def _refresh(self, head: Head) -> None:
        """Look at the definitions and the rows: take those without a runner, drop what changed."""
        matchers = self._wanted()
        rows = cursors.rows(self._alias)
        known = self._feed.head
        if known is None or known.epoch != head.epoch:
            self._feed.look(head)
        for name, one in list(self._running.items()):
            row = rows.get(name)
            matcher = matchers.get(name)
            theirs = row is not None and (row.owner, row.term) == (self.id, one.lease.term)
            same = matcher is not None and matcher.definition == one.definition
            if not theirs or not same or (row is not None and row.epoch != head.epoch):
                self._let_go(one, theirs)
        now = time.monotonic()
        oldest: int | None = None
        for name, matcher in matchers.items():
            row = rows.get(name)
            if row is None:
                if oldest is None:
                    oldest = oldest_seq(connections[self._alias])
                cursors.create(self._alias, name, matcher.definition.start, head, oldest)
            elif row.epoch != head.epoch:
                if not row.stopped:
                    self._begun_anew(row, head)
                continue
            elif row.paused or row.stopped or name in self._running:
                continue
            if now < self._not_before.get(name, 0.0):
                continue
            former = "" if row is None else row.owner
            # One of this machine whose process has ended need not be waited for.
            gone = bool(former) and is_gone(former)
            lease = cursors.take(self._alias, name, self.id, former, gone=gone)
            if lease is not None:
                self._begin(lease, matcher)

    def _begun_anew(self, row: Handler, head: Head) -> None:
        text = (
            f"the log began anew (epoch {head.epoch[:8]}, seq {head.seq}): a restored backup, a"
            f" copy, or changes that were not captured. This handler stands at {row.seq} of the"
            " former one. `manage.py handlers resume` goes on from there, `replay --from` elsewhere"
        )
        cursors.begun_anew(self._alias, row, text)
        _log_standing(row.name, text)

    def _wanted(self) -> dict[str, Matcher]:
        stored_types.look({self._alias})
        found: dict[str, Matcher] = {}
        for definition in self._definitions():
            name = definition.name
            if self._names is not None and name not in self._names:
                continue
            known = self._matchers.get(name)
            if known is None or known[0] != definition:
                matcher = None
                try:
                    matcher = Matcher(definition)
                except UnfitHandler as error:
                    logger.error(
                        "handler %s is not run: %s %s (%s)",
                        name,
                        error.message,
                        error.hint,
                        error.id,
                        extra={"action": "handler_unfit"},
                    )
                known = self._matchers[name] = definition, matcher
            if known[1] is not None:
                found[name] = known[1]
        return found

    # --- threads ----------------------------------------------------------------------------------

    def _begin(self, lease: Lease, matcher: Matcher) -> None:
        head = self._feed.head
        assert head is not None  # a look came first
        kind = InOrder if matcher.definition.concurrency == 1 else ByKey
        worker: HandlerThread = kind(lease, matcher, self._feed, head.epoch, self._suspects_lock)
        thread = threading.Thread(
            target=self._work, args=(worker,), name=f"rowcast-{lease.name}", daemon=True
        )
        self._running[lease.name] = _Running(worker, thread, matcher.definition)
        thread.start()
        logger.info("handler %s runs here", lease.name, extra={"action": "handler_taken"})

    def _work(self, worker: HandlerThread) -> None:
        """The body of a handler's thread."""
        name = worker.lease.name
        again = 0.0
        try:
            worker.run()
        except (Fenced, GivenUp):
            pass
        except ChangesLost as error:
            self._lost(worker, error)
        except Exception as error:
            again = self._timing.again
            if passes(error):
                logger.warning(
                    "handler %s is begun again: %s", name, error, extra={"action": "handler_again"}
                )
            else:
                logger.exception(
                    "handler %s is begun again", name, extra={"action": "handler_again"}
                )
        finally:
            connections.close_all()
            if again:
                self._not_before[name] = time.monotonic() + again
            for one in list(self._running.values()):
                if one.worker is worker:
                    one.ended = True
            self._wake.set()

    def _lost(self, worker: HandlerThread, error: ChangesLost) -> None:
        # If this fails, the next one that takes it finds the same.
        with contextlib.suppress(Exception):
            worker.save()
            cursors.stop(worker.lease, Handler.Stopped.LOST, str(error))
        _log_standing(worker.lease.name, error)

    def _let_go(self, one: _Running, theirs: bool) -> None:
        """Run a handler no longer: its row is another's, or its definition changed."""
        one.worker.stop()
        if theirs:
            one.worker.give_up()
            cursors.release(one.lease)
        self._running.pop(one.definition.name, None)

    def _release_all(self) -> None:
        for one in list(self._running.values()):
            one.worker.stop()
            # If this fails, the lease runs out.
            with contextlib.suppress(Exception):
                if one.thread.is_alive():
                    one.thread.join(1.0)
                one.worker.save()
                cursors.release(one.lease)
        self._running.clear()


def _log_standing(name: str, why: object) -> None:
    logger.error("handler %s stands still: %s", name, why, extra={"action": "handler_stopped"})
