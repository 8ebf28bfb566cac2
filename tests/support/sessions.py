"""Sessions without a socket: made, joined, and their effects read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from realtime.client_limits import Limits
from realtime.event_log.position import Position
from realtime.protocol.serializer import Version
from realtime.session.channel import Channel
from realtime.session.effects import (
    Effect,
    Join,
    Send,
)
from realtime.session.session import Session
from realtime.topics.rights import ALL

AT = Position("e1", 41)


def make(
    version: Version = Version.V2,
    private_only: bool = False,
    waiting: Callable[[], str | None] = lambda: None,
    **limits: Any,
) -> Session:
    return Session(
        version,
        Limits(**limits),
        lambda: AT,
        last_seen=0.0,
        private_only=private_only,
        waiting=waiting,
    )


def text(frame: list[Any]) -> str:
    return json.dumps(frame)


def join_frame(topic: str = "realtime:room", ref: str = "6", **config: Any) -> str:
    return text([ref, ref, topic, "phx_join", {"config": config}])


def frames(effects: list[Effect]) -> list[Any]:
    return [json.loads(effect.frame) for effect in effects if isinstance(effect, Send)]


def of(kind: type, effects: list[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def joined(session: Session, **kwargs: Any) -> tuple[Channel, list[Effect]]:
    (join,) = of(Join, session.receive(join_frame(**kwargs), 0.0))
    return join.channel, answer(session, join.channel)


def answer(session: Session, channel: Channel, problems: Sequence[str] = ()) -> list[Effect]:
    return session.joined(
        channel, problems=problems, expires_at=None, at=AT, rights=ALL, subject="s"
    )


def said(ref: str, event: str = "broadcast", **payload: Any) -> str:
    return text(["6", ref, "realtime:room", event, {"type": "broadcast", **payload}])
