"""Fixtures of the tests of handlers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from realtime.handling import registry
from realtime.models import DeadLetter, Handler, HandlerDone


@pytest.fixture(autouse=True)
def no_handlers(wal: type) -> Iterator[None]:
    """No handler is known or has a row but those of the test."""
    with registry.isolated():
        yield
    for model in (Handler, HandlerDone, DeadLetter):
        model.objects.all().delete()
