"""`export_rls` run, and what a role sees with its policies installed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from tests.support.row_security import CLIENT


def export(*options: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("export_rls", *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def differences() -> list[str]:
    """What --check prints, after it exits with 1."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("export_rls", "--check", stdout=out, stderr=io.StringIO())
    assert caught.value.returncode == 1
    return out.getvalue().splitlines()


@contextmanager
def asking(claims: Any) -> Iterator[Any]:
    """A role that owns nothing and bypasses nothing, with these claims."""
    text = claims if isinstance(claims, str) else json.dumps(claims)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_roles WHERE rolname = '{CLIENT}'")
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {CLIENT} NOLOGIN")
        cursor.execute(f"GRANT ALL ON zoo_note TO {CLIENT}")
        cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [text])
        cursor.execute(f"SET LOCAL ROLE {CLIENT}")

        def run(sql: str, *params: Any) -> list[Any]:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

        yield run
        transaction.set_rollback(True)


def seen(claims: Any) -> set[str]:
    with asking(claims) as run:
        return {title for (title,) in run("SELECT title FROM zoo_note")}


def of(user: User) -> dict[str, Any]:
    return {"sub": str(user.pk), "role": "authenticated"}


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
