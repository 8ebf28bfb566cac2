"""The REST door: views that cannot be guarded, and installations without the framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory

from auth_rls.models import Policy
from auth_rls.rest import PolicyPermission
from tests.support.note_api import MINE, Asynchronous, note
from tests.support.policies import policy

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.note_api")]

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("url", ["/blind/", "/blind-function/"])
def test_a_view_without_a_queryset_is_not_open(api: APIClient, url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="no queryset"):
        api.get(url)


def test_an_async_handler_that_could_not_be_guarded_is_not_run(ada: User) -> None:
    """REST framework has none of its own; extensions of it do."""
    request = Request(APIRequestFactory().post("/"))
    request.user = ada
    with pytest.raises(ImproperlyConfigured, match="acheck_add"):
        PolicyPermission().has_permission(request, Asynchronous())


def test_a_policy_that_is_switched_off_takes_its_rights_with_it(api: APIClient, ada: User) -> None:
    policy(MINE)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"title": "x"}).status_code == 200
    Policy.objects.filter(permission__codename="change_note").update(enabled=False)
    assert api.patch(f"/notes/{mine.pk}/", {"title": "y"}).status_code == 403


def test_without_rest_framework_everything_else_works() -> None:
    script = """
import sys
sys.modules["rest_framework"] = None
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=[
        "auth_rls", "realtime", "django.contrib.admin", "django.contrib.auth",
        "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages",
    ],
)
django.setup()
import auth_rls, auth_rls.managers, auth_rls.middleware, realtime.middleware
auth_rls.check_add, auth_rls.visible
try:
    import auth_rls.rest
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == (
        "auth_rls.rest needs Django REST framework, which is not installed: "
        'pip install "django-rowcast[drf]"'
    )
