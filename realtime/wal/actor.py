"""The actor: who writes, as the log records it beside each change.

Owns the actor of the running thread or task. `actor_capture` hands it to the database with each
write. It is a record only: no access is decided by it, but `shown_actor` says who is told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from auth_rls.subjects.subject import AUTHENTICATED, Subject

Author = Callable[[], "str | None"]


class UserName(str):
    """The name by which a user is recorded. That of a job may be the same text, and is no user."""

    __slots__ = ()


def _no_actor() -> None:
    return None


_current: ContextVar[Author] = ContextVar("realtime_actor", default=_no_actor)


@contextmanager
def actor(user: Any) -> Iterator[None]:
    """Record `user` as the actor of all writes in the block.

    `user` is a Django user, who is recorded by primary key; a text, such as the name of a job; or
    None for no actor. Works in sync and async code, and as a decorator. The innermost block counts.

    Raises TypeError for any other value, ValueError for a text with NUL.
    """
    name = actor_name(user)
    with acting(lambda: name):
        yield


@contextmanager
def acting(author: Author) -> Iterator[None]:
    """As `actor`, with a function that is called for the name when something is written."""
    token = _current.set(author)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str | None:
    """The name of the present actor. May query the database, if a lazy user was not read yet."""
    return _current.get()()


def actor_name(user: Any) -> str | None:
    """The text by which `user` is recorded. Raises TypeError for a value that is no actor,
    ValueError for a text with NUL."""
    if user is None or isinstance(user, str):
        name = user or None
    elif hasattr(user, "is_authenticated"):
        named = user.is_authenticated and user.pk is not None
        name = UserName(user.pk) if named else None
    else:
        raise TypeError(
            f"an actor is a Django user, a text or None, not {type(user).__name__} {user!r}"
        )
    if name is not None and "\0" in name:
        raise ValueError("the name of an actor holds no NUL: no database stores it")
    return name


def subject_name(subject: Subject) -> UserName | None:
    """The name by which the writes of a subject are recorded; None for one that is no user. A role
    that is given in place of the user's own, such as service_role, is none."""
    if subject.user_id is None or subject.role != AUTHENTICATED:
        return None
    return UserName(subject.user_id)


def shown_actor(name: str | None, subject: Subject) -> str | None:
    """The actor of a change as the subject is told of it: whole for one to whom row-level security
    does not apply and for the one who wrote; None for anybody else."""
    return name if subject.bypasses_rls or name == subject_name(subject) else None
