"""The admin's pages under django-unfold, which is a dependency of the tests alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.python import run

SETTINGS = """
from tests.settings import *

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

PAGES = """
import django

django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from auth_rls.models import Policy
from tests.support.policies import policy

call_command("migrate", verbosity=0)
client = Client(headers={"host": "localhost"})
client.force_login(
    get_user_model().objects.create_superuser("root"),
    backend="django.contrib.auth.backends.ModelBackend",
)
made = policy(True, name="Notes of everybody")
for path, text in (
    ("auth_rls/policy/", "Notes of everybody"),
    ("auth_rls/policy/add/", "auth-rls-columns"),
    (f"auth_rls/policy/{made.pk}/change/", "auth-rls-test-button"),
    ("auth_rls/policy/explain/?permission=zoo.view_note", "auth-rls-pick"),
    ("realtime/walentry/", "Published rows"),
    ("realtime/process/", "Servers, tailers and workers"),
):
    answer = client.get(f"/admin/{path}")
    page = answer.content.decode()
    assert answer.status_code == 200 and text in page and "unfold" in page, path
"""


@pytest.mark.slow
def test_the_pages_are_there(tmp_path: Path) -> None:
    (tmp_path / "unfold_settings.py").write_text(SETTINGS)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "DJANGO_SETTINGS_MODULE": "unfold_settings",
        "ROWCAST_TEST_DATABASE": "",
    }
    done = run(["-c", PAGES], cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
