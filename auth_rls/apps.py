"""The auth_rls app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class AuthRlsConfig(AppConfig):
    name = "auth_rls"
    verbose_name = _("Row-level security")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from auth_rls import checks  # noqa: F401  (registers them)

        # Policies declared in code stand in policies.py of any app, as admins do in admin.py.
        autodiscover_modules("policies")
