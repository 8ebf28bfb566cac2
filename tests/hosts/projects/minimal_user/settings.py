"""A user model without permissions: AbstractBaseUser alone. There is no admin for it."""

from __future__ import annotations

from base_settings import *  # noqa: F403
from base_settings import INSTALLED_APPS

AUTH_USER_MODEL = "desk.Person"
INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "django.contrib.admin"]
ROOT_URLCONF = "host_urls"
