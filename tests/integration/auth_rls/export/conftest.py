"""What tests of exported policies share."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from django.db import connection

from auth_rls.models import Policy
from auth_rls.policy.declared import DECLARED


@pytest.fixture
def alone(db: None) -> Iterator[None]:
    """No policies but the test's own, and none of what is checked when a transaction ends: a
    table with checks still to come takes no policy."""
    with patch.dict(DECLARED, clear=True):
        Policy.objects.all().delete()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        yield
