"""Limits: how much one client may do in a process, and how often.

Pure. Owns the figures of `REALTIME["LIMITS"]` and their defaults. `conf` reads them from the
settings; sessions, quotas and replays enforce them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one client may do in a process. None switches a limit off."""

    #: WebSocket connections of this process, and of one address among them.
    connections: int | None = None
    connections_per_address: int | None = None
    #: Joined topics of one connection.
    channels_per_connection: int | None = 100
    #: Joins, and handshakes of one address, in the long run.
    joins_per_second: float | None = 50
    #: Broadcasts of one connection: in the long run, and at once.
    broadcasts_per_second: float | None = 50
    broadcast_burst: float | None = 200
    #: Tracks and untracks of one channel.
    presence_per_30_seconds: int | None = 30
    #: Bytes of one broadcast's payload.
    payload_bytes: int | None = 65_536
    #: Bytes of one WebSocket message from a client, and of one HTTP request's body.
    frame_bytes: int | None = 1_048_576
    #: Bytes that wait for one slow client.
    outbox_bytes: int | None = 4_194_304
    #: Rows of one snapshot.
    snapshot_rows: int | None = 10_000
    #: Events of one resume by `since`.
    replay_events: int | None = 100_000
    #: Bytes of what one client tracks about itself.
    presence_meta_bytes: int | None = 4_096
    #: Presences of one topic.
    members_per_topic: int | None = None
    #: Broadcasts of one HTTP request.
    messages_per_post: int | None = 1_000
