"""A user model whose key is one thing in Python ("usr_1") and another in the database (1)."""

from __future__ import annotations

from base_settings import *  # noqa: F403

AUTH_USER_MODEL = "desk.Person"
