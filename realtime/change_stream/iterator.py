"""`iter_changes`: the changes of a model or queryset, for code without an event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from realtime.change_stream import background
from realtime.change_stream.asked import Asked, asked_for
from realtime.change_stream.background import Background
from realtime.change_stream.stream import ChangeStream
from realtime.subscriptions.change import Change
from realtime.subscriptions.seen_change import SeenChange

# Changes that are handed over to the thread of the consumer together.
_TOGETHER = 100


def iter_changes(
    model_or_queryset: Any,
    *,
    subject: Any = None,
    events: str | Iterable[str] = "*",
    filter: str | None = None,
    since: Any = None,
    snapshot: bool = False,
    live: bool = False,
) -> ChangeIterator:
    """As `changes`, for code without an event loop: a management command, a Celery task, a shell.

        for change in realtime.iter_changes(Order, since=last_seq):
            ...

    It has begun when it returns: changes committed after that are among those that come. What runs
    for it in the background ends with `close()`, at the end of a `with` block, and when the
    iterator is forgotten. Ctrl-C interrupts the wait for the next change.

    Raises as `changes` does, what the database raises at the beginning, and RuntimeError on an
    event loop, which it would block.
    """
    return ChangeIterator(
        asked_for(
            model_or_queryset,
            subject=subject,
            events=events,
            filter=filter,
            since=since,
            snapshot=snapshot,
            live=live,
        )
    )


class ChangeIterator(Iterator[Change]):
    """What `iter_changes` returns. It is used in one thread at a time."""

    def __init__(self, asked: Asked) -> None:
        _refuse_a_loop()
        self._stream = stream = ChangeStream(asked)
        self._background = background.enter()
        self._leaving = weakref.finalize(self, _leave, self._background, stream)
        self._ready: deque[tuple[SeenChange, str | None]] = deque()
        self._coming: Future[list[tuple[SeenChange, str | None]]] | None = None
        self._position: str | None = None
        try:
            self._background.submit(_begin(stream)).result()
        except BaseException:
            self.close()
            raise
        self._position = stream.position

    @property
    def position(self) -> str | None:
        """The position "<epoch>:<seq>" behind the last change that was taken, to go on from with
        `since`; None before there is one, and within a snapshot."""
        return self._position

    def __enter__(self) -> ChangeIterator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> ChangeIterator:
        return self

    def __next__(self) -> Change:
        if not self._ready:
            self._ready.extend(self._wait())
        seen, self._position = self._ready.popleft()
        return self._stream.change(seen)

    def close(self) -> None:
        """End it, and wait for what ran for it alone. Any number of times."""
        self._ready.clear()
        self._leaving()
        self._background.join()

    def _wait(self) -> list[tuple[SeenChange, str | None]]:
        if not self._leaving.alive:
            raise StopIteration
        if self._coming is None:
            self._coming = self._background.submit(_some(self._stream))
        coming = self._coming
        try:
            found = coming.result()
        except BaseException:
            if coming.done():
                # Not where the wait was interrupted: what comes then is not lost.
                self._coming = None
                self.close()
            raise
        self._coming = None
        if not found:
            self.close()
            raise StopIteration
        return found


def _refuse_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "iter_changes() would block the event loop: use `async for change in realtime.changes(...)`"
    )


def _leave(here: Background, stream: ChangeStream) -> None:
    background.leave(here, stream.aclose())


async def _begin(stream: ChangeStream) -> None:
    await stream.__aenter__()


async def _some(stream: ChangeStream) -> list[tuple[SeenChange, str | None]]:
    """The next changes, each with the position behind it: one at least, none at the end."""
    try:
        found = [(await stream.take(), stream.position)]
    except StopAsyncIteration:
        return []
    while len(found) < _TOGETHER and (more := stream.take_more()) is not None:
        found.append((more, stream.position))
    return found
