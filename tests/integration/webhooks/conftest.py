"""Fixtures of tests of webhooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from realtime.wal import published


@pytest.fixture
def declarations() -> Iterator[None]:
    """What the test declares is forgotten."""
    kept = dict(published.declarations)
    yield
    published.declarations.clear()
    published.declarations.update(kept)
