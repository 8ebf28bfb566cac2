"""The users that a process knows: who they are and which permissions they hold, kept exact by the
log.

A handshake and a join need both. What is not known is read in batches: one query for many users,
and one for each permission that policies name. What is known stays until an event of the log is
about it; the event takes it away before anything behind the event is judged (RT-D2). A read that
was under way then is used by those who asked, and not kept.

The log may be late, or nobody may number it. So who asks says from when on the answer must be
known to be true: then the log is asked, for all who ask in a batch, whether it has changes of users
that have not come here.

Where the log does not tell everything (`users_are_followed`), and in a process that does not follow
it, users are read in the same batches, and none is kept. So are sessions and their users, since the
log has no sessions and no passwords. Everything is on one event loop; `_look`
runs in a database thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import DataError

from auth_rls import conf
from auth_rls.access import authority
from auth_rls.access.snapshot import held_by
from auth_rls.subjects.sessions import (
    SessionProof,
    read_together,
    subject_of_session,
    subjects_of_sessions,
)
from auth_rls.subjects.subject import Subject, user_named_by
from auth_rls.subjects.token_errors import InvalidToken
from auth_rls.subjects.tokens import VerifiedToken
from auth_rls.subjects.user_lookup import INACTIVE, field_value, users_named
from realtime.event_log.position import Position
from realtime.event_log.ring import EventLog
from realtime.event_log.table import nothing_later
from realtime.subscriptions.identity_tables import (
    identity_models,
    user_keys,
    users_are_followed,
)
from realtime.util.database_threads import (
    FEW_SECONDS,
    in_database_thread,
    in_few_database_threads,
    passes,
)
from realtime.util.gathering import Gathering
from realtime.wal import obstacles, triggers

# Users kept, the least recently asked for leave first. One takes some two kilobytes.
MOST = 10_000
# A user is read again after so many seconds, in case that triggers were switched off for a while.
_LONGEST_SECONDS = 60.0
# Users in one query, well below SQLite's bound on parameters.
_AT_ONCE = 500

K = TypeVar("K")
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class KnownUser:
    """A user as read at `at` (monotonic seconds), None if there is none, and which permissions the
    user holds."""

    user: Any
    held: Mapping[str, bool]
    at: float


@dataclass(eq=False, slots=True)
class _Reading:
    """A read under way, and what the log has told since it began: the ids of users as text."""

    changed: set[str]
    everybody: bool = False


class KnownUsers:
    """One per process that serves sockets; `log` is where its dispatcher is."""

    def __init__(self, alias: str, log: EventLog, most: int = MOST) -> None:
        self._alias = alias
        self._log = log
        self._most = most
        self._kept: OrderedDict[Any, KnownUser] = OrderedDict()
        # The keys of `_kept` by their text, by which the log names users.
        self._by_text: dict[str, Any] = {}
        self._followed = False
        self._tables: tuple[str, ...] = ()
        # The triggers there were at the last look, and whether they captured all of these tables.
        # One value, because several threads look.
        self._capture: tuple[frozenset[object] | None, bool] = None, False
        # The permissions that policies depend on, as of the last planner.
        self._permissions: tuple[str, ...] = ()
        # When the log was asked last and had no change of users that has not come here.
        self._true_at = 0.0
        self._readings: list[_Reading] = []
        self._reads: Gathering[Any, KnownUser] = Gathering(self._read, _AT_ONCE)
        self._names: Gathering[str, Any] = Gathering(self._find, _AT_ONCE)
        self._sessions: Gathering[str, Any] = Gathering(self._open, _AT_ONCE)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def plain(self) -> bool:
        """Whether the attributes of users are values of their rows, which an event loop may read.
        Others may ask the database, or be the project's own code: in a database thread only."""
        return self._followed

    # --- asking ---------------------------------------------------------------------------------

    async def of_token(self, token: VerifiedToken) -> Subject:
        """The subject that a token stands for, which was not refused by the project's list, by its
        user as of this call or later. Raises as `Subject.from_verified` does."""
        named = user_named_by(token)
        if named is None:
            return Subject.of_user_found(token, None)
        if not self._followed or conf.current().user_field != "pk":
            found = await self._names.answer(named)
            if found is None or self.plain:
                return Subject.of_user_found(token, found)
            return await in_database_thread(Subject.of_user_found, token, found)
        key = field_value(get_user_model()._meta.pk, named)
        if key is None:
            return Subject.of_user_found(token, None)
        user = (await self._known(key, (), time.monotonic())).user
        if user is not None and not getattr(user, "is_active", False):
            raise InvalidToken(INACTIVE)
        return Subject.of_user_found(token, user)

    async def of_session(self, key: str) -> tuple[Subject, SessionProof] | None:
        """The subject of a Django session by the value of its cookie, and the proof of the session,
        as of this call or later; None if it is nobody's. Raises what the database raises, and
        TimeoutError where sessions or caches do not answer."""
        if read_together(key):
            async with asyncio.timeout(FEW_SECONDS):
                found = await self._sessions.answer(key)
            if found is not _BY_ITSELF:
                return found  # type: ignore[no-any-return]
        return await in_few_database_threads(subject_of_session, key)

    def recall(
        self, subject: Subject, permissions: Collection[str], since: float
    ) -> KnownUser | None:
        """The user of a subject and whether it holds these permissions, if that is known to have
        been true at `since` (monotonic seconds) or later. Looks nothing up."""
        key = authority.user_key(subject)
        return _NOBODY if key is None else self._fresh(key, permissions, since)

    async def know(self, subject: Subject, permissions: Collection[str], since: float) -> KnownUser:
        """As `recall`; what is not known is read. Raises what the database raises."""
        key = authority.user_key(subject)
        return _NOBODY if key is None else await self._known(key, permissions, since)

    async def renewed(self, subject: Subject, known: KnownUser) -> Subject | None:
        """The subject with its user as known, as `authority.renewed`."""
        if known.user is None or self.plain:
            return authority.renewed(subject, known.user)
        return await in_database_thread(authority.renewed, subject, known.user)

    def needs(self, permissions: Iterable[str]) -> None:
        """Policies depend on these permissions: they are read with every user from now on."""
        self._permissions = tuple(permissions)

    def captured(self) -> bool:
        """Whether changes of users and policies are captured: a table may be a view, or its
        triggers may be missing or switched off, as on SQLite while migrations run. In a database
        thread; raises what the database raises."""
        marks = triggers.marks(self._alias)
        before, captured = self._capture
        if marks != before:
            captured = triggers.captures_all(
                (apps.get_model("auth_rls.Policy"), *identity_models()), self._alias
            )
            # Kept only now: a look that failed half-way is to be made again as a whole.
            self._capture = marks, captured
        return captured

    def unchanged_since(self, at: Position, *tables: str) -> bool:
        """Whether it is certain that no change of users, nor of these captured tables, stands
        behind this position. In a database thread; raises what the database raises."""
        return (
            self._followed
            and self.captured()
            and nothing_later(self._alias, (*self._tables, *tables), at)
        )

    # --- following ------------------------------------------------------------------------------

    def follow(self) -> None:
        """From here on `forget` is called for every event that is about users."""
        self.forget(None)
        self._followed = users_are_followed() and not obstacles.deciding_elsewhere(self._alias)
        self._tables = tuple(user_keys())

    def unfollow(self) -> None:
        """The log is followed no longer."""
        self.forget(None)
        self._followed = False

    def forget(self, ids: Collection[str] | None) -> None:
        """The users with these ids (as text) have changed; with None all of them may have."""
        for reading in self._readings:
            if ids is None:
                reading.everybody = True
            else:
                reading.changed.update(ids)
        if ids is None:
            self._kept.clear()
            self._by_text.clear()
            return
        for text in ids:
            if text in self._by_text:
                del self._kept[self._by_text.pop(text)]

    # --- reading --------------------------------------------------------------------------------

    def _fresh(self, key: Any, permissions: Collection[str], since: float) -> KnownUser | None:
        found = self._kept.get(key)
        if found is None:
            return None
        now = time.monotonic()
        if max(found.at, self._true_at) < since or found.at < now - _LONGEST_SECONDS:
            return None
        if any(name not in found.held for name in permissions):
            return None
        self._kept.move_to_end(key)
        return found

    async def _known(self, key: Any, permissions: Collection[str], since: float) -> KnownUser:
        found = self._fresh(key, permissions, since)
        if found is None:
            if any(name not in self._permissions for name in permissions):
                self._permissions = tuple(dict.fromkeys((*self._permissions, *permissions)))
            found = await self._reads.answer(key)
        return found

    async def _read(self, keys: Sequence[Any]) -> Mapping[Any, KnownUser | Exception]:
        reading = _Reading(set())
        self._readings.append(reading)
        began, permissions = time.monotonic(), self._permissions
        kept = {key: known for key in keys if (known := self._kept.get(key)) is not None}
        # Those of whom something is missing are read, whether the rest is true or not.
        whole = {
            key: known
            for key, known in kept.items()
            if all(name in known.held for name in permissions)
            and known.at >= began - _LONGEST_SECONDS
        }
        at = self._log.position if whole else None
        try:
            asked = partial(self._look, keys, frozenset(whole), permissions, at)
            still_true, found = await in_database_thread(asked)
        finally:
            self._readings.remove(reading)
        if not self._capture[1]:
            # Changes go by unseen.
            self.forget(None)
            reading.everybody = True
        if still_true and not reading.everybody:
            self._true_at = max(self._true_at, began)
        answers: dict[Any, KnownUser | Exception] = {}
        for key in keys:
            one = found.get(key)
            if one is None:
                answers[key] = whole[key]
            elif isinstance(one, Exception):
                answers[key] = one
            else:
                known = answers[key] = KnownUser(*one, began)
                if not reading.everybody and str(key) not in reading.changed:
                    self._keep(key, known)
        return answers

    def _keep(self, key: Any, known: KnownUser) -> None:
        if not self._followed:
            return
        self._kept[key] = known
        self._kept.move_to_end(key)
        self._by_text[str(key)] = key
        if len(self._kept) > self._most:
            gone, _ = self._kept.popitem(last=False)
            del self._by_text[str(gone)]

    def _look(
        self,
        keys: Sequence[Any],
        kept: Collection[Any],
        permissions: Collection[str],
        at: Position | None,
    ) -> tuple[bool, Mapping[Any, tuple[Any, Mapping[str, bool]] | Exception]]:
        """Whether those in `kept` are still true, as known at this position; and the users with the
        other keys, or with all of them."""
        captured = self._followed and self.captured()
        still_true = captured and at is not None and nothing_later(self._alias, self._tables, at)
        wanted = [key for key in keys if not still_true or key not in kept]
        return still_true, _one_by_one(wanted, partial(_users, permissions=permissions))

    async def _find(self, names: Sequence[str]) -> Mapping[str, Any]:
        return await in_database_thread(_one_by_one, names, users_named)

    async def _open(self, keys: Sequence[str]) -> Mapping[str, Any]:
        found = await in_few_database_threads(_one_by_one, keys, subjects_of_sessions)
        return {key: found.get(key, _BY_ITSELF) for key in keys}


_NOBODY = KnownUser(None, {}, 0.0)
# In place of an answer: the session is not read together with others.
_BY_ITSELF = object()


def _users(
    keys: Sequence[Any], permissions: Collection[str]
) -> Mapping[Any, tuple[Any, Mapping[str, bool]]]:
    users = authority.users_with(keys)
    held = held_by(users, permissions)
    return {key: (users.get(key), held.get(key, dict.fromkeys(permissions, False))) for key in keys}


def _one_by_one(
    questions: Sequence[K], ask: Callable[[Sequence[K]], Mapping[K, V]]
) -> Mapping[K, V | Exception]:
    """The answers of `ask`. If it raises, it is asked about each by itself, so that one user with
    whom the project's own code or the database cannot cope refuses no other."""
    if not questions:
        return {}
    try:
        return {**ask(questions)}
    except Exception as error:
        if passes(error) and not isinstance(error, DataError):
            raise
        if len(questions) == 1:
            return {questions[0]: error}
    found: dict[K, V | Exception] = {}
    for question in questions:
        found.update(_one_by_one((question,), ask))
    return found
