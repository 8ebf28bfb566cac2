"""What every host project has: settings as docs/how-to/install.md says, and a database."""

from __future__ import annotations

import json
import os

SECRET_KEY = os.environ["HOST_SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = [
    "daphne",
    "channels",
    "auth_rls",
    "realtime",
    "desk",
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
    "django.contrib.messages.middleware.MessageMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "auth_rls.backends.PolicyBackend",
]
ROOT_URLCONF = "urls"
ASGI_APPLICATION = "asgi.application"
WSGI_APPLICATION = "wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = os.path.join(os.getcwd(), "static")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def database(name: str = "default") -> dict[str, object]:
    """The settings of one of the project's databases; SQLite or PostgreSQL, as the run asks."""
    given: dict[str, object] = json.loads(os.environ["HOST_DATABASES"])[name]
    if given["ENGINE"] == "django.db.backends.sqlite3":
        given["OPTIONS"] = {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA recursive_triggers=ON;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        }
    return given


DATABASES = {"default": database()}
POSTGRESQL = str(DATABASES["default"]["ENGINE"]).endswith("postgresql")
