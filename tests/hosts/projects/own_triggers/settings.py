"""A trigger of the host's own that changes the row again after each write."""

from __future__ import annotations

from base_settings import *  # noqa: F403
