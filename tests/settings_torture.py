"""Settings of the processes whose handlers are tried: those of a server, or of a deployment where
REDIS_URL names a channel layer, with the app of the handlers."""

from __future__ import annotations

from tests.settings_server import *  # noqa: F403
from tests.settings_server import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.torture"]
