"""Questions that come while others are answered are asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from realtime.util.gathering import Gathering


class Asked:
    """What is asked, call by call; each call waits until it is let go."""

    def __init__(self, most: int = 100) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.go = asyncio.Event()
        self.gathering: Gathering[int, str] = Gathering(self.ask, most)

    async def ask(self, questions: Sequence[int]) -> Mapping[int, str | Exception]:
        self.calls.append(tuple(questions))
        await self.go.wait()
        return {each: ValueError(each) if each < 0 else str(each) for each in questions}

    async def begun(self, *questions: int) -> list[asyncio.Task[str]]:
        tasks = [asyncio.create_task(self.gathering.answer(each)) for each in questions]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks


async def test_one_alone_is_asked_at_once_and_others_wait_for_the_next_call() -> None:
    asked = Asked()
    tasks = await asked.begun(1)
    assert asked.calls == [(1,)]
    tasks += await asked.begun(2, 3, 2)
    assert asked.calls == [(1,)]
    asked.go.set()
    assert await asyncio.gather(*tasks) == ["1", "2", "3", "2"]
    assert asked.calls == [(1,), (2, 3)]


async def test_a_question_that_is_being_asked_is_asked_again_for_who_comes_later() -> None:
    asked = Asked()
    tasks = await asked.begun(1)
    tasks += await asked.begun(1)
    asked.go.set()
    await asyncio.gather(*tasks)
    assert asked.calls == [(1,), (1,)]


async def test_a_call_is_about_so_many_at_most() -> None:
    asked = Asked(most=2)
    tasks = await asked.begun(*range(5))
    asked.go.set()
    await asyncio.gather(*tasks)
    assert [len(call) for call in asked.calls] == [2, 2, 1]


async def test_an_error_goes_to_who_asked_that_question() -> None:
    asked = Asked()
    asked.go.set()
    tasks = await asked.begun(1, -1)
    assert await tasks[0] == "1"
    with pytest.raises(ValueError, match="-1"):
        await tasks[1]


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    asked = Asked()
    one, other = await asked.begun(1, 2)
    one.cancel()
    asked.go.set()
    assert await other == "2"
