"""Who has used least is served first; who comes and goes gains nothing, and nobody starves."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.util.payer_queue import Payer, PayerQueue

ONE, OTHER = Payer("192.0.2.1", "a"), Payer("192.0.2.2", "b")
COSTS = st.floats(0.5, 2.0)


def served(queue: PayerQueue[str], cost: float = 1.0) -> str:
    """The next request, served at this cost."""
    taken = queue.take()
    assert taken is not None
    account, request = taken
    queue.finish(account, cost)
    return request


def test_a_stranger_comes_next_however_many_requests_one_payer_has() -> None:
    queue = PayerQueue[str]()
    for _ in range(100):
        queue.put(ONE, "many")
    served(queue)
    queue.put(OTHER, "one")
    assert "one" in [served(queue), served(queue)]


def test_who_costs_more_comes_less_often() -> None:
    queue = PayerQueue[str]()
    for _ in range(40):
        queue.put(ONE, "costly")
        queue.put(OTHER, "cheap")
    costs = {"costly": 10.0, "cheap": 1.0}
    order = []
    for _ in range(22):
        account, request = queue.take() or ("", "")
        queue.finish(account, costs[request])
        order.append(request)
    assert order.count("cheap") > 5 * order.count("costly")


def test_names_of_one_account_are_served_in_rotation() -> None:
    queue = PayerQueue[str]()
    for name in ("a", "a", "a", "b", "c"):
        queue.put(Payer(ONE.address, name), name)
    assert [served(queue) for _ in range(5)] == ["a", "b", "c", "a", "a"]


def test_without_an_address_each_name_has_an_account() -> None:
    queue = PayerQueue[str]()
    assert queue.begin(Payer("", "a")) and queue.begin(Payer("", "b"))


def test_one_account_has_one_piece_of_work_at_a_time() -> None:
    queue = PayerQueue[str]()
    assert queue.begin(ONE)
    assert not queue.begin(ONE)
    queue.put(ONE, "next")
    assert not queue.waiting and queue.take() is None
    queue.finish(ONE.account, 1.0)
    assert queue.waiting and served(queue) == "next"


def test_nobody_begins_at_once_while_others_wait() -> None:
    queue = PayerQueue[str]()
    queue.put(ONE, "first")
    assert not queue.begin(OTHER)


def test_a_request_that_is_withdrawn_is_not_served() -> None:
    queue = PayerQueue[str]()
    queue.put(ONE, "withdrawn")
    queue.put(OTHER, "stays")
    queue.withdraw(ONE, "withdrawn")
    queue.withdraw(ONE, "never there")
    queue.withdraw(Payer("192.0.2.3"), "of a stranger")
    assert served(queue) == "stays"
    assert queue.take() is None and not queue.waiting


def test_work_that_does_not_run_cannot_be_finished() -> None:
    with pytest.raises(KeyError):
        PayerQueue[str]().finish("nobody", 1.0)


@given(st.lists(st.tuples(st.booleans(), COSTS), min_size=1, max_size=200))
def test_who_comes_and_goes_is_served_no_more_than_one_that_always_waits(
    steps: list[tuple[bool, float]],
) -> None:
    queue = PayerQueue[str]()
    used = {"waits": 0.0, "comes and goes": 0.0}
    queue.put(ONE, "waits")
    here = False
    for comes, cost in steps:
        if comes and not here:
            queue.put(OTHER, "comes and goes")
            here = True
        account, request = queue.take() or ("", "")
        queue.finish(account, cost)
        used[request] += cost
        if request == "waits":
            queue.put(ONE, "waits")
        else:
            here = False
    assert used["comes and goes"] <= used["waits"] + 2.0


@given(
    behind=st.floats(1.0, 20.0),
    costs=st.lists(COSTS, min_size=100, max_size=100),
)
def test_nobody_starves_among_new_payers_without_end(behind: float, costs: list[float]) -> None:
    queue = PayerQueue[str]()
    new = (Payer(f"new {number}") for number in count())
    queue.put(ONE, "first")
    queue.put(next(new), "new")
    assert served(queue, behind) == "first"
    queue.put(ONE, "second")
    order = []
    for cost in costs:
        queue.put(next(new), "new")
        order.append(served(queue, cost))
    assert "second" in order


@given(st.integers(0, 20), st.lists(COSTS, max_size=100))
def test_accounts_without_work_are_bounded(most: int, costs: list[float]) -> None:
    queue = PayerQueue[str](most)
    assert queue.begin(ONE)
    for number, cost in enumerate(costs):
        # Each has used more than a new one would begin with, since another one is at work.
        payer = Payer(f"guest {number}")
        assert queue.begin(payer)
        queue.finish(payer.account, cost)
        assert len(queue) <= most + 2


def test_accounts_are_forgotten_when_a_new_one_would_begin_with_as_much() -> None:
    queue = PayerQueue[str]()
    for number in range(100):
        queue.put(Payer(f"guest {number}"), "guest")
    for _ in range(100):
        served(queue)
    for _ in range(3):
        queue.put(ONE, "one")
        served(queue)
    assert len(queue) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["put", "take", "end", "drop"])))
)
def test_each_request_is_served_once_and_each_account_runs_one_at_a_time(
    steps: list[tuple[str, str]],
) -> None:
    queue = PayerQueue[int]()
    waiting: dict[int, str] = {}
    running: set[str] = set()
    done: list[int] = []

    def take() -> bool:
        taken = queue.take()
        if taken is not None:
            account, number = taken
            assert waiting.pop(number) == account and account not in running
            running.add(account)
            done.append(number)
        return taken is not None

    for number, (name, step) in enumerate(steps):
        if step == "put":
            waiting[number] = name
            queue.put(Payer(name), number)
        elif step == "drop" and name in waiting.values():
            wanted = next(each for each, of in waiting.items() if of == name)
            del waiting[wanted]
            queue.withdraw(Payer(name), wanted)
        elif step == "take":
            may = bool(set(waiting.values()) - running)
            assert take() == may
        elif step == "end" and running:
            queue.finish(running.pop(), 1.0)
    while waiting or running:
        for account in list(running):
            running.remove(account)
            queue.finish(account, 1.0)
        while take():
            pass
    assert len(set(done)) == len(done)
