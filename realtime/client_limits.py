"""What one socket may do, and how often.

Pure. Owns the figures; that they are kept is the session's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from realtime.session.quotas import Rates


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits a session enforces; None switches one off."""

    channels: int | None = 100
    joins_per_second: float | None = 50
    broadcasts_per_second: float | None = 10
    broadcast_burst: float | None = 100
    presence_per_30_seconds: int | None = 30
    payload_bytes: int | None = 65_536
    frame_bytes: int | None = 1_048_576
    private_only: bool = False

    @property
    def rates(self) -> Rates:
        """How often one connection may do what."""
        return Rates.derive(
            joins_per_second=self.joins_per_second,
            channels=self.channels,
            broadcasts_per_second=self.broadcasts_per_second,
            broadcast_burst=self.broadcast_burst,
            presence_per_30_seconds=self.presence_per_30_seconds,
            payload_bytes=self.payload_bytes,
            frame_bytes=self.frame_bytes,
        )
