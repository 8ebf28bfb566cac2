"""What several tests of PostgreSQL's triggers need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql_tables import sql

TOUCH = """
CREATE FUNCTION zoo_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE zoo_thing SET size = coalesce(size, 0) + 1 WHERE size IS NULL;
    RETURN NULL;
END$$
"""


@pytest.fixture
def touch() -> Iterator[None]:
    """The function `zoo_touch`, for triggers of a test's own."""
    sql(TOUCH)
    yield
    sql("DROP FUNCTION zoo_touch CASCADE")
