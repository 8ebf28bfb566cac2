"""Settings of the project that serves the demo.

Everything that a deployment changes comes from environment variables; without any, this is a
development set-up on SQLite and the in-memory channel layer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
# Everybody can read this key, and so sign tokens and sessions with it.
PUBLISHED_KEY = "insecure-development-key-replace-it-before-you-deploy"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", PUBLISHED_KEY)
if not DEBUG and SECRET_KEY == PUBLISHED_KEY:
    raise ImproperlyConfigured(
        "DJANGO_DEBUG=0 needs a DJANGO_SECRET_KEY of its own: 32 random bytes or more, such as "
        "`openssl rand -hex 32` prints."
    )
# The secret of tokens. Without one they are signed with SECRET_KEY, as sessions are.
AUTH_RLS: dict[str, Any] = (
    {"JWT_KEY": os.environ["ROWCAST_JWT_KEY"]} if os.environ.get("ROWCAST_JWT_KEY") else {}
)
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "daphne",
    "channels",
    "auth_rls",
    "realtime",
    "demo",
    "rest_framework",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "auth_rls.middleware.SubjectMiddleware",
    "realtime.middleware.ActorMiddleware",
    "realtime.middleware.ReceiptMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "auth_rls.backends.PolicyBackend",
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "auth_rls.rest.SubjectAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        *(["rest_framework.renderers.BrowsableAPIRenderer"] if DEBUG else []),
    ],
}

ROOT_URLCONF = "realtime_project.urls"
ASGI_APPLICATION = "realtime_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def sqlite(path: str) -> dict[str, Any]:
    """A database entry for a SQLite file."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            # WAL journal: readers never wait for the writer. recursive_triggers: without it
            # INSERT OR REPLACE deletes rows that no trigger sees.
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA recursive_triggers=ON;"
            ),
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def database(url: str) -> dict[str, Any]:
    """A database entry for `postgresql://user:password@host:port/name?option=value` or
    `sqlite:///path`. Options are libpq's, and `pool=1`: keep connections for reuse, which needs
    psycopg-pool. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc:
        return sqlite(unquote(parts.path).removeprefix("/") or ":memory:")
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("DATABASE_URL begins with postgresql:// or sqlite:///")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if "pool" in options:
        options["pool"] = options["pool"] == "1"
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path).removeprefix("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
    }


DATABASE_URL = os.environ.get("DATABASE_URL", "")
DATABASES = {
    "default": database(DATABASE_URL)
    if DATABASE_URL
    else sqlite(os.environ.get("SQLITE_PATH", str(BASE_DIR / "db.sqlite3")))
}

REDIS_URL = os.environ.get("REDIS_URL", "")
CHANNEL_LAYERS: dict[str, Any] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT", str(BASE_DIR / "var" / "static"))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGIN_URL = "login"
