"""The log's own tables in fixtures: `dumpdata` leaves them out, `loaddata` passes them over.

They are the log of one database. In another one, or later in the same, an entry, a head or a
process from a fixture is wrong: what it says was never captured there. What a fixture loads of
other tables is captured like any write.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.signals import post_save, pre_save

# Out of the way of every row there is, and of every row that triggers insert meanwhile.
_ASIDE = "fixture:"


def connect(sender: Any) -> None:
    """Pass over rows of these models that a fixture brings."""
    from realtime.models import LogHead, Message, PresenceMember, Process, WalEntry, WalRelation

    for model in (LogHead, Message, PresenceMember, Process, WalEntry, WalRelation):
        for signal, receiver in ((pre_save, _put_aside), (post_save, _remove)):
            signal.connect(receiver, sender=model, dispatch_uid="realtime.wal.fixtures")


def _put_aside(instance: models.Model, raw: bool, **kwargs: Any) -> None:
    """A fixture's row cannot be refused before it is saved, so it is saved where it is in no other
    row's way."""
    if not raw:
        return
    key = instance._meta.pk
    if isinstance(key, models.CharField):
        instance.pk = f"{_ASIDE}{instance.pk}"[: key.max_length]
    elif isinstance(key, models.SmallIntegerField):
        instance.pk = -1
    else:
        instance.pk = -abs(int(instance.pk or 0)) - 1
    for field in instance._meta.concrete_fields:
        if field.unique and not field.primary_key and field.null:
            setattr(instance, field.attname, None)


def _remove(
    sender: type[models.Model], instance: models.Model, raw: bool, using: str, **kwargs: Any
) -> None:
    from realtime.models import Message, PresenceMember, WalEntry

    if not raw:
        return
    key = str(instance.pk)
    sender._base_manager.using(using).filter(pk=instance.pk).delete()
    if sender in (Message, PresenceMember):
        # Captured as it came and as it went: it was never there.
        entries = WalEntry.objects.using(using)
        entries.filter(table_name=sender._meta.db_table, pk_text=key, seq=None).delete()
