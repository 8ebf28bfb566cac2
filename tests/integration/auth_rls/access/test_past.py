"""Users as they were at an earlier moment."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject
from auth_rls.access.authority import renew_all
from auth_rls.access.past import Past
from auth_rls.access.snapshot import PolicySnapshot
from tests.support.policies import user

pytestmark = pytest.mark.django_db


def test_a_superuser_who_was_created_since_bypassed_nothing_then() -> None:
    root = user("root", is_superuser=True)
    before = PolicySnapshot.load_past(Past({User: {str(root.pk): None}}))
    subject = Subject(role="authenticated", user_id=str(root.pk))
    (then,), (now,) = renew_all([subject], snapshot=before), renew_all([subject])
    assert then is not None and not then.bypasses_rls
    assert now is not None and now.bypasses_rls
