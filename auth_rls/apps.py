"""The auth_rls app."""

from __future__ import annotations

from django.apps import AppConfig
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class AuthRlsConfig(AppConfig):
    name = "auth_rls"
    verbose_name = _("Row-level security")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from auth_rls import checks  # noqa: F401  (registers them)
        from auth_rls.sql import sqlite_functions, stored_types

        connection_created.connect(
            sqlite_functions.install, dispatch_uid="auth_rls.sqlite_functions"
        )
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                sqlite_functions.install(connection=connection)

        post_migrate.connect(stored_types.forget, dispatch_uid="auth_rls.stored_types")

        # Policies declared in code stand in policies.py of any app, as admins do in admin.py.
        autodiscover_modules("policies")
