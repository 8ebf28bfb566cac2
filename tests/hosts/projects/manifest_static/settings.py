"""Static files collected under names with hashes, those of modules included."""

from __future__ import annotations

from base_settings import *  # noqa: F403

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "storages.Hashed"},
}
