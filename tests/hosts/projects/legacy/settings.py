"""A table that Django does not manage, with names that only its maker could love."""

from __future__ import annotations

from base_settings import *  # noqa: F403
