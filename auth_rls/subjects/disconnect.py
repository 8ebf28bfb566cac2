"""Ends the connections of a subject in every process.

Owns the signal and whose connections it names. The receivers of the signal find and end them.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

from auth_rls.subjects.resolve import subject_of

#: Sent with `user_id`, a text: connections of this user id must end.
disconnected = Signal()


def disconnect(user_or_subject: Any) -> None:
    """End all sockets and streams of a user or of a subject's user id, in every process.

    Inside a transaction it takes effect on commit. Clients connect again by themselves, and are
    let in again unless their credentials are refused by then: deactivate the user, end the
    session, or list the token first. Raises TypeError for what is no user or subject, and
    ValueError for one without a user id, such as an anonymous one.
    """
    user_id = _user_id(user_or_subject)
    if user_id is None:
        raise ValueError("only a subject with a user id has connections of its own to end")
    disconnected.send(sender=disconnect, user_id=user_id)


def _user_id(who: Any) -> str | None:
    # A user who was just deactivated has no subject any more, but may have connections.
    if hasattr(who, "is_authenticated") and hasattr(who, "pk"):
        key = who.pk if who.is_authenticated else None
    else:
        subject = subject_of(who)
        key = None if subject is None else subject.user_id
    return None if key is None else str(key)
