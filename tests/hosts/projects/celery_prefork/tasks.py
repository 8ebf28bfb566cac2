from __future__ import annotations

import os
import threading
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

from celery import Celery, signals
from django.conf import settings

app = Celery("tasks")
app.config_from_object("django.conf:settings", namespace="CELERY")
for folder in ("tasks", "control", "results"):
    (settings.QUEUE / folder).mkdir(parents=True, exist_ok=True)


@signals.worker_init.connect
def use_everything(**kwargs: Any) -> None:
    """The parent is at work before it forks."""
    from desk.models import Ticket

    import auth_rls
    import realtime

    realtime.broadcast("news", "started", {})
    auth_rls.visible(Ticket.objects.all(), auth_rls.Subject.anonymous()).exists()


@app.task
def rename(old: str, new: str) -> tuple[int, int, list[str]]:
    """Rename, and look as the owner does. Returns the process, how many of the new title the owner
    sees, and the threads of Rowcast."""
    from desk.models import Ticket
    from django.db import transaction

    import auth_rls
    import realtime

    ticket = Ticket.objects.get(title=old)
    with transaction.atomic():
        Ticket.objects.filter(pk=ticket.pk).update(title=new)
        realtime.broadcast("news", "renamed", {"title": new})
    seen = auth_rls.visible(Ticket.objects.filter(title=new), ticket.owner).count()
    names = [thread.name for thread in threading.enumerate() if "rowcast" in thread.name]
    return os.getpid(), seen, names
