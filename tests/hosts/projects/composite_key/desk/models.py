from __future__ import annotations

from django.conf import settings
from django.db import models

from realtime import publish


@publish
class Ticket(models.Model):
    pk = models.CompositePrimaryKey("owner_id", "number")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    number = models.IntegerField()
    title = models.CharField(max_length=100)
