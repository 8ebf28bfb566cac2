from __future__ import annotations

from django.conf import settings
from django.db import models

from realtime import publish


@publish
class Ticket(models.Model):
    id = models.AutoField(primary_key=True, db_column="Ticket No.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, db_column="OWNER", db_constraint=False
    )
    title = models.TextField(db_column="order")

    class Meta:
        managed = False
        db_table = "LegacyTickets"
