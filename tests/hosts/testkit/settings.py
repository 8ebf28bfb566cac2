"""A bare project of its own, which has Rowcast installed and tests with its test kit. The database
is SQLite in memory, or what the run asks for."""

from __future__ import annotations

import json
import os

SECRET_KEY = "a-key-of-a-bare-project-that-is-long-enough"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "auth_rls",
    "realtime",
    "desk",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "auth_rls.backends.PolicyBackend",
]
DATABASES = {
    "default": json.loads(os.environ.get("HOST_DATABASE", "null"))
    or {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# A layer that the test run does not have: the kit does without it.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": ["redis://127.0.0.1:1"]},
    }
}
