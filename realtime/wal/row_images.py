"""Row images made by a query: the bytes that the capture trigger would write for the present row.

Each vendor has its own expressions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.entry import Relation
from realtime.wal.vendor import vendor_of


def expression(alias: str, model: type[models.Model], relation: Relation) -> str:
    """An SQL expression without parameters for the image, as bytes, of a row of the model's table
    under its own name. In a database thread, after `prepare` or inside `printing`.

    Raises UnknownVendor on a database that changes cannot be captured on.
    """
    connection = connections[alias]
    return vendor_of(connection).row_image(connection, model, relation)


def prepare(connection: BaseDatabaseWrapper) -> None:
    """Make values print as they do in the capture triggers, for the rest of the transaction."""
    vendor_of(connection).prepare_images(connection)


def printing(connection: BaseDatabaseWrapper) -> AbstractContextManager[object]:
    """Make values print as they do in the capture triggers, for the queries of the block."""
    return vendor_of(connection).printing(connection)
