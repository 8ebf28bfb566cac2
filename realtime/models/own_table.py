"""What the tables of the app have in common."""

from __future__ import annotations

from typing import Any

from django.db import models


class NotInFixtures(models.Manager["Any"]):
    """The default manager of the app's tables, which returns no rows, so that `dumpdata` leaves
    them out. See `realtime.wal.fixtures`."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class OwnTable(models.Model):
    """A table of the app itself. A subclass that replaces `objects` repeats `in_fixtures` before
    it: managers of the class come before inherited ones, and the first is the default."""

    in_fixtures = NotInFixtures()
    objects = models.Manager()

    class Meta:
        abstract = True
