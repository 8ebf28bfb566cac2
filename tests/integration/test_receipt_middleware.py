"""ReceiptMiddleware: the header comes with what was committed, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

import realtime
from realtime.checks import check_receipts
from realtime.middleware import ActorMiddleware
from tests.zoo.models import Team

pytestmark = pytest.mark.django_db(transaction=True)
HEADER = "Rowcast-Transaction"


def one(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        Team.objects.create(name="a")
        return HttpResponse(realtime.receipt())


def two(request: HttpRequest) -> HttpResponse:
    texts = []
    for name in ("a", "b"):
        with transaction.atomic():
            Team.objects.create(name=name)
            texts.append(realtime.receipt())
            realtime.receipt()
    return HttpResponse(", ".join(texts))


def many(request: HttpRequest) -> HttpResponse:
    for _ in range(40):
        with transaction.atomic():
            last = realtime.receipt()
    return HttpResponse(last)


def none(request: HttpRequest) -> HttpResponse:
    Team.objects.create(name="a")
    return HttpResponse()


def rolled_back(request: HttpRequest) -> HttpResponse:
    try:
        with transaction.atomic():
            realtime.receipt()
            raise ZeroDivisionError
    except ZeroDivisionError:
        return HttpResponse()


def savepoint(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        Team.objects.create(name="a")
        try:
            with transaction.atomic():
                realtime.receipt()
                raise ZeroDivisionError
        except ZeroDivisionError:
            return HttpResponse()


def whole(request: HttpRequest) -> HttpResponse:
    Team.objects.create(name="a")
    return HttpResponse(realtime.receipt())


def fails(request: HttpRequest) -> HttpResponse:
    realtime.receipt()
    raise ZeroDivisionError


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    with transaction.atomic():
        tx = realtime.receipt()

    def content() -> Iterator[str]:
        with transaction.atomic():
            realtime.receipt()
        yield tx

    return StreamingHttpResponse(content())


async def awaited(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(one)(request)


urlpatterns = [
    path(view.__name__, view)
    for view in (one, two, many, none, rolled_back, savepoint, whole, fails, streamed, awaited)
]


@pytest.fixture(autouse=True)
def _middleware(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "realtime.middleware.ReceiptMiddleware"]


def get(name: str) -> Any:
    return Client(raise_request_exception=False).get(f"/{name}")


def test_it_names_the_transaction_that_was_committed() -> None:
    response = get("one")
    assert response[HEADER] == response.content.decode()


def test_of_several_transactions_it_names_all_in_order_and_each_once() -> None:
    response = get("two")
    assert response[HEADER] == response.content.decode()


def test_it_has_a_bound_and_names_the_last_ones() -> None:
    response = get("many")
    assert len(response[HEADER].split(", ")) == 32
    assert response[HEADER].endswith(response.content.decode())


@pytest.mark.parametrize("name", ["none", "rolled_back", "savepoint"])
def test_there_is_none_without_a_receipt_or_after_a_rollback(name: str) -> None:
    response = get(name)
    assert (response.status_code, HEADER in response) == (200, False)


def test_it_comes_with_atomic_requests_unless_the_view_fails(settings: Any) -> None:
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        response = get("whole")
        assert response[HEADER] == response.content.decode()
        assert HEADER not in get("fails")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_a_streaming_response_has_what_was_committed_before_it_began() -> None:
    response = get("streamed")
    assert response[HEADER] == b"".join(response.streaming_content).decode()
    assert "," not in response[HEADER]


async def test_it_works_in_an_async_chain() -> None:
    for name in ("one", "awaited"):
        response = await AsyncClient().get(f"/{name}")
        assert response[HEADER] == response.content.decode()


def test_one_request_does_not_get_what_another_one_took() -> None:
    get("one")
    assert HEADER not in get("none")


def test_outside_of_a_request_a_receipt_is_noted_nowhere() -> None:
    with transaction.atomic():
        assert realtime.receipt()
    assert HEADER not in get("none")


class Derived(ActorMiddleware):
    """A project's own."""


@pytest.mark.parametrize(
    ("middleware", "found"),
    [
        (["realtime.middleware.ReceiptMiddleware"], ["realtime.W018"]),
        (["realtime.middleware.ActorMiddleware"], []),
        (["realtime.middleware.ActorMiddleware", "realtime.middleware.ReceiptMiddleware"], []),
        ([f"{__name__}.Derived", "realtime.middleware.ReceiptMiddleware"], []),
    ],
)
def test_without_a_writer_no_change_has_a_receipt_and_the_check_says_so(
    settings: Any, middleware: list[str], found: list[str]
) -> None:
    settings.MIDDLEWARE = middleware
    assert [message.id for message in check_receipts()] == found
