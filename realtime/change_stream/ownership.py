"""What a subject may know of the writer of a change."""

from __future__ import annotations

from auth_rls.subjects.subject import SERVICE_ROLE, Subject
from realtime.event_log.event import DatabaseEvent


def is_own(event: DatabaseEvent, subject: Subject) -> bool:
    """Whether the subject's own user wrote the change. A user id that names no Django user proves
    nothing: the name of a job may be the same text."""
    return (
        subject.user is not None and event.actor is not None and event.actor == str(subject.user.pk)
    )


def shown_actor(event: DatabaseEvent, subject: Subject) -> str | None:
    """The actor of a change, for the service role and for the writer; None for anybody else."""
    shown = subject.role == SERVICE_ROLE or is_own(event, subject)
    return event.actor if shown else None
