"""Marks of tests that are about one database, or about none."""

from __future__ import annotations

import pytest
from django.db import connection

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite")
on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")
# Of slow tests in which no statement depends on the database: the run on SQLite has them.
about_no_database = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="about no database, and run on SQLite"
)
