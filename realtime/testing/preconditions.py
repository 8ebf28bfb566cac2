"""What must be true before a test can use the kit, and what to do where it is not.

Owns the errors about a test's set-up. Makes the triggers what they should be, because a test
database may have been built in ways that left them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models

from realtime import conf
from realtime.wal import capture, published, triggers
from realtime.wal.published import Published
from realtime.wal.vendor import supported, supports


class SetupError(Exception):
    """A test uses the kit where it cannot work. The text says what to do."""


def capturing() -> str:
    """The alias of the log's database, in which changes are captured from here on: for what the
    policies are now, as after their commit. Inside a transaction that is undone with it.

    Raises SetupError.
    """
    alias = conf.current().DATABASE
    connection = connections[alias]
    if not supports(connection):
        raise SetupError(
            f"The test database {alias!r} is {connection.display_name}, where changes cannot be "
            f"captured: use one of {supported()}."
        )
    if not triggers.log_exists(alias):
        raise SetupError(
            f"The test database {alias!r} has no tables of the log, or old ones: put 'realtime' "
            "into INSTALLED_APPS and build the database anew (pytest --create-db, or manage.py "
            "test without --keepdb)."
        )
    unsettled = [t for t in triggers.status(alias) if t.state is not triggers.State.INSTALLED]
    if unsettled and connection.in_atomic_block:
        # PostgreSQL makes no trigger on a table with checks that wait for the end.
        connection.check_constraints()
    triggers.reconcile(alias)
    return alias


_around = False


@contextmanager
def noting_transaction() -> Iterator[None]:
    """Around a test: whether its thread is inside a transaction is remembered, because async code
    does not see the connections of its thread."""
    global _around
    _around = connections[conf.current().DATABASE].in_atomic_block
    try:
        yield
    finally:
        _around = False


def needs_commits(alias: str) -> None:
    """Raise SetupError inside a transaction: a server sees what is committed."""
    if _around or connections[alias].in_atomic_block:
        raise SetupError(
            "A live client sees what is committed, and this test runs inside a transaction that "
            "never is. With pytest use the fixture transactional_db or "
            "@pytest.mark.django_db(transaction=True); with unittest django.test."
            "TransactionTestCase in place of TestCase. Without commits use captured_changes()."
        )


def published_entry(model: Any) -> Published:
    """The declaration of a published model. Raises SetupError."""
    if not (isinstance(model, type) and issubclass(model, models.Model)):
        raise SetupError(
            f"A change is named by a model class, or by a dict such as {{'table': 'app_task'}}, "
            f"not by {model!r}."
        )
    meant = model._meta.concrete_model or model
    for entry in published.declared():
        if entry.model is meant:
            problem = published.problem(entry)
            if problem is not None:
                raise SetupError(f"{problem.message} {problem.hint}")
            return entry
    known = ", ".join(entry.model._meta.label for entry in published.published())
    raise SetupError(
        f"{model._meta.label} is not published, so no change of it is sent: put @publish on the "
        f"class, or publish({model.__name__}) into AppConfig.ready(). Published are: "
        f"{known or 'none'}."
    )


def model_of(schema: str, table: str) -> type[models.Model] | None:
    """The published model of a table as clients know it; None where there is none."""
    for entry in published.published():
        if capture.table_name_of(entry.model) == (schema, table):
            return entry.model
    return None
