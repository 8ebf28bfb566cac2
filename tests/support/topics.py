"""Helpers to send and receive broadcasts in tests."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission

from auth_rls.models import Policy
from tests.support.socket_client import Client

TOPIC = "realtime:room"


def allow(action: str, using: Any = True) -> Policy:
    permission = Permission.objects.get(codename=action, content_type__app_label="realtime")
    name = f"{action} {Policy.objects.count()}"
    return Policy.objects.create(name=name, permission=permission, audience="anyone", using=using)


async def heard(client: Client) -> Any:
    frame = await client.until(lambda f: isinstance(f, bytes) or f[3] == "broadcast")
    return frame if isinstance(frame, bytes) else frame[4]


def sent(event: str, payload: Any) -> dict[str, Any]:
    return {"type": "broadcast", "event": event, "payload": payload}


def one(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"topic": "room", "event": "e", "payload": {"a": 1}, **fields}]}
