"""Changes as JSON, and tasks of Django and Celery that get them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import celery
import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime import on_change
from realtime.handling import registry
from realtime.handling.hand_over import hand_over, message
from realtime.handling.handled_change import HandledChange
from tests.zoo.models import Note


@pytest.fixture(autouse=True)
def none_declared() -> Iterator[None]:
    with registry.isolated():
        yield


def change(seq: int = 7, **more: Any) -> HandledChange:
    new = {"id": 1, "title": "a", "price": Decimal("1.50")}
    values: dict[str, Any] = {
        "type": "INSERT",
        "schema": "public",
        "table": "zoo_note",
        "model": Note,
        "pk": 1,
        "old": None,
        "new": new,
        "columns": tuple(new),
        "seq": seq,
        "handler": "h",
        "epoch": "e",
        **more,
    }
    return HandledChange(**values)


class DjangoTask:
    module_path = "shop.tasks.send_mail"

    def __init__(self) -> None:
        self.got: list[Any] = []

    def enqueue(self, *args: Any) -> None:
        self.got += args


def test_a_message_is_json_and_keeps_every_digit() -> None:
    said = message(change(pk=uuid.UUID(int=5)))
    assert json.loads(json.dumps(said)) == said
    assert said["new"] == {"id": 1, "title": "a", "price": "1.50"}
    assert said["pk"] == str(uuid.UUID(int=5))
    assert (said["model"], said["delivery_id"]) == ("zoo.Note", change().delivery_id)


def test_a_delivery_id_is_of_the_handler_the_epoch_and_the_seq() -> None:
    assert change().delivery_id == change(new={}).delivery_id
    others = [change(8), change(handler="other"), change(epoch="other")]
    assert len({change().delivery_id, *(other.delivery_id for other in others)}) == 4


def test_a_task_of_django_gets_each_message() -> None:
    task = DjangoTask()
    hand_over(task, batch=False)([change(1), change(2)])
    assert task.got == [message(change(1)), message(change(2))]


def test_a_batch_is_one_task_with_a_list() -> None:
    task = DjangoTask()
    hand_over(task, batch=True)([change(1), change(2)])
    assert task.got == [[message(change(1)), message(change(2))]]


def test_a_task_of_celery_gets_the_delivery_id_as_its_id() -> None:
    app = celery.Celery("test", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    got: list[Any] = []

    @app.task(bind=True, name="mail")
    def mail(self: Any, said: Any) -> None:
        got.append((self.request.id, said))

    hand_over(mail, batch=False)([change()])
    assert got == [(change().delivery_id, message(change()))]


def test_a_task_is_declared_in_a_line() -> None:
    task = DjangoTask()
    assert on_change(Note, task=task) is task
    (definition,) = registry.declared()
    assert definition.name == "shop.tasks.send_mail"
    definition.call([change()])
    assert task.got == [message(change())]


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"must be a task of django\.tasks"):
        on_change(Note, task=print)
