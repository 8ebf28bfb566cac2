"""Settings of the server processes that acceptance tests start: the host project's, with the test
models, the keys that tests sign with, and what a test asks for through the environment."""

from __future__ import annotations

import json
import os

from realtime_project.settings import *  # noqa: F403
from realtime_project.settings import INSTALLED_APPS
from tests.support.layers import layers

DEBUG = False
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.zoo", *os.environ.get("ROWCAST_APPS", "").split()]
if os.environ.get("ROWCAST_SERVES") == "nothing":
    # What only writes for a test need not wait for a server's libraries.
    INSTALLED_APPS.remove("daphne")
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

AUTH_RLS = {"POLICY_MODELS": ["zoo.Member", "auth.User", "auth.User_groups"]}
REALTIME = {
    "API_KEYS": {"sb_publishable_test": "anon", "sb_secret_test": "service_role"},
    **json.loads(os.environ.get("ROWCAST_REALTIME", "{}")),
}

if os.environ.get("ROWCAST_LAYER"):
    CHANNEL_LAYERS = layers(os.environ["ROWCAST_LAYER"], os.environ["REDIS_URL"])

# Everything the server says goes into the file that a test may read.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"all": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["all"], "level": "INFO"},
}
