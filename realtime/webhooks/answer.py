"""What came of one request.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

EXCERPT = 1_000
"""Characters kept of an answer's body, and of an error."""

_UNPRINTED = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`status` is None where no answer came, and `error` then says what came instead. `seconds` is
    how long it took; `retry_after` the seconds that the receiver asked to wait."""

    status: int | None = None
    error: str = ""
    excerpt: str = ""
    seconds: float = 0.0
    retry_after: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it: any status from 200 to 299."""
        return self.status is not None and 200 <= self.status <= 299

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more requests for ever (410)."""
        return self.status == 410

    @property
    def text(self) -> str:
        """The outcome in a few words."""
        if self.status is None:
            return self.error
        if 300 <= self.status <= 399:
            return f"status {self.status}: redirects are not followed"
        return f"status {self.status}"


def excerpt_of(body: bytes) -> str:
    """The beginning of a body as text that any database stores."""
    return body.decode("utf-8", "replace").translate(_UNPRINTED)[:EXCERPT]
