"""The how-to pages' models, policies and tests, as apps of one project on the installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import DOCS, blocks

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

SETTINGS = """\
SECRET_KEY = "a-key-of-a-bare-project-that-is-long-enough"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "auth_rls",
    "realtime",
    {apps}
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "auth_rls.backends.PolicyBackend",
]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""


def test_the_models_policies_and_tests_of_the_pages_run(installed: Path, tmp_path: Path) -> None:
    apps = set()
    for page in sorted((DOCS / "how-to").glob("*.md")):
        for block in blocks(page, "python"):
            if not block.title:
                continue
            path = tmp_path / block.title
            path.parent.mkdir(exist_ok=True)
            assert not path.exists(), f"{block}: another page has {block.title}"
            path.write_text(block.text)
            (path.parent / "__init__.py").touch()
            apps.add(path.parent.name)
    assert len(apps) >= 4
    (tmp_path / "settings.py").write_text(
        SETTINGS.format(apps=" ".join(f'"{app}",' for app in sorted(apps)))
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", *sorted(apps)],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(installed)]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    for app in apps:
        assert (tmp_path / app / "tests.py").exists(), f"{app} has no test"
