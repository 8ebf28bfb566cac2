"""Models with a history, for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import models

from realtime import publish
from realtime.models import HistoryEntry, HistoryTable
from realtime.row_history import keeping
from realtime.wal import published

ALIAS = "default"


@contextmanager
def with_history(model: type[models.Model], days: float = 400, **more: Any) -> Iterator[None]:
    """Publishes the model with a history, which is noted as `migrate` does."""
    before = published.declarations[model._meta.label_lower]
    publish(model, history={"days": days}, **more)
    keeping.note(ALIAS, exactly=True)
    try:
        yield
    finally:
        published.declarations[model._meta.label_lower] = before
        HistoryEntry.objects.all().delete()
        HistoryTable.objects.all().delete()


def copy_all() -> int:
    """Copies what is there; how many entries that were."""
    return sum(keeping.copying(ALIAS))
