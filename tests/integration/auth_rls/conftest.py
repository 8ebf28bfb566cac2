"""What tests of policies share."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from auth_rls.policy.declared import DECLARED


@pytest.fixture
def nothing_declared() -> Iterator[None]:
    """No policy is declared in code but what the test declares."""
    with patch.dict(DECLARED, clear=True):
        yield
