"""Changes for task queues: as JSON, and handed over to a task of Django or Celery.

A task is told by what it can do: `enqueue` is Django's (`django.tasks` and its backport),
`apply_async` is Celery's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from realtime.handling.handled_change import HandledChange

Message = dict[str, Any]


def message(change: HandledChange) -> Message:
    """A change as JSON values: `delivery_id`, `handler`, `type`, `schema`, `table`, `model` (as
    "app.Model"), `pk`, `old`, `new`, `columns`, `changed`, `seq`, `epoch`, `commit_timestamp` and
    `actor`. Decimals, and keys that JSON does not have, such as UUIDs, are texts."""
    model = change.model
    return {
        "delivery_id": change.delivery_id,
        "handler": change.handler,
        "type": change.type,
        "schema": change.schema,
        "table": change.table,
        "model": None if model is None else model._meta.label,
        "pk": _key(change.pk),
        "old": _row(change.old),
        "new": _row(change.new),
        "columns": list(change.columns),
        "changed": list(change.changed),
        "seq": change.seq,
        "epoch": change.epoch,
        "commit_timestamp": change.commit_timestamp,
        "actor": change.actor,
    }


def _key(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_key(part) for part in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _row(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        name: str(value) if isinstance(value, Decimal) else value for name, value in row.items()
    }


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hands changes over to a task: the message of each, or with `batch` a list of them at once.

    Celery's task gets the delivery id, of a list that of its first change, as its `task_id`.
    """

    task: Any
    batch: bool

    def __call__(self, changes: Sequence[HandledChange]) -> None:
        """Raises what the queue raises."""
        messages = [message(change) for change in changes]
        if self.batch:
            self._send(messages, messages[0]["delivery_id"])
            return
        for one in messages:
            self._send(one, one["delivery_id"])

    def _send(self, argument: Message | list[Message], delivery_id: str) -> None:
        if is_celery(self.task):
            self.task.apply_async(args=[argument], task_id=delivery_id)
        else:
            self.task.enqueue(argument)


def is_celery(task: Any) -> bool:
    """Whether it is a task of Celery."""
    return not callable(getattr(task, "enqueue", None)) and callable(
        getattr(task, "apply_async", None)
    )


def hand_over(task: Any, batch: bool) -> HandOver:
    """Raises ImproperlyConfigured for what is no task."""
    if not any(callable(getattr(task, name, None)) for name in ("enqueue", "apply_async")):
        raise ImproperlyConfigured(
            "on_change: task must be a task of django.tasks (with `enqueue`) or of Celery (with "
            f"`apply_async`), not {task!r}."
        )
    return HandOver(task, batch)


def name_of(task: Any) -> str:
    """The path by which a task is known: of Django its `module_path`, of Celery its `name`."""
    for attribute in ("module_path", "name"):
        name = getattr(task, attribute, None)
        if isinstance(name, str) and name:
            return name
    function: Callable[..., object] | None = getattr(task, "func", None)
    named = task if function is None else function
    return f"{named.__module__}.{getattr(named, '__qualname__', type(named).__qualname__)}"
