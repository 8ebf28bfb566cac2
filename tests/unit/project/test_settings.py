"""The settings of the host project: DATABASE_URL, and the keys it does not start without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from realtime_project.settings import PUBLISHED_KEY, database


def test_a_postgresql_url_names_everything() -> None:
    entry = database("postgresql://ada:s%40crET@db.example:5433/my%20app?sslmode=require&pool=1")
    assert entry == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "my app",
        "USER": "ada",
        "PASSWORD": "s@crET",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require", "pool": True},
    }


def test_what_a_postgresql_url_leaves_out_is_left_to_libpq() -> None:
    entry = database("postgres:///app")
    assert (entry["NAME"], entry["USER"], entry["HOST"], entry["PORT"]) == ("app", "", "", "")
    assert entry["OPTIONS"] == {}


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:////srv/app.sqlite3", "/srv/app.sqlite3"), ("sqlite:///app.sqlite3", "app.sqlite3")],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    entry = database(url)
    assert (entry["ENGINE"], entry["NAME"]) == ("django.db.backends.sqlite3", path)
    assert "recursive_triggers=ON" in entry["OPTIONS"]["init_command"]


@pytest.mark.parametrize("url", ["mysql://db/app", "app.sqlite3", "sqlite://host/app"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL begins with"):
        database(url)


def start(**variables: str) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process with these variables."""
    given = {name: text for name, text in os.environ.items() if not name.startswith("DJANGO_")}
    return subprocess.run(
        [sys.executable, "-c", "import realtime_project.settings as s; print(s.AUTH_RLS)"],
        env={**given, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_in_production_it_does_not_start_with_the_key_that_is_published() -> None:
    for key in ({}, {"DJANGO_SECRET_KEY": PUBLISHED_KEY}):
        refused = start(DJANGO_DEBUG="0", **key)
        assert refused.returncode != 0
        assert "DJANGO_SECRET_KEY" in refused.stderr.splitlines()[-1]
    assert start(DJANGO_DEBUG="0", DJANGO_SECRET_KEY="x" * 40).returncode == 0
    assert start().returncode == 0


def test_tokens_have_a_key_of_their_own_where_one_is_given() -> None:
    assert start(ROWCAST_JWT_KEY="k").stdout.strip() == "{'JWT_KEY': 'k'}"
    assert start(ROWCAST_JWT_KEY="").stdout.strip() == "{}"
