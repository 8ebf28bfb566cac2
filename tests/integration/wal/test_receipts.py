"""Receipts: the changes of a transaction, known again by who wrote them and by nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError

import realtime
from realtime.event_log.table import read_entries
from realtime.models import Receipt, WalEntry
from realtime.wal.head import begin_epoch
from tests.support.log import number_all
from tests.support.policies import user
from tests.support.vendors import on_sqlite
from tests.zoo.models import Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]


def log() -> list[tuple[str | None, str | None]]:
    """Actor and receipt of each change of a team, in the order of the log."""
    number_all()
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM realtime_wal_relation WHERE table_name = 'zoo_team'")
        relations = {row[0] for row in cursor.fetchall()}
    rows = read_entries(connection, 0, 2**40)
    return [(row.actor, row.tx) for row in rows if row.relation_id in relations]


def test_every_change_of_the_transaction_carries_the_receipt() -> None:
    ada = user()
    with realtime.actor(ada), transaction.atomic():
        team = Team.objects.create(name="a")
        team.name = "b"
        team.save()
        Team.objects.bulk_create([Team(name="c"), Team(name="d")])
        tx = realtime.receipt()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO zoo_team (name) VALUES (%s)", ["e"])
            cursor.executemany("INSERT INTO zoo_team (name) VALUES (%s)", [["f"], ["g"]])
        Team.objects.all().delete()
    assert log() == [(str(ada.pk), tx)] * 13


@pytest.mark.parametrize("taken", ["before", "between", "after", "each time"])
def test_it_may_be_taken_before_between_and_after_the_writes_and_several_times(taken: str) -> None:
    ada = user()
    found = set()
    with realtime.actor(ada), transaction.atomic():
        Note.objects.count()
        if taken in ("before", "each time"):
            found.add(realtime.receipt())
        Team.objects.create(name="a")
        if taken in ("between", "each time"):
            with transaction.atomic():
                found.add(realtime.receipt())
        Team.objects.create(name="b")
        if taken in ("after", "each time"):
            found.add(realtime.receipt())
    (tx,) = found
    assert log() == [(str(ada.pk), tx)] * 2


def test_other_transactions_of_the_same_user_have_none_or_their_own() -> None:
    ada = user()
    texts = []
    with realtime.actor(ada):
        Team.objects.create(name="a")
        for _ in range(2):
            with transaction.atomic():
                Team.objects.count()
                Team.objects.create(name="b")
                texts.append(realtime.receipt())
        with transaction.atomic():
            Team.objects.create(name="c")
        Team.objects.create(name="d")
    assert texts[0] != texts[1]
    assert [tx for _, tx in log()] == [None, *texts, None, None]


def test_a_rollback_leaves_no_receipt() -> None:
    ada = user()
    with realtime.actor(ada):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Team.objects.create(name="never")
            realtime.receipt()
            raise ZeroDivisionError
        with transaction.atomic():
            Team.objects.create(name="a")
    assert log() == [(str(ada.pk), None)]
    assert not Receipt.objects.exists()


def test_a_receipt_that_was_taken_in_a_savepoint_is_void_with_it() -> None:
    ada = user()
    with realtime.actor(ada), transaction.atomic():
        Team.objects.create(name="a")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            void = realtime.receipt()
            raise ZeroDivisionError
        Team.objects.create(name="b")
        assert not Receipt.objects.exists()
        tx = realtime.receipt()
        Team.objects.create(name="c")
    assert tx != void
    assert log() == [(str(ada.pk), tx)] * 3


def test_a_rollback_to_a_savepoint_keeps_a_receipt_from_before_it() -> None:
    ada, bob = user(), user("bob")
    with transaction.atomic():
        with realtime.actor(ada):
            Team.objects.create(name="a")
            tx = realtime.receipt()
        with pytest.raises(ZeroDivisionError), transaction.atomic(), realtime.actor(bob):
            Team.objects.create(name="never")
            assert realtime.receipt() == tx
            raise ZeroDivisionError
        with realtime.actor(bob):
            Team.objects.create(name="b")
        with realtime.actor(ada):
            Team.objects.create(name="c")
    assert log() == [(str(ada.pk), tx), (str(bob.pk), tx), (str(ada.pk), tx)]


def test_several_users_who_write_in_one_transaction_share_it_wherever_it_is_taken() -> None:
    ada, bob = user(), user("bob")
    with transaction.atomic():
        with realtime.actor(ada):
            Team.objects.create(name="a")
        tx = realtime.receipt()
        with realtime.actor(bob):
            Team.objects.create(name="b")
    assert log() == [(str(ada.pk), tx), (str(bob.pk), tx)]


def test_what_names_no_actor_or_a_job_shows_no_receipt() -> None:
    ada = user()
    with transaction.atomic():
        Team.objects.create(name="a")
        realtime.receipt()
    with realtime.actor("nightly import"), transaction.atomic():
        Team.objects.create(name="b")
        realtime.receipt()
    # A job may be called as a user's key is.
    with realtime.actor(str(ada.pk)), transaction.atomic():
        Team.objects.create(name="c")
        realtime.receipt()
    with realtime.actor(ada), transaction.atomic():
        with realtime.actor("a part of it"):
            Team.objects.create(name="d")
        with realtime.actor(None):
            Team.objects.create(name="e")
        realtime.receipt()
    assert [tx for _, tx in log()] == [None] * 5


def test_outside_of_a_transaction_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TransactionManagementError, match=r"within transaction.atomic\(\)"):
        realtime.receipt()


def test_it_is_opaque_and_never_the_same() -> None:
    texts = set()
    for _ in range(20):
        with transaction.atomic():
            texts.add(realtime.receipt())
    assert len(texts) == 20
    assert all(len(text) == 22 for text in texts)


def test_the_id_of_a_transaction_that_comes_again_after_a_restore_brings_no_receipt_along() -> None:
    ada = user()
    with realtime.actor(ada), transaction.atomic():
        Team.objects.create(name="a")
        old = realtime.receipt()
    assert log() == [(str(ada.pk), old)]
    kept = Receipt.objects.get()
    begin_epoch(connection)
    with realtime.actor(ada), transaction.atomic():
        Team.objects.create(name="b")
    number_all()
    ids = list(WalEntry.objects.filter(table_name="zoo_team").order_by("id"))
    # As a restored log has it: both have the same id.
    Receipt.objects.update(txid=ids[-1].txid)
    assert log()[-1] == (str(ada.pk), None)
    with realtime.actor(ada), transaction.atomic():
        Team.objects.create(name="c")
        new = realtime.receipt()
    Receipt.objects.filter(pk=kept.pk).delete()
    Receipt.objects.update(txid=ids[0].txid)
    found = [tx for _, tx in log()]
    assert new not in found[:2]


def test_a_receipt_of_another_server_gives_way_to_that_of_the_same_id_here() -> None:
    ada = user()
    with realtime.actor(ada), transaction.atomic():
        Team.objects.create(name="a")
        txid = WalEntry.objects.filter(table_name="zoo_team").get().txid
        Receipt.objects.create(
            txid=txid, actor=str(ada.pk), text="restored", epoch="other", after_seq=7
        )
        tx = realtime.receipt()
    assert log() == [(str(ada.pk), tx)]


def test_a_name_that_no_index_holds_fails_no_write() -> None:
    from realtime.wal.actor import UserName, acting

    name = UserName("x" * 5_000)
    with acting(lambda: name), transaction.atomic():
        Team.objects.create(name="a")
        realtime.receipt()
    assert log() == [(name, None)]


@on_sqlite
def test_entries_name_their_transaction_on_sqlite_too() -> None:
    with transaction.atomic():
        Team.objects.create(name="a")
        Team.objects.create(name="b")
    Team.objects.create(name="c")
    Team.objects.update(name="d")
    entries = WalEntry.objects.filter(table_name="zoo_team").order_by("id")
    ids: list[Any] = list(entries.values_list("txid", flat=True))
    assert ids[0] == ids[1] is not None
    assert ids[3] == ids[4] == ids[5]
    assert len(set(ids)) == 3
