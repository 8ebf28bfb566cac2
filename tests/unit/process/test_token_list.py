"""The list of refused tokens, asked by many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from auth_rls.subjects import denylist
from auth_rls.subjects.denylist import token_denylist
from realtime.process import token_list
from realtime.util.hook_threads import THREADS

Tokens = Sequence[Mapping[str, Any]]
Use = Callable[[Callable[[Tokens], list[bool]]], None]


@pytest.fixture
def use() -> Iterator[Use]:
    """Registers a list for the length of a test."""
    used: list[Any] = []

    def register(check: Callable[[Tokens], list[bool]]) -> None:
        used.append(token_denylist(check))

    yield register
    for check in used:
        denylist.forget(check)


async def test_many_who_ask_while_the_list_answers_cost_one_call_and_none_is_refused(
    use: Use,
) -> None:
    calls: list[Tokens] = []
    busy, answers = threading.Semaphore(0), threading.Event()

    def check(tokens: Tokens) -> list[bool]:
        calls.append(tokens)
        busy.release()
        answers.wait(60)
        return [token["sub"] == "thief" for token in tokens]

    use(check)
    first = []
    for _ in range(THREADS):
        first.append(asyncio.create_task(token_list.denied([{"sub": "ada"}])))
        await asyncio.to_thread(busy.acquire)
    names = [*(f"user {number}" for number in range(300)), "thief"]
    more = [asyncio.create_task(token_list.denied([{"sub": name}])) for name in names]
    monitored = asyncio.create_task(token_list.denied([{"sub": "thief"}, {"sub": "ada"}]))
    await asyncio.sleep(0)
    answers.set()
    assert await asyncio.gather(*first) == [[False]] * THREADS
    assert await asyncio.gather(*more) == [*([[False]] * 300), [True]]
    assert await monitored == [True, False]
    assert len(calls) == THREADS + 1


async def test_a_token_for_which_the_list_fails_refuses_no_other(use: Use) -> None:
    use(lambda tokens: [token["jti"] == "stolen" for token in tokens])
    asked: list[dict[str, Any]] = [{"jti": "good"}, {"sub": "without one"}, {"jti": "stolen"}]
    found = await asyncio.gather(*(token_list.denied([token]) for token in asked))
    assert found == [[False], [True], [True]]


async def test_who_stops_waiting_takes_nothing_from_others(use: Use) -> None:
    answers = threading.Event()

    def check(tokens: Tokens) -> list[bool]:
        answers.wait(60)
        return [False] * len(tokens)

    use(check)
    one = asyncio.create_task(token_list.denied([{"sub": "ada"}]))
    other = asyncio.create_task(token_list.denied([{"sub": "bob"}]))
    await asyncio.sleep(0)
    one.cancel()
    answers.set()
    assert await other == [False]
