"""Ends connections whose session, user or token is no longer valid.

Owns the list of connections with their credentials, and when these are checked again. `auth_rls`
decides whether a session, a user or a token is valid. When a user changes, the subscriptions bind
channels anew; connections, also those without a channel, are ended here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from itertools import islice

from auth_rls.access import authority
from auth_rls.subjects import denylist, sessions
from auth_rls.subjects.sessions import SessionProof
from auth_rls.subjects.subject import Subject
from realtime.process import token_list
from realtime.util.database_threads import in_database_thread, in_few_database_threads
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.connections")

#: How long the connections of an ended session live at most.
PERIOD_SECONDS = 1.0
# Sessions that are verified one by one in each period, in rotation, because some session engines
# cannot be queried for many sessions at once.
_IN_FULL = 100


@dataclass(frozen=True, slots=True, eq=False)
class Monitored:
    """The subject of a connection, or of a channel with its own token, and a function that ends the
    connection. `session` is None without one."""

    subject: Subject
    session: SessionProof | None
    end: Callable[[], None]


class ConnectionMonitor:
    """One per process; on its event loop."""

    def __init__(self) -> None:
        #: Seconds between two checks of sessions and tokens.
        self.period_seconds = PERIOD_SECONDS
        self._monitored: dict[object, Monitored] = {}
        # By user id as text.
        self._of_user: dict[str, dict[Monitored, None]] = {}
        self._sessions: dict[Monitored, None] = {}
        self._tokens: dict[Monitored, None] = {}
        # Ids of users that must be read again; None for all users.
        self._changed: set[str] | None = set()
        self._users_due = asyncio.Event()
        self._sessions_due = asyncio.Event()
        self._tokens_due = asyncio.Event()
        # While users or sessions cannot be read, connections stay and joins are refused.
        self._users_outage = OutageLog(
            logger,
            failing="users cannot be read: %s",
            failing_action="users_failed",
            works="users can be read again",
            works_action="users_work",
        )
        self._sessions_outage = OutageLog(
            logger,
            failing="sessions cannot be read: %s",
            failing_action="sessions_failed",
            works="sessions can be read again",
            works_action="sessions_work",
        )
        self._tokens_outage = OutageLog(
            logger,
            failing="tokens cannot be checked: %s",
            failing_action="tokens_failed",
            works="tokens can be checked again",
            works_action="tokens_work",
        )
        self._tasks: list[asyncio.Task[None]] = []

    def put(self, owner: object, monitored: Monitored) -> None:
        """Monitor a connection or a channel by this credential, in place of an earlier one."""
        self.discard(owner)
        if (
            monitored.session is None
            and monitored.subject.user_id is None
            and not monitored.subject.expires_at
        ):
            return  # An anonymous client or a key: nothing about it can end.
        self._monitored[owner] = monitored
        if monitored.subject.user_id is not None:
            self._of_user.setdefault(str(monitored.subject.user_id), {})[monitored] = None
        if monitored.session is not None:
            self._sessions[monitored] = None
            self._sessions_due.set()
        elif monitored.subject.expires_at is not None:
            if not self._tokens:
                self._tokens_due.set()
            self._tokens[monitored] = None
        if not self._tasks:
            self._start()

    def discard(self, owner: object) -> None:
        """Monitor a connection or a channel no longer."""
        monitored = self._monitored.pop(owner, None)
        if monitored is None:
            return
        self._sessions.pop(monitored, None)
        self._tokens.pop(monitored, None)
        if monitored.subject.user_id is not None:
            name = str(monitored.subject.user_id)
            same = self._of_user.get(name, {})
            same.pop(monitored, None)
            if not same:
                self._of_user.pop(name, None)

    async def stop(self) -> None:
        """Stop monitoring."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def end_of_user(self, user_id: str) -> None:
        """End every connection of this user id."""
        for monitored in list(self._of_user.get(user_id, ())):
            self._end(monitored, "disconnected")

    def users_changed(self, names: Collection[str] | None) -> None:
        """Read these users again, by their ids, and end the connections of users that are inactive
        or deleted; None for all users."""
        if names is None:
            self._changed = None
        elif self._changed is not None:
            self._changed.update(name for name in names if name in self._of_user)
        if self._changed is None or self._changed:
            self._users_due.set()

    # --- looking --------------------------------------------------------------------------------

    def _start(self) -> None:
        # Each by itself: they are read from different places, and while one of these fails or does
        # not answer, the others still end connections.
        looks = (
            self._watch(self._look_at_users, self._users_due, lambda: False, self._users_outage),
            self._watch(
                self._look_at_sessions,
                self._sessions_due,
                lambda: bool(self._sessions),
                self._sessions_outage,
            ),
            self._watch(
                self._look_at_tokens,
                self._tokens_due,
                lambda: bool(self._tokens) and denylist.in_use(),
                self._tokens_outage,
            ),
        )
        self._tasks = [asyncio.create_task(look, name="rowcast-connections") for look in looks]

    async def _watch(
        self,
        look: Callable[[], Awaitable[None]],
        due: asyncio.Event,
        periodic: Callable[[], bool],
        outage: OutageLog,
    ) -> None:
        """Look when it is due, and once in each period while `periodic` says so."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(due.wait(), self.period_seconds if periodic() else None)
            due.clear()
            try:
                await look()
            except Exception as error:
                outage.failed(error)
                due.set()
                await asyncio.sleep(self.period_seconds)
            else:
                outage.worked()

    async def _look_at_users(self) -> None:
        changed, self._changed = self._changed, set()
        names = list(self._of_user) if changed is None else changed
        monitored = [each for name in names for each in self._of_user.get(name, ())]
        if not monitored:
            return
        try:
            renewed = await in_database_thread(
                authority.renew_all, [each.subject for each in monitored]
            )
        except BaseException:
            self.users_changed(changed)
            raise
        for each, subject in zip(monitored, renewed, strict=True):
            if subject is None:
                self._end(each, "user deactivated or deleted")

    async def _look_at_sessions(self) -> None:
        monitored = list(self._sessions)
        if not monitored:
            return
        some = list(islice(self._sessions, _IN_FULL))
        for each in some:
            # To the end, so that other sessions are verified next time.
            self._sessions[each] = self._sessions.pop(each)
        lost = await in_few_database_threads(_ended, monitored, some)
        for each in lost:
            self._end(each, "session ended")

    async def _look_at_tokens(self) -> None:
        monitored = list(self._tokens)
        if not monitored:
            return
        refused = await token_list.denied([each.subject.claims for each in monitored])
        for each, over in zip(monitored, refused, strict=True):
            if over:
                self._end(each, "token revoked")

    def _end(self, monitored: Monitored, why: str) -> None:
        logger.info("connection ended: %s", why, extra={"action": "connection_ended"})
        monitored.end()


def _ended(monitored: Collection[Monitored], in_full: Collection[Monitored]) -> list[Monitored]:
    lost = sessions.ended(each.session for each in monitored if each.session is not None)
    unsure = {each.session for each in in_full} - lost
    lost.update(proof for proof in unsure if proof is not None and not sessions.still_good(proof))
    return [each for each in monitored if each.session in lost]
