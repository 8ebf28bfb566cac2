"""Ada, Bob, and a client that Ada is signed in with."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.support.policies import user


@pytest.fixture
def ada() -> User:
    return user("ada")


@pytest.fixture
def bob() -> User:
    return user("bob")


@pytest.fixture
def api(ada: User) -> APIClient:
    """Signed in as Ada."""
    client = APIClient()
    client.force_login(ada)
    return client
