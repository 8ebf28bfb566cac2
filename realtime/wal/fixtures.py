"""The log's own tables in fixtures: `dumpdata` leaves them out, and `loaddata` ignores them.

They are the log of one database at one time. Anywhere else, an entry, a head or a process from a
fixture would be false. Rows of other tables that a fixture loads are captured like any write.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, models
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_save, pre_save

# Keys that no row has, and that triggers use for no row meanwhile.
_ASIDE = "fixture:"


def connect(sender: Any) -> None:
    """Ignore rows of the tables of this app in fixtures. `sender` is its configuration."""
    from realtime.models.own_table import OwnTable

    for model in sender.get_models():
        if not issubclass(model, OwnTable):
            continue
        for signal, receiver in ((pre_save, _put_aside), (post_save, _remove)):
            signal.connect(receiver, sender=model, dispatch_uid="realtime.wal.fixtures")


def _put_aside(instance: models.Model, raw: bool, **kwargs: Any) -> None:
    """A fixture's row cannot be refused before it is saved, so it is saved under an unused key, and
    then deleted."""
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
        if field.unique and not field.primary_key:
            setattr(instance, field.attname, None if field.null else instance.pk)


def _remove(
    sender: type[models.Model], instance: models.Model, raw: bool, using: str, **kwargs: Any
) -> None:
    from realtime.models import Message, WalEntry
    from realtime.wal.backlog import unnumbered

    if not raw:
        return
    key = str(instance.pk)
    sender._base_manager.using(using).filter(pk=instance.pk).delete()
    if sender is Message:
        # Delete the entry of its INSERT, too.
        entries, parameters = unnumbered(connections[using], "w.id")
        new = RawSQL(entries, parameters)
        theirs = WalEntry.objects.using(using).filter(
            table_name=sender._meta.db_table, pk_text=key, pk__in=new
        )
        theirs.delete()
