"""A change as a handler gets it."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass

from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.change import Change, Model, of_event

_FIELDS = tuple(field.name for field in dataclasses.fields(Change))
# Any UUID would do, as long as it stays the same.
_DELIVERIES = uuid.UUID("6f0a3c4e-3e0d-5d43-9f0e-6d1d6a3a9b52")


@dataclass(frozen=True, slots=True, repr=False)
class HandledChange(Change):
    """A change with the name of its handler, the epoch of the log, and a stable delivery id."""

    handler: str = ""
    epoch: str = ""

    @property
    def delivery_id(self) -> str:
        """A UUID that is the same whenever this handler gets this change: at every attempt, after a
        take-over, and in replays. Made of the handler's name, the epoch and the seq."""
        return str(uuid.uuid5(_DELIVERIES, f"{self.handler} {self.epoch} {self.seq}"))


def handled_change(event: DatabaseEvent, model: Model, handler: str, epoch: str) -> HandledChange:
    """The change that an event is to a handler, as the service role sees it."""
    change = of_event(event, model, actor=event.actor)
    values = {name: getattr(change, name) for name in _FIELDS}
    return HandledChange(**values, handler=handler, epoch=epoch)
