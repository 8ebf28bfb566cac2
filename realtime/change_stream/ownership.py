"""What a subject may know of the writer of a change."""

from __future__ import annotations

from auth_rls.subjects.subject import SERVICE_ROLE, Subject
from realtime.event_log.event import DatabaseEvent
from realtime.wal.actor import subject_name


def shown_actor(event: DatabaseEvent, subject: Subject) -> str | None:
    """The actor of a change, for the service role and for the writer; None for anybody else."""
    if subject.role == SERVICE_ROLE and subject.bypasses_rls:
        return event.actor
    name = subject_name(subject)
    return event.actor if name is not None and name == event.actor else None
