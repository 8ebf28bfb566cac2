"""The app of handlers that are tried under failures."""

from __future__ import annotations

from django.apps import AppConfig


class TortureConfig(AppConfig):
    name = "tests.torture"
    label = "torture"
    default_auto_field = "django.db.models.BigAutoField"
