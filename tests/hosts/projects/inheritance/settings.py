"""A published model that inherits from another in tables of their own."""

from __future__ import annotations

from base_settings import *  # noqa: F403
