"""The rows of snapshots that were read and that their clients have not taken yet.

They occupy memory until then, so their bytes are bounded, in all and for one address. At the bound
no snapshot is read, and clients that take no rows get less time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from realtime.util.payer_queue import Payer

_MOST_BYTES = 192 * 1024 * 1024
_MOST_BYTES_EACH = 64 * 1024 * 1024


class UnsentRows:
    """One per process. A read may go beyond the bounds by the rows of one snapshot."""

    def __init__(self, most: int = _MOST_BYTES, each: int = _MOST_BYTES_EACH) -> None:
        self._most = most
        self._each = each
        self._size = 0
        self._of: Counter[str] = Counter()
        self._waiting: set[asyncio.Event] = set()

    @property
    def crowded(self) -> bool:
        """Whether snapshots wait because of these rows."""
        return bool(self._waiting)

    def has_room(self, payer: Payer) -> bool:
        """Whether a snapshot may be read for this payer now."""
        return self._size < self._most and self._of[payer.account] < self._each

    async def room(self, payer: Payer) -> None:
        """Wait until a snapshot may be read for this payer."""
        while not self.has_room(payer):
            freed = asyncio.Event()
            self._waiting.add(freed)
            try:
                await freed.wait()
            finally:
                self._waiting.discard(freed)

    @contextmanager
    def keeping(self, payer: Payer, size: int) -> Iterator[None]:
        """Count rows of so many bytes while the block runs."""
        self._size += size
        self._of[payer.account] += size
        try:
            yield
        finally:
            self._size -= size
            self._of[payer.account] -= size
            if not self._of[payer.account]:
                del self._of[payer.account]
            for freed in tuple(self._waiting):
                freed.set()
