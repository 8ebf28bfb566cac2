"""Why a question about a row cannot be answered. Pure."""

from __future__ import annotations


class ExplainError(ValueError):
    """A question that cannot be answered. `field` is the part at fault: user, claims, role,
    token, permission, pk or topic; the text says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
