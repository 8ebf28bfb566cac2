"""Fixtures of the tests of handlers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.handlers import no_others


@pytest.fixture(autouse=True)
def no_handlers(wal: type) -> Iterator[None]:
    """No handler is known or has a row but those of the test."""
    with no_others():
        yield
