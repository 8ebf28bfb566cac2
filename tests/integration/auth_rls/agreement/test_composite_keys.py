"""Rows with a composite key: every door finds them, and people name them as the log does."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from auth_rls import PolicyDenied, check_add, check_change, visible
from auth_rls.explain.askers import asker
from auth_rls.explain.errors import ExplainError
from auth_rls.explain.questions import answer, question
from tests.support.policies import permission, policy, user
from tests.zoo.models import Seat

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]


@pytest.fixture
def seats(db: None) -> list[Seat]:
    policy({"taken": False}, on="zoo.view_seat")
    return [
        Seat.objects.create(hall=hall, number=1, taken=taken)
        for hall, taken in ((1, False), (2, True))
    ]


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(
        user("root", is_superuser=True, is_staff=True),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


@pytest.mark.parametrize("spaced", [False, True])
def test_a_row_is_explained_by_its_key_as_a_list(seats: list[Seat], spaced: bool) -> None:
    user("ada")
    who = asker(user="ada")
    for seat, allowed in zip(seats, (True, False), strict=True):
        key = f"[{seat.hall}, 1]" if spaced else f"[{seat.hall},1]"
        found = answer(who, question(who, "zoo.view_seat", key))
        assert (found.allowed, found.agree) == (allowed, True)
        assert found.pk == f"[{seat.hall},1]"
        asked = {door.door for door in found.doors if door.allowed is not None}
        assert asked == {"stream", "queryset", "has_perm", "REST"}


@pytest.mark.parametrize("key", ["1", "[1]", "[1,1,1]", '["x",1]', "[1,2]", "{}", "[[1],1]", ""])
def test_a_key_that_names_no_row_is_refused_with_the_right_form(
    seats: list[Seat], key: str
) -> None:
    with pytest.raises(ExplainError, match="JSON list of hall, number"):
        question(asker(role="anon"), "zoo.view_seat", key)


def test_the_command_takes_the_key_of_the_log(seats: list[Seat]) -> None:
    out = io.StringIO()
    asked = ("--role", "anon", "--permission", "zoo.view_seat", "--pk")
    call_command("explain_rls", *asked, "[1,1]", stdout=out)
    assert "zoo.Seat [1,1]" in out.getvalue()
    with pytest.raises(CommandError, match="JSON list of hall, number"):
        call_command("explain_rls", *asked, "1", stdout=out)


def test_the_admin_explains_and_tries_policies_on_such_rows(
    admin: Client, seats: list[Seat]
) -> None:
    asked = {"user": "", "claims": "", "permission": "zoo.view_seat", "pk": "[1, 1]"}
    page = admin.get("/admin/auth_rls/policy/explain/", asked)
    assert "Allowed" in page.content.decode()
    form = {
        "name": "Edited",
        "permission": str(permission("zoo.view_seat").pk),
        "audience": "anyone",
        "mode": "permissive",
        "enabled": "on",
        "using": json.dumps({"hall": 2}),
        "with_check": "",
        "test_user": "",
    }
    page = admin.post("/admin/auth_rls/policy/test/", form).content.decode()
    assert "seat 1 of hall 2" in page and "errornote" not in page


def test_writes_of_such_rows_are_judged(seats: list[Seat]) -> None:
    ada: Any = user("ada")
    policy(with_check={"hall__in": [1, 3]}, on="zoo.add_seat")
    policy({"taken": False}, with_check=True, on="zoo.change_seat")
    check_add(Seat(hall=3, number=1), ada)
    for seat in (Seat(hall=1, number=1), Seat(hall=2, number=2)):
        with pytest.raises(PolicyDenied):
            check_add(seat, ada)
    check_change(seats[0], ada)
    with pytest.raises(PolicyDenied):
        check_change(seats[1], ada)
    assert not ada.has_perm("zoo.view_seat", Seat(hall=1))
    assert list(visible(Seat.objects.all(), ada)) == [seats[0]]
