"""What writers change, and what handlers make of it.

Only `Item` is published. The other tables are written by handlers alone, each in the transaction
that moves its cursor, so they must agree with the log to the last row.
"""

from __future__ import annotations

from django.db import models

from realtime import publish


@publish
class Item(models.Model):
    group = models.IntegerField()
    value = models.IntegerField(default=0)
    text = models.CharField(max_length=200, default="")
    written_ns = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"item {self.pk}"


class Copy(models.Model):
    """An item as the copying handler has it, by the item's id."""

    group = models.IntegerField()
    value = models.IntegerField()
    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return f"copy {self.pk}"


class Tally(models.Model):
    """How many changes a handler counted. A change of it that is lost or doubled shows."""

    name = models.CharField(max_length=100, primary_key=True)
    count = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.count}"


class Step(models.Model):
    """One change that a handler worked on. The ids tell the order; nothing forbids a second row of
    the same change, so that a change done twice is found."""

    handler = models.CharField(max_length=100)
    seq = models.BigIntegerField()
    group = models.IntegerField()
    delivery_id = models.CharField(max_length=200)

    def __str__(self) -> str:
        return f"{self.handler} at {self.seq}"
