"""What tests of subscriptions share."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject
from tests.support.live_sets import MINE
from tests.support.socket_client import db
from tests.zoo.models import Team


@pytest.fixture
async def people(granted: Any) -> list[Any]:
    """A team and two subjects, who may see the notes of their teams."""

    def make() -> list[Any]:
        granted("view_note", using={"team__in": MINE})
        ada, bob = (User.objects.create_user(name) for name in ("ada", "bob"))
        return [Team.objects.create(name="team"), Subject.from_user(ada), Subject.from_user(bob)]

    return await db(make)
