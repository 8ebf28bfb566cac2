"""Settings of the server that the browser tests drive: the host project's own, with passwords that
are cheap to check."""

from __future__ import annotations

from realtime_project.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
