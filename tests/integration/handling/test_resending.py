"""Dead letters sent again: the handler gets the same change, and the letter goes with success."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from realtime import on_change
from realtime.handling.operations import CannotDo
from realtime.handling.resending import send_again
from realtime.models import DeadLetter, WalEntry
from tests.support.handlers import begun, running, until
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Note, Team


class Broken(Exception):
    """What the handler of these tests raises while it is to fail."""


NOT_YET = Broken("not yet")


def given_up(seen: list[Any], wanted: list[bool], error: BaseException = NOT_YET) -> DeadLetter:
    """The letter of a handler of notes that fails while `wanted` is empty."""

    @on_change(Note, name="letters", on_failure="dead_letter", attempts=1)
    def handle(change: Any) -> None:
        Team.objects.create(name=f"of {change.pk}")
        seen.append(change)
        if not wanted:
            raise error

    with running():
        begun("letters")
        Note.objects.create(title="a", price="1.10")
        return until(DeadLetter.objects.first)


@pytest.mark.django_db(transaction=True)
def test_the_handler_gets_the_change_as_it_was_and_the_letter_goes() -> None:
    seen: list[Any] = []
    wanted: list[bool] = []
    letter = given_up(seen, wanted)
    Note.objects.all().delete()
    wanted.append(True)
    send_again(letter)
    first, again = seen
    assert again.delivery_id == first.delivery_id
    assert (again.type, again.pk, again.new, again.old) == (
        first.type,
        first.pk,
        first.new,
        first.old,
    )
    assert again.new["price"] == Decimal("1.10") and again.model is Note
    assert not DeadLetter.objects.exists()
    assert Team.objects.count() == 1
    assert WalEntry.objects.get(table_name="zoo_team").actor == "handler:letters"


@pytest.mark.django_db(transaction=True)
def test_a_handler_that_fails_again_leaves_nothing_and_the_letter_stays() -> None:
    seen: list[Any] = []
    letter = given_up(seen, [])
    with pytest.raises(CannotDo, match="failed again: Broken: not yet"):
        send_again(letter)
    assert len(seen) == 2
    assert DeadLetter.objects.get() == letter
    assert not Team.objects.exists()


class Unreadable(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (Unreadable(), "failed again: Unreadable$"),
        (SystemExit(3), "failed again: SystemExit: 3"),
        (ValueError("a\udc80b\0"), "failed again: ValueError: a\\?b\ufffd$"),
    ],
    ids=["text", "exit", "surrogate"],
)
def test_whatever_the_handler_raises_is_told_and_the_letter_stays(
    raised: BaseException, told: str
) -> None:
    letter = given_up([], [], raised)
    with pytest.raises(CannotDo, match=told):
        send_again(letter)
    assert DeadLetter.objects.get() == letter


@pytest.mark.django_db(transaction=True)
def test_a_letter_that_went_meanwhile_is_not_sent_twice() -> None:
    seen: list[Any] = []
    wanted: list[bool] = []
    letter = given_up(seen, wanted)
    wanted.append(True)
    send_again(DeadLetter.objects.get())
    with pytest.raises(CannotDo, match="meanwhile"):
        send_again(letter)
    assert len(seen) == 2


@pytest.mark.django_db(transaction=True)
def test_a_letter_of_a_handler_or_model_that_is_gone_says_so() -> None:
    letter = given_up([], [])
    letter.handler = "letter"
    with pytest.raises(CannotDo, match="Did you mean 'letters'"):
        send_again(letter)
    letter.handler = "letters"
    letter.change["model"] = "zoo.Gone"
    with pytest.raises(CannotDo, match=r"no model zoo\.Gone"):
        send_again(letter)


@pytest.mark.django_db(transaction=True)
def test_a_handler_that_hangs_is_given_up_and_the_letter_stays() -> None:
    hangs, let_go = threading.Event(), threading.Event()

    @on_change(Note, name="hangs", on_failure="dead_letter", attempts=1, timeout=0.5)
    def hang(change: Any) -> None:
        if not hangs.is_set():
            raise Broken
        Team.objects.create(name="never")
        let_go.wait(PATIENCE_SECONDS)

    with running():
        begun("hangs")
        Note.objects.create(title="a")
        letter = until(DeadLetter.objects.first)
    hangs.set()
    with pytest.raises(CannotDo, match=r"no end within 0\.5 seconds"):
        send_again(letter)
    assert not Team.objects.exists()
    let_go.set()
    assert DeadLetter.objects.get() == letter


@pytest.mark.django_db(transaction=True)
def test_what_is_left_for_the_commit_may_fail_and_the_letter_goes() -> None:
    ready = threading.Event()

    def fail() -> None:
        raise Broken

    @on_change(Note, name="commits", on_failure="dead_letter", attempts=1)
    def handle(change: Any) -> None:
        if not ready.is_set():
            raise Broken
        transaction.on_commit(fail)

    with running():
        begun("commits")
        Note.objects.create(title="a")
        letter = until(DeadLetter.objects.first)
    ready.set()
    send_again(letter)
    assert not DeadLetter.objects.exists()
