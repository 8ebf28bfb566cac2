"""Fixtures of the tests of handlers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from realtime.handling.definition import HandlerDefinition
from tests.support.handlers import no_others


@pytest.fixture(autouse=True)
def no_handlers(wal: type) -> Iterator[None]:
    """No handler is known or has a row but those of the test."""
    with no_others():
        yield


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(HandlerDefinition, "pause", lambda self, attempts: 0.0)
