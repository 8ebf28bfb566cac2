"""What a block wrote, told as the stream would tell it, inside a transaction that is never
committed."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction

from auth_rls import Subject
from realtime import actor, receipt
from realtime.testing import captured_changes
from tests.support.policies import permission, policy, user
from tests.support.vendors import on_postgresql
from tests.zoo.models import Member, Note, Seat, Specimen, Team

pytestmark = pytest.mark.django_db


def told(changes: Any) -> list[tuple[str, Any]]:
    return [(change.type, (change.new or change.old or {}).get("title")) for change in changes]


def test_a_block_gives_what_it_wrote_in_order() -> None:
    before = Note.objects.create(title="before")
    with captured_changes() as changes:
        note = Note.objects.create(title="a")
        Note.objects.filter(pk=note.pk).update(title="b")
        before.delete()
    assert told(changes) == [("INSERT", "a"), ("UPDATE", "b"), ("DELETE", "before")]
    insert, update, delete = changes
    assert insert.model is Note and insert.table == "zoo_note" and insert.schema == "public"
    assert insert.pk == note.pk and insert.old is None
    assert update.old["title"] == "a" and update.new["title"] == "b"
    assert delete.new is None and delete.old["title"] == "before"
    assert "title" in insert.columns and [change.seq for change in changes] == [1, 2, 3]


def test_every_kind_of_write_is_there() -> None:
    with captured_changes() as changes:
        Note.objects.bulk_create([Note(title="a"), Note(title="b")])
        with connection.cursor() as cursor:
            cursor.execute("UPDATE zoo_note SET title = 'c' WHERE title = 'b'")
    assert told(changes) == [("INSERT", "a"), ("INSERT", "b"), ("UPDATE", "c")]


def test_what_a_savepoint_took_back_is_not_there() -> None:
    with captured_changes() as changes:
        Note.objects.create(title="kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Note.objects.create(title="gone")
            raise ZeroDivisionError
    assert told(changes) == [("INSERT", "kept")]


def test_two_blocks_do_not_see_each_other() -> None:
    with captured_changes() as outer:
        Note.objects.create(title="a")
        with captured_changes() as inner:
            Note.objects.create(title="b")
    assert told(inner) == [("INSERT", "b")]
    assert told(outer) == [("INSERT", "a"), ("INSERT", "b")]


def test_what_is_not_published_is_not_told() -> None:
    with captured_changes() as changes:
        Member.objects.create(user=user(), team=Team.objects.create(name="t"))
    assert [change.model for change in changes] == [Team]


def test_a_composite_key_is_a_tuple() -> None:
    with captured_changes() as changes:
        Seat.objects.create(pk=(1, 2))
    assert changes[0].pk == (1, 2)


def test_the_actor_is_told() -> None:
    with captured_changes() as changes, actor("import"):
        Note.objects.create(title="a")
    assert changes[0].actor == "import"


def test_a_value_is_as_the_stream_shows_it() -> None:
    with captured_changes() as changes:
        Specimen.objects.create(big=2**62 + 1, duration=None, binary=b"\x01")
    assert changes[0].new["big"] == 2**62 + 1
    assert changes[0].new["binary"] == "01"


def test_without_a_policy_nobody_is_sent_anything_but_the_service_role() -> None:
    ada, root = user(), user("root", is_superuser=True)
    with captured_changes() as changes:
        Note.objects.create(title="a")
    assert changes.delivered_to(ada) == []
    assert changes.delivered_to(AnonymousUser()) == []
    assert told(changes.delivered_to(Subject.service())) == [("INSERT", "a")]
    assert told(changes.delivered_to(root)) == [("INSERT", "a")]


def test_a_policy_decides_by_the_row_after_an_update_and_before_a_delete() -> None:
    policy({"is_public": True})
    with captured_changes() as changes:
        note = Note.objects.create(title="secret")
        Note.objects.filter(pk=note.pk).update(title="shown", is_public=True)
        Note.objects.filter(pk=note.pk).update(title="hidden", is_public=False)
        Note.objects.filter(pk=note.pk).update(is_public=True)
        note.delete()
    sent = changes.delivered_to(AnonymousUser())
    assert told(sent) == [("UPDATE", "shown"), ("UPDATE", "hidden"), ("DELETE", "hidden")]
    assert [change.seq for change in sent] == [2, 4, 5]
    # What it was before, the subject could not see.
    assert sent[0].old == {} and sent[0].new["id"] == sent[0].pk


def test_an_inactive_user_is_sent_nothing() -> None:
    policy(True)
    ada = user(is_active=False)
    with captured_changes() as changes:
        Note.objects.create(title="a")
    assert changes.delivered_to(ada) == []


def test_a_subject_and_its_claims_decide() -> None:
    policy({"title": "$claims.tenant"})
    with captured_changes() as changes:
        Note.objects.create(title="x")
        Note.objects.create(title="y")
    subject = Subject.from_claims({"sub": "7", "role": "authenticated", "tenant": "y"})
    assert told(changes.delivered_to(subject)) == [("INSERT", "y")]


def test_what_is_no_user_is_a_type_error() -> None:
    with captured_changes() as changes:
        Note.objects.create(title="a")
    with pytest.raises(TypeError, match="expected a Subject"):
        changes.delivered_to(None)


MINE = {"team__in": {"select": "team_id", "from": "zoo.Member", "where": {"user": "$user.id"}}}


def test_a_membership_counts_from_its_own_place_in_the_block() -> None:
    policy(MINE)
    ada = user()
    team = Team.objects.create(name="t")
    with captured_changes() as changes:
        Note.objects.create(title="before", team=team)
        member = Member.objects.create(user=ada, team=team)
        Note.objects.create(title="during", team=team)
        member.delete()
        Note.objects.create(title="after", team=team)
    assert told(changes.delivered_to(ada)) == [("INSERT", "during")]


def test_a_membership_of_before_the_block_counts_and_one_of_after_it_does_not() -> None:
    policy(MINE)
    ada, bob = user("ada"), user("bob")
    team = Team.objects.create(name="t")
    member = Member.objects.create(user=ada, team=team)
    with captured_changes() as changes:
        Note.objects.create(title="a", team=team)
    member.delete()
    Member.objects.create(user=bob, team=team)
    assert told(changes.delivered_to(ada)) == [("INSERT", "a")]
    assert changes.delivered_to(bob) == []


def test_a_policy_counts_from_its_own_place_in_the_block() -> None:
    with captured_changes() as changes:
        Note.objects.create(title="before")
        made = policy(True)
        Note.objects.create(title="during")
        made.delete()
        Note.objects.create(title="after")
    assert told(changes.delivered_to(AnonymousUser())) == [("INSERT", "during")]


def test_a_permission_counts_from_its_own_place_in_the_block() -> None:
    policy(True, audience="permission")
    ada = user()
    with captured_changes() as changes:
        Note.objects.create(title="before")
        ada.user_permissions.add(permission("zoo.view_note"))
        Note.objects.create(title="during")
        ada.user_permissions.clear()
        Note.objects.create(title="after")
    assert told(changes.delivered_to(ada)) == [("INSERT", "during")]


def test_a_user_who_is_switched_off_in_the_block_is_sent_nothing_from_there_on() -> None:
    policy(True)
    ada = user()
    with captured_changes() as changes:
        Note.objects.create(title="before")
        User.objects.filter(pk=ada.pk).update(is_active=False)
        Note.objects.create(title="after")
        User.objects.filter(pk=ada.pk).update(is_active=True)
        Note.objects.create(title="later")
    assert told(changes.delivered_to(ada)) == [("INSERT", "before")]


@on_postgresql
def test_a_truncated_table_is_told_to_who_listens() -> None:
    with captured_changes() as changes, connection.cursor() as cursor:
        cursor.execute("TRUNCATE zoo_seat")
    assert [(change.type, change.model) for change in changes] == [("TRUNCATE", Seat)]
    assert [change.type for change in changes.delivered_to(AnonymousUser())] == ["TRUNCATE"]


def test_the_receipt_of_the_block_is_sent_to_its_writer_alone() -> None:
    policy(True)
    ada, bob = user("ada"), user("bob")
    with captured_changes() as changes, actor(ada):
        Note.objects.create(title="a")
        tx = receipt()
        Note.objects.create(title="b")
    assert [change.tx for change in changes.delivered_to(ada)] == [tx, tx]
    for other in (bob, AnonymousUser(), Subject.service()):
        assert [change.tx for change in changes.delivered_to(other)] == [None, None]
    assert [change.tx for change in changes] == [None, None]
