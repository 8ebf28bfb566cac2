"""The realtime app: wiring only, no database access."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RealtimeConfig(AppConfig):
    name = "realtime"
    verbose_name = _("Realtime")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from realtime import checks, door, redaction  # noqa: F401  (checks register themselves)
        from realtime.models import Message, PresenceMember
        from realtime.wal import actors, install, registry

        # A message that is deleted later was sent all the same.
        registry.follow(Message, ops=["INSERT"])
        registry.follow(PresenceMember)
        install.connect(self)
        door.connect()
        actors.connect(self)
        # Clients put tokens into the query string, and servers log it.
        redaction.install()
