"""A key of two columns."""

from __future__ import annotations

from base_settings import *  # noqa: F403
