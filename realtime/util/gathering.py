"""Questions that come while others are being answered are asked together, by the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """Answers questions by calls about many of them, one call at a time. On one event loop.

    A question that comes alone is asked at once. `ask` gets distinct questions, at most `most`; an
    answer that is an exception is raised to those who asked that question.
    """

    def __init__(
        self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]], most: int
    ) -> None:
        self._ask = ask
        self._most = most
        self._one_call = asyncio.Lock()
        # The call that has not begun.
        self._next: _Call[K, V] | None = None

    async def answer(self, question: K) -> V:
        """The answer of a call that begins after this one. Raises what `ask` raises."""
        call = self._next
        if call is None or len(call.questions) >= self._most:
            call = self._next = _Call()
            call.task = asyncio.create_task(self._run(call), name="rowcast-gathering")
            # If all who asked were cancelled, asyncio would log the exception.
            call.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        call.questions[question] = None
        assert call.task is not None
        found = (await asyncio.shield(call.task))[question]
        if isinstance(found, Exception):
            raise found
        return found

    async def _run(self, call: _Call[K, V]) -> Mapping[K, V | Exception]:
        async with self._one_call:
            if self._next is call:
                self._next = None
            return await self._ask(tuple(call.questions))


class _Call(Generic[K, V]):
    __slots__ = ("questions", "task")

    def __init__(self) -> None:
        self.questions: dict[K, None] = {}
        self.task: asyncio.Task[Mapping[K, V | Exception]] | None = None
