"""DATABASE_URL, as the host project reads it."""

from __future__ import annotations

import pytest

from realtime_project.settings import database


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
