"""Users of the tests of sockets."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from tests.support.socket_client import db


async def user(name: str, **fields: Any) -> User:
    return await db(User.objects.create_user, name, **fields)
