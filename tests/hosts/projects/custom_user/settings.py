"""A user model of the host's own: a UUID as key, an address to sign in with."""

from __future__ import annotations

from base_settings import *  # noqa: F403

AUTH_USER_MODEL = "desk.Person"
