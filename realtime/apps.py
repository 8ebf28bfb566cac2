"""The realtime app: wiring only, no database access."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from realtime.util import namesake

# Before anything else of the app is imported.
namesake.refuse()


class RealtimeConfig(AppConfig):
    name = "realtime"
    verbose_name = _("Realtime")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if not apps.is_installed("auth_rls"):
            raise ImproperlyConfigured(
                "Rowcast is two apps: put 'auth_rls' before 'realtime' into INSTALLED_APPS."
            )
        from auth_rls.policy import reach
        from auth_rls.subjects.disconnect import disconnected
        from realtime import checks, redaction  # noqa: F401  (checks register themselves)
        from realtime.models import Message, RandomId, Webhook
        from realtime.ops import static_files
        from realtime.process import early_start, worker_server
        from realtime.row_history import keeping
        from realtime.subscriptions import explain_door
        from realtime.wal import actor_capture, fixtures, published, triggers
        from realtime.wal.vendor import vendor_of
        from realtime.webhooks import handlers, rules

        RandomId.sql_on = lambda connection: vendor_of(connection).random_uuid
        Webhook.problems = staticmethod(rules.problems_of)
        handlers.connect()

        # DELETE is not captured: a message that is deleted later has been sent already.
        published.capture_internally(Message, ops=["INSERT"])
        triggers.connect(self)
        keeping.connect(self)
        explain_door.connect()
        reach.register(published.published_columns)
        actor_capture.connect(self)
        fixtures.connect(self)
        disconnected.connect(_disconnect, dispatch_uid="realtime.disconnect")
        worker_server.install()
        static_files.connect()
        # Clients put tokens into the query string, and servers log it.
        redaction.install()
        # Last: they import what the apps before are ready for.
        autodiscover_modules("handlers")
        early_start.with_the_first_request()


def _disconnect(user_id: str, **_: Any) -> None:
    from realtime.topics.stored import store_disconnect

    store_disconnect(user_id)
