"""Rows of handlers, as their runners write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.db.models.functions import Now

from realtime.models import DeadLetter, Handler, LogHead, WalNumber


def handler(name: str, seq: int = 0, **fields: Any) -> Handler:
    """A handler that some process runs, unless the fields say otherwise."""
    running = {"owner": "somebody", "lease": Now() + timedelta(hours=1), "epoch": epoch()}
    return Handler.objects.create(name=name, seq=seq, **{**running, **fields})


def dead_letter(handler: str, seq: int, **fields: Any) -> DeadLetter:
    kept = {
        "epoch": epoch(),
        "change": {"type": "INSERT"},
        "error": "ValueError: no",
        "attempts": 5,
    }
    return DeadLetter.objects.create(handler=handler, seq=seq, **{**kept, **fields})


def epoch() -> str:
    return LogHead.objects.values_list("epoch", flat=True).first() or ""


def age(seconds: float) -> None:
    """All changes are so much older, and all handlers moved so much earlier."""
    WalNumber.objects.update(commit_us=F("commit_us") - int(seconds * 1_000_000))
    Handler.objects.update(moved_at=Now() - timedelta(seconds=seconds))
