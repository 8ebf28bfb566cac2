"""The how-to pages' models, policies and tests, as apps of one project on the installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import DOCS, blocks
from tests.support.redis import Redis

RECIPES = DOCS / "how-to" / "on-every-change.md"
HERE = Path(__file__).resolve().parent

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
RECIPE_SETTINGS = """
DATABASES["default"] |= {{
    "NAME": "db.sqlite3",
    "TEST": {{"NAME": "test.sqlite3"}},
    "OPTIONS": {{"timeout": 20, "transaction_mode": "IMMEDIATE"}},
}}
STREAMS_URL = "{redis}"
KAFKA = "127.0.0.1:9092"
NATS_URL = "nats://127.0.0.1:4222"
SEARCH_URL, SEARCH_KEY = "http://127.0.0.1:7700", "key"
"""


def test_the_models_policies_and_tests_of_the_pages_run(installed: Path, tmp_path: Path) -> None:
    apps = set()
    for page in sorted((DOCS / "how-to").glob("*.md")):
        if page == RECIPES:
            continue
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
    run_tests(tmp_path, installed, apps)
    for app in apps:
        assert (tmp_path / app / "tests.py").exists(), f"{app} has no test"


def test_the_recipes_for_handlers_run(installed: Path, tmp_path: Path, redis: Redis) -> None:
    """In a database file, because handlers have threads of their own. The servers of the recipes
    are clients of the same calls, but for Redis."""
    apps = set()
    for block in blocks(RECIPES, "python"):
        path = tmp_path / block.title
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
        (path.parent / "__init__.py").touch()
        apps.add(path.parent.name)
    tests = {path.stem: path for path in (HERE / "recipes").glob("*.py")}
    shutil.copy(tests.pop("running"), tmp_path)
    assert set(tests) == apps
    for app, path in tests.items():
        shutil.copy(path, tmp_path / app / "tests.py")
    for fake in (HERE / "recipes" / "fakes").glob("*.py"):
        shutil.copy(fake, tmp_path)
    settings = SETTINGS.format(apps=" ".join(f'"{app}",' for app in sorted(apps)))
    (tmp_path / "settings.py").write_text(settings + RECIPE_SETTINGS.format(redis=redis.url))
    run_tests(tmp_path, installed, apps)


def run_tests(folder: Path, installed: Path, apps: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", *sorted(apps)],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(installed)]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
