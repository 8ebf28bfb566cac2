"""Change detection on PostgreSQL: always yes, because looking at the backlog, a partial index, is
cheap."""

from __future__ import annotations


class AlwaysChanged:
    """Always says yes."""

    def changed(self) -> bool:
        return True

    def forget(self) -> None:
        """Nothing is remembered."""
