"""An explanation never holds another opinion than the doors, whatever is asked."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings

from auth_rls.explain.askers import Asker
from auth_rls.explain.doors import Question
from auth_rls.explain.questions import answer
from tests.support.note_worlds import CLAIMS, MEMBERS, NOTES, POLICIES, world
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(policies=POLICIES, notes=NOTES, members=MEMBERS, claims=CLAIMS)
def test_the_explanation_and_every_door_say_the_same(
    policies: list[Any], notes: list[Any], members: list[Any], claims: dict[str, Any]
) -> None:
    with transaction.atomic():
        askers = world(policies, notes, members, claims)
        for note in Note.objects.order_by("pk"):
            for subject, user in askers:
                if user is not None and user.pk is not None:
                    user = type(user).objects.get(pk=user.pk)  # without its cached permissions
                found = answer(
                    Asker(subject, user, "somebody"), Question(subject, user, "view", note)
                )
                assert found.agree, (found.explanation, found.doors)
                asked = [door for door in found.doors if door.allowed is not None]
                assert len(asked) >= (2 if user is None else 3)
        transaction.set_rollback(True)
