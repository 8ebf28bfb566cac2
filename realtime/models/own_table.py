"""The default manager of the log's own tables."""

from __future__ import annotations

from typing import Any

from django.db import models


class NotInFixtures(models.Manager["Any"]):
    """The default manager of the log's own tables, which returns no rows, so that `dumpdata` leaves
    them out. See `realtime.wal.fixtures`."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()
