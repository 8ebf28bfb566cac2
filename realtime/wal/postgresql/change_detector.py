"""Change detection on PostgreSQL: always yes, because a look at what is new is cheap."""

from __future__ import annotations


class AlwaysChanged:
    """Always says yes."""

    def changed(self) -> bool:
        return True

    def forget(self) -> None:
        """Nothing is remembered."""
