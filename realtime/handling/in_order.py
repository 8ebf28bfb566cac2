"""A handler that gets its changes in the order of the log, in a thread of its own.

Owns its position: everything up to it is done, or does not concern the handler. The cursor in the
database is moved by each attempt that succeeds, and now and then by the runner over what does not
concern it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from django.db import connections, transaction
from django.db.utils import InterfaceError, OperationalError

from realtime.event_log.event import DatabaseEvent
from realtime.handling import chain, cursors
from realtime.handling.attempt import Attempt, GivenUp
from realtime.handling.cursors import Claim, Fenced
from realtime.handling.definition import DEAD_LETTER
from realtime.handling.hand_over import message
from realtime.handling.log_feed import HistoryLost, LogFeed
from realtime.handling.matching import Matcher
from realtime.models import DeadLetter, Handler
from realtime.util.backoff import Backoff
from realtime.util.database_threads import passes
from realtime.wal import actor
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.handlers")

# Idle so long, the thread gives its connection back.
_IDLE_SECONDS = 10.0
# A function that ends by itself is given up if it does not.
_GRACE_SECONDS = 5.0
_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0


@dataclass(frozen=True, slots=True)
class Unit:
    """Changes that are handled together, at least one, and the seq that is passed with them."""

    events: tuple[DatabaseEvent, ...]
    upto: int

    @property
    def first(self) -> int:
        return self.events[0].seq


class InOrder:
    """One handler under one claim. `run` is the body of its thread; the other methods are called
    from the runner's."""

    def __init__(self, claim: Claim, matcher: Matcher, feed: LogFeed, epoch: str) -> None:
        self.claim = claim
        self.matcher = matcher
        self._definition = matcher.definition
        self._feed = feed
        self._epoch = epoch
        self._position = -1
        self._saved = -1
        self._ahead: deque[DatabaseEvent] = deque()
        # Changes behind the cursor that were skipped, or done when they were not handled in order.
        self._done: set[int] = set()
        #: Up to this seq changes are handled one by one: a batch of them failed.
        self._alone_upto = -1
        self._attempts = 0
        self._failed_seq: int | None = None
        self._last_error = ""
        self._attempt: tuple[Attempt, Unit, int] | None = None
        self._overdue: tuple[Attempt, Unit, int] | None = None
        self._news = threading.Condition()
        self._idle = False
        self._stopping = threading.Event()

    # --- from the runner --------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        with self._news:
            self._news.notify_all()

    def offer(self, after: int, upto: int, tables: Collection[tuple[str, str]]) -> None:
        """The log has gone on from `after` to `upto`, with changes of these tables."""
        with self._news:
            if self._idle and self._position == after and self.matcher.tables.isdisjoint(tables):
                self._position = upto
            else:
                self._news.notify_all()

    def wake(self) -> None:
        """The log has gone on."""
        with self._news:
            self._news.notify_all()

    def save(self) -> None:
        """Move the cursor over what did not concern the handler. Raises what the database does."""
        with self._news:
            position = self._position
        if position > self._saved:
            cursors.pass_over(self.claim, position)
            self._saved = position
        if self._done and max(self._done) <= position:
            cursors.forget_done(self.claim, position)
            self._done = set()

    def give_up_if_overdue(self) -> None:
        """Give the present attempt up if its time is over; its thread is to be left to itself
        then. Makes no query: a function that hangs may keep others from the database."""
        running = self._attempt
        if running is None or self._overdue is not None or not running[0].overdue:
            return
        if running[0].give_up():
            self._stopping.set()
            self._overdue = running

    @property
    def overdue(self) -> bool:
        """Whether an attempt was given up because its time was over."""
        return self._overdue is not None

    def count_overdue(self) -> None:
        """Count that attempt as failed. Raises Fenced, and what the database raises."""
        assert self._overdue is not None
        _, unit, attempts = self._overdue
        error = f"no end within {self._definition.timeout:g} seconds"
        cursors.failed(self.claim, unit.first, attempts + 1, error)
        _log_failure(self._definition.name, unit, attempts + 1, error)

    def give_up(self) -> bool:
        """Let nothing of the present attempt be committed. False if it is being committed."""
        running = self._attempt
        return running is None or running[0].give_up()

    # --- its thread -------------------------------------------------------------------------------

    def run(self) -> None:
        """Handle changes until stopped. Raises Fenced, GivenUp, HistoryLost, and what reading the
        log raises."""
        row = cursors.load(self.claim)
        self._attempts, self._failed_seq = row.attempts, row.failed_seq
        self._last_error = row.last_error
        self._done = cursors.done_after(self.claim, row.seq)
        self._move(row.seq)
        self._saved = row.seq
        while not self._stopping.is_set():
            unit = self._gather()
            if unit is None:
                self._wait()
            else:
                self._handle(unit)

    def _move(self, seq: int) -> None:
        with self._news:
            self._position = max(self._position, seq)

    def _wait(self) -> None:
        with self._news:
            self._idle = True
            while not self._stopping.is_set() and not self._behind():
                if not self._news.wait(_IDLE_SECONDS):
                    connections.close_all()
            self._idle = False

    def _behind(self) -> bool:
        head = self._feed.head
        return head is not None and self._position < head.seq

    def _gather(self) -> Unit | None:
        """The next changes to handle together; None if there is none at the moment."""
        events: list[DatabaseEvent] = []
        upto = self._position
        while len(events) < (1 if upto < self._alone_upto else self._definition.batch):
            if not self._ahead:
                try:
                    self._ahead.extend(self._feed.read(upto))
                except HistoryLost:
                    if events:
                        break
                    raise
                if not self._ahead or self._stopping.is_set():
                    break
            event = self._ahead.popleft()
            if event.seq <= upto:
                continue
            upto = event.seq
            if self.matcher.matches(event) and event.seq not in self._done:
                events.append(event)
            elif not events:
                self._move(upto)
        return Unit(tuple(events), upto) if events else None

    def _handle(self, unit: Unit) -> None:
        """Attempt a unit until it is done, dead, split, or the handler stops."""
        attempts = self._attempts if self._failed_seq == unit.first else 0
        error = self._last_error
        if attempts and attempts < self._definition.attempts:
            self._stopping.wait(self._definition.pause(attempts))
        while not self._stopping.is_set():
            if attempts >= self._definition.attempts:
                self._give_way(unit, attempts, error)
                return
            failure = self._try(unit, attempts)
            if failure is None:
                self._attempts, self._failed_seq = 0, None
                self._move(unit.upto)
                self._saved = unit.upto
                return
            error = _text(failure)
            attempts += 1
            cursors.failed(self.claim, unit.first, attempts, error)
            _log_failure(self._definition.name, unit, attempts, error, failure)
            if attempts < self._definition.attempts:
                self._stopping.wait(self._definition.pause(attempts))

    def _try(self, unit: Unit, attempts: int) -> BaseException | None:
        """One attempt; what it failed with, or None. What fails only for the moment is tried
        again."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            error = self._attempt_once(unit, attempts)
            if error is None:
                return None
            while True:
                try:
                    committed = cursors.load(self.claim).seq >= unit.upto
                    break
                except Exception as problem:
                    if isinstance(problem, Fenced) or not passes(problem):
                        raise
                    self._rest(backoff)
            if committed:
                # What was left for `on_commit` failed, or the answer to the commit was lost.
                logger.error(
                    "handler %s: an error after the commit of change %s: %s",
                    self._definition.name,
                    unit.first,
                    _text(error),
                    extra={"action": "handler_after_commit"},
                )
                return None
            if not self._of_the_moment(error):
                return error
            self._rest(backoff)

    def _rest(self, backoff: Backoff) -> None:
        """A pause while the database does not answer, or others hold it."""
        connections.close_all()
        if self._stopping.wait(backoff.next()):
            raise GivenUp

    def _of_the_moment(self, error: BaseException) -> bool:
        connection = connections[self.claim.alias]
        return vendor_of(connection).lost_to_others(error) or (
            isinstance(error, OperationalError | InterfaceError) and not connection.is_usable()
        )

    def _attempt_once(self, unit: Unit, attempts: int) -> BaseException | None:
        definition = self._definition
        link = chain.next_link(event.actor for event in unit.events)
        if link > chain.MOST_LINKS:
            self._stop_for_loop(unit)
        changes = [self.matcher.change(event, self._epoch) for event in unit.events]
        name = chain.actor_of(definition.name, link)

        def work() -> None:
            with actor.acting(lambda: name):
                definition.call(changes)

        def mark() -> None:
            cursors.advance(self.claim, unit.upto, len(changes))

        more = _GRACE_SECONDS if definition.time_limit_inside else 0.0
        attempt = Attempt(self.claim.alias, definition.timeout + more)
        self._attempt = attempt, unit, attempts
        try:
            attempt.run(work, mark, in_transaction=definition.in_transaction)
        except (Fenced, GivenUp):
            raise
        except BaseException as error:
            return error
        finally:
            self._attempt = None
        return None

    # --- failures ---------------------------------------------------------------------------------

    def _give_way(self, unit: Unit, attempts: int, error: str) -> None:
        if len(unit.events) > 1:
            # Which of them is at fault is found out one by one.
            self._alone_upto = unit.events[-1].seq
            self._attempts, self._failed_seq = 0, None
            self._ahead.extendleft(reversed(unit.events))
            return
        if self._definition.on_failure != DEAD_LETTER:
            raise self._stopped(Handler.Stopped.FAILED, error, unit)
        change = self.matcher.change(unit.events[0], self._epoch)
        letter = DeadLetter(
            handler=self._definition.name,
            epoch=self._epoch,
            seq=change.seq,
            change=message(change),
            error=error,
            attempts=attempts,
        )
        with transaction.atomic(using=self.claim.alias):
            cursors.keep_dead_letter(letter, self.claim.alias)
            cursors.advance(self.claim, unit.upto, 0)
        self._attempts, self._failed_seq = 0, None
        self._move(unit.upto)
        logger.error(
            "handler %s gives change %s up after %s attempts and keeps it as a dead letter: %s",
            self._definition.name,
            change.seq,
            attempts,
            error,
            extra={"action": "handler_dead_letter", "seq": change.seq},
        )

    def _stop_for_loop(self, unit: Unit) -> None:
        text = (
            f"a loop: change {unit.first} is the {chain.MOST_LINKS}th in a row of changes that"
            " handlers wrote because of each other. Let the handler write only where something is"
            ' to be changed, or exclude its own writes: change.actor begins with "handler:".'
            " `manage.py handlers skip` leaves this change out"
        )
        raise self._stopped(Handler.Stopped.LOOP, text, unit)

    def _stopped(self, why: Handler.Stopped, error: str, unit: Unit) -> Fenced:
        """Stop the handler; the exception that ends the thread."""
        cursors.stop(self.claim, why, error, unit.first)
        logger.error(
            "handler %s stands still at change %s: %s",
            self._definition.name,
            unit.first,
            error,
            extra={"action": "handler_stopped", "seq": unit.first},
        )
        return Fenced(self._definition.name)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _log_failure(
    name: str, unit: Unit, attempts: int, error: str, cause: BaseException | None = None
) -> None:
    logger.warning(
        "handler %s failed at change %s, attempt %s: %s",
        name,
        unit.first,
        attempts,
        error,
        exc_info=cause,
        extra={"action": "handler_failed", "seq": unit.first},
    )
