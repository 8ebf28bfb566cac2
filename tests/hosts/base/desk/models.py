"""The published model of a host that says nothing else."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from realtime import publish


@publish
class Ticket(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=100)
