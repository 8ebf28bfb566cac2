"""Tickets, which their owners may see, and what is not published."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from realtime import publish


@publish
class Ticket(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title


class ArchivedTicket(models.Model):
    """Written by the handler `archive`; not published."""

    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title


class Draft(models.Model):
    """Not published."""

    text = models.TextField()
