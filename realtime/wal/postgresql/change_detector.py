"""Whether anything can have been committed since the last look: the backlog itself is asked, which
is a partial index."""

from __future__ import annotations


class AlwaysChanged:
    """Always says yes."""

    def changed(self) -> bool:
        return True

    def forget(self) -> None:
        """Nothing is remembered."""
