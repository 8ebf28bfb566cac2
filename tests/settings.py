"""Settings of the test run: the host project's, on a database of its own.

With ROWCAST_TEST_DATABASE=postgresql that is a PostgreSQL server started for the run (or the one
DATABASE_URL names); without, a SQLite file.
"""

from __future__ import annotations

import os
import tempfile

from realtime_project.settings import *  # noqa: F403
from realtime_project.settings import INSTALLED_APPS, database, sqlite
from tests.support.tokens import SECRET_KEY as SECRET_KEY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.zoo"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Tables that policies under test read and that are not published.
AUTH_RLS = {"POLICY_MODELS": ["zoo.Member", "auth.User", "auth.User_groups"]}

# Whatever the environment says: a test that wants Redis asks for it.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

if os.environ.get("ROWCAST_TEST_DATABASE", "sqlite") == "postgresql":
    from tests.support import postgres

    # Runs that share a server keep apart by process; workers of a run by Django's suffix.
    _RUN = os.environ.setdefault("ROWCAST_TEST_RUN", str(os.getpid()))
    DATABASES = {"default": database(postgres.for_this_run())}
    # Nobody can be connected to template0, so workers may copy it at the same time.
    DATABASES["default"]["TEST"] = {"NAME": f"test_rowcast_{_RUN}", "TEMPLATE": "template0"}
else:
    # A file, not memory: the tailer and the servers under test are other connections.
    _NAME = os.path.join(tempfile.mkdtemp(prefix="rowcast-tests-"), "db.sqlite3")
    DATABASES = {"default": sqlite(_NAME)}
    DATABASES["default"]["TEST"] = {"NAME": _NAME.replace("db.", "test.")}
    # What a crash of the machine loses is no matter, and a connection that closes need not wait.
    DATABASES["default"]["OPTIONS"]["init_command"] += "PRAGMA synchronous=OFF;"
