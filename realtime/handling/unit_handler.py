"""Changes that are handled together: attempts, pauses, and what becomes of failures.

Used by one thread; another may give the present attempt up.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

from django.db import connections, transaction
from django.db.utils import InterfaceError, OperationalError

from realtime.event_log.event import DatabaseEvent
from realtime.handling import chain, cursors
from realtime.handling.attempt import Attempt, GivenUp, text_of
from realtime.handling.cancellable_lock import CancellableLock
from realtime.handling.cursors import Fenced, Lease
from realtime.handling.definition import DEAD_LETTER
from realtime.handling.hand_over import message
from realtime.handling.matching import Matcher
from realtime.models import DeadLetter, Handler
from realtime.util.backoff import Backoff
from realtime.util.database_threads import passes
from realtime.wal import actor
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.handlers")

MOST_BYTES = 8 * 1024 * 1024
"""Of the images of changes that are handled together: of large ones there are fewer."""

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0


@dataclass(frozen=True, slots=True)
class Unit:
    """Changes that are handled together, at least one, and the seq that is passed with them.
    `suspect`: a change, alone, that may have ended the process of the runner before."""

    events: tuple[DatabaseEvent, ...]
    upto: int
    suspect: bool = False

    @property
    def first(self) -> int:
        return self.events[0].seq


class Progress(Protocol):
    """Where a handler records what is done. May raise what the database raises, and Fenced."""

    def record(self, unit: Unit, count: int) -> None:
        """The unit is done, `count` changes of it by the handler. Inside the transaction."""
        ...

    def is_recorded(self, unit: Unit) -> bool:
        """Whether the unit is done, by the database."""
        ...

    def passed(self, unit: Unit) -> None:
        """The unit is done and committed."""
        ...


class UnitHandler:
    """Handles one unit after another under a lease, until `stopping` is set."""

    def __init__(
        self,
        lease: Lease,
        matcher: Matcher,
        epoch: str,
        progress: Progress,
        lock: CancellableLock,
        stopping: threading.Event,
    ) -> None:
        self._claim = lease
        self._matcher = matcher
        self._definition = matcher.definition
        self._epoch = epoch
        self._progress = progress
        self._lock = lock
        self._stopping = stopping
        # Of the change that failed last, as the row has it.
        self._attempts = 0
        self._failed_seq: int | None = None
        self._last_error = ""
        self._attempt: tuple[Attempt, Unit, int] | None = None
        self._overdue: tuple[Attempt, Unit, int] | None = None

    def remember(self, row: Handler) -> None:
        """The row tells of failed attempts before."""
        self._attempts, self._failed_seq = row.attempts, row.failed_seq
        self._last_error = row.last_error

    # --- from other threads -----------------------------------------------------------------------

    def give_up_if_overdue(self) -> None:
        """Give the present attempt up if its time is over; its thread is to be left to itself
        then. Makes no query: a function that hangs may keep others from the database."""
        running = self._attempt
        if running is None or self._overdue is not None or not running[0].overdue:
            return
        if running[0].give_up() or running[0].lingers:
            self._overdue = running
            self._stopping.set()
            self._lock.release(self)

    @property
    def overdue(self) -> bool:
        """Whether an attempt was given up because its time was over."""
        return self._overdue is not None

    def count_overdue(self) -> None:
        """Count that attempt as failed, if it is not committed. Raises Fenced, and what the
        database raises."""
        assert self._overdue is not None
        attempt, unit, attempts = self._overdue
        if attempt.committed:
            logger.error(
                "handler %s: what change %s left for on_commit has not ended within %g seconds, and"
                " is left to itself",
                self._definition.name,
                unit.first,
                self._definition.timeout,
                extra={"action": "handler_after_commit"},
            )
            return
        error = f"no end within {self._definition.timeout:g} seconds"
        cursors.failed(self._claim, unit.first, attempts + 1, error)
        log_failure(self._definition.name, unit.first, attempts + 1, error)

    def give_up(self) -> bool:
        """Let nothing of the present attempt be committed. False if it is being committed."""
        running = self._attempt
        return running is None or running[0].give_up()

    # --- its thread -------------------------------------------------------------------------------

    def handle(self, unit: Unit) -> None:
        """Attempt a unit until it is done, or kept as a dead letter, or the thread is to stop.

        Raises Fenced if the handler is another's or stands still now, GivenUp, and what the
        database raises.
        """
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
                self._passed(unit)
                return
            error = text_of(failure)
            attempts += 1
            cursors.failed(self._claim, unit.first, attempts, error)
            log_failure(self._definition.name, unit.first, attempts, error, failure)
            if attempts < self._definition.attempts:
                self._stopping.wait(self._definition.pause(attempts))

    def _passed(self, unit: Unit) -> None:
        self._attempts, self._failed_seq = 0, None
        self._progress.passed(unit)

    def _try(self, unit: Unit, attempts: int) -> BaseException | None:
        """One attempt; what it failed with, or None. What fails only for the moment is tried
        again."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            error = self._attempt_once(unit, attempts)
            if error is None:
                return None
            of_the_moment = self._of_the_moment(error)
            if self._is_recorded(unit, backoff):
                # What was left for `on_commit` failed, or the answer to the commit was lost.
                logger.error(
                    "handler %s: an error after the commit of change %s: %s",
                    self._definition.name,
                    unit.first,
                    text_of(error),
                    exc_info=error,
                    extra={"action": "handler_after_commit"},
                )
                return None
            if not of_the_moment:
                return error
            self._rest(backoff)

    def _is_recorded(self, unit: Unit, backoff: Backoff) -> bool:
        while True:
            try:
                return self._progress.is_recorded(unit)
            except Fenced:
                raise
            except Exception as problem:
                if not passes(problem):
                    raise
                self._rest(backoff)

    def _rest(self, backoff: Backoff) -> None:
        """A pause while the database does not answer, or others hold it."""
        connections.close_all()
        if self._stopping.wait(backoff.next()):
            raise GivenUp

    def _of_the_moment(self, error: BaseException) -> bool:
        connection = connections[self._claim.alias]
        return vendor_of(connection).lost_to_others(error) or (
            isinstance(error, OperationalError | InterfaceError) and not connection.is_usable()
        )

    def _attempt_once(self, unit: Unit, attempts: int) -> BaseException | None:
        definition = self._definition
        link = chain.next_link(event.actor for event in unit.events)
        if link > chain.MOST_LINKS:
            self._stop_for_loop(unit)
        changes = [self._matcher.change(event, self._epoch) for event in unit.events]
        name = chain.actor_of(definition.name, link)

        def work() -> None:
            with actor.acting(lambda: name):
                definition.call(changes)

        def mark() -> None:
            self._progress.record(unit, len(changes))

        if unit.suspect and not self._lock.acquire(self, self._stopping):
            raise GivenUp
        try:
            if unit.suspect:
                cursors.try_alone(self._claim, unit.first)
            attempt = Attempt(self._claim.alias, definition.most_seconds)
            self._attempt = attempt, unit, attempts
            attempt.run(work, mark, in_transaction=definition.in_transaction)
        except (Fenced, GivenUp):
            raise
        except BaseException as error:
            return error
        finally:
            self._attempt = None
            self._lock.release(self)
        return None

    # --- failures ---------------------------------------------------------------------------------

    def _give_way(self, unit: Unit, attempts: int, error: str) -> None:
        if len(unit.events) > 1:
            self._one_by_one(unit)
            return
        if self._definition.on_failure != DEAD_LETTER:
            raise self._stopped(Handler.Stopped.FAILED, error, unit)
        change = self._matcher.change(unit.events[0], self._epoch)
        letter = DeadLetter(
            handler=self._definition.name,
            epoch=self._epoch,
            seq=change.seq,
            change=message(change),
            error=error,
            attempts=attempts,
        )
        with transaction.atomic(using=self._claim.alias):
            cursors.keep_dead_letter(letter, self._claim.alias)
            self._progress.record(unit, 0)
        self._passed(unit)
        logger.error(
            "handler %s gives change %s up after %s attempts and keeps it as a dead letter: %s",
            self._definition.name,
            change.seq,
            attempts,
            error,
            extra={"action": "handler_dead_letter", "seq": change.seq},
        )

    def _one_by_one(self, unit: Unit) -> None:
        """Find out which of the changes is at fault."""
        self._attempts, self._failed_seq = 0, None
        for event in unit.events:
            if self._stopping.is_set():
                return
            self.handle(Unit((event,), event.seq))

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
        cursors.stop(self._claim, why, error, unit.first)
        logger.error(
            "handler %s stands still at change %s: %s",
            self._definition.name,
            unit.first,
            error,
            extra={"action": "handler_stopped", "seq": unit.first},
        )
        return Fenced(self._definition.name)


def log_failure(
    name: str, seq: int, attempts: int, error: str, cause: BaseException | None = None
) -> None:
    """Say that the `attempts`-th attempt of a handler at the change `seq` failed."""
    logger.warning(
        "handler %s failed at change %s, attempt %s: %s",
        name,
        seq,
        attempts,
        error,
        exc_info=cause,
        extra={"action": "handler_failed", "seq": seq},
    )
