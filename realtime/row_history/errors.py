"""What a history cannot tell, and what cannot be undone."""

from __future__ import annotations


class HistoryLost(LookupError):
    """The log cannot tell how a row was: it does not reach so far back, changes in between were not
    captured, or the column was not. The text says which."""


class CannotRevert(ValueError):
    """A row cannot be put back as it was. The text says why; nothing was changed."""
