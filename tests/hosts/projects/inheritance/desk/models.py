from __future__ import annotations

from django.conf import settings
from django.db import models

from realtime import publish


@publish
class Paper(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=100)


class Ticket(Paper):
    urgent = models.BooleanField(default=False)
