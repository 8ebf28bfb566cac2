"""Rows as they were: equal to a copy that was made at the time, at every position of the log."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models import F, Q

import realtime
from auth_rls import Subject
from auth_rls.predicates.evaluate import matcher
from realtime.models import LogHead
from realtime.process import pruning
from realtime.row_history.errors import HistoryLost
from realtime.wal.head import begin_epoch
from tests.support.histories import copy_all, with_history
from tests.support.log import number_all
from tests.support.vendors import on_postgresql
from tests.zoo.models import Diner, Member, Note, Specimen, Team

pytestmark = pytest.mark.usefixtures("wal")

FIELDS = [field.attname for field in Note._meta.concrete_fields]
ALL = timedelta(seconds=-1)
SEEDS = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def copy() -> dict[Any, dict[str, Any]]:
    return {row["id"]: row for row in Note.objects.values(*FIELDS)}


def values(instance: Any) -> dict[str, Any]:
    return {name: getattr(instance, name) for name in FIELDS}


def random_write(chance: random.Random) -> None:
    keys = list(Note.objects.values_list("pk", flat=True))
    what = chance.random()
    if what < 0.4 or not keys:
        Note.objects.create(
            title=chance.choice('abcé%"\\'),
            score=chance.choice([None, 1, -2]),
            price=chance.choice([None, Decimal("1.10"), Decimal("9999999999.99")]),
            created=chance.choice([None, datetime(2024, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)]),
            ref=chance.choice([None, UUID(int=7)]),
            is_public=chance.random() < 0.5,
        )
    elif what < 0.75:
        row = Note.objects.filter(pk__in=chance.sample(keys, min(2, len(keys))))
        row.update(title=chance.choice("xyz"), score=chance.choice([None, 3, 4]))
    elif what < 0.85:
        # Another key, which may have been another row's before.
        # The database counts up to none of these.
        free = chance.choice([key for key in range(-40, 0) if key not in keys])
        Note.objects.filter(pk=chance.choice(keys)).update(id=free)
    else:
        Note.objects.filter(pk=chance.choice(keys)).delete()


@SEEDS
def test_every_position_gives_what_was_recorded_there(seed: int) -> None:
    chance = random.Random(seed)
    recorded = {0: copy()}
    for _ in range(30):
        with transaction.atomic():
            for _ in range(chance.choice([1, 1, 2])):
                random_write(chance)
        number_all()
        recorded[realtime.head()] = copy()
    title_x = Q(title="x") | ~Q(score=3)
    for seq, rows in recorded.items():
        found = realtime.as_of(Note.objects.all(), seq)
        assert {row.pk: values(row) for row in found} == rows
        some = realtime.as_of(Note.objects.filter(title_x, id__gte=3), seq)
        assert [row.pk for row in some] == sorted(
            pk
            for pk, row in rows.items()
            if (row["title"] == "x" or row["score"] is None or row["score"] != 3) and pk >= 3
        )


@SEEDS
def test_pruning_and_copying_in_between_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    recorded: dict[int, dict[Any, dict[str, Any]]] = {}
    moments: dict[int, datetime] = {}
    with with_history(Note):
        for _ in range(16):
            random_write(chance)
            number_all()
            recorded[realtime.head()] = copy()
            commit_us = LogHead.objects.get().commit_us
            moments[realtime.head()] = EPOCH + timedelta(microseconds=commit_us)
            if chance.random() < 0.15:
                pruning.prune(ALL)
            elif chance.random() < 0.15:
                copy_all()
        for seq, rows in recorded.items():
            for at in (seq, moments[seq]):
                found = realtime.as_of(Note.objects.all(), at)
                assert {row.pk: values(row) for row in found} == rows
            for pk, row in rows.items():
                if Note.objects.filter(pk=pk).exists():
                    then = realtime.as_of(Note(pk=pk), seq)
                    assert then is None or then.pk != pk or values(then) == row


@SEEDS
def test_a_row_is_followed_through_its_keys(seed: int) -> None:
    chance = random.Random(seed)
    row = Note.objects.create(id=100, title="0")
    number_all()
    recorded = {realtime.head(): values(row)}
    for turn in range(15):
        if chance.random() < 0.5:
            Note.objects.filter(pk=row.pk).update(id=100 + turn)
            row.pk = 100 + turn
            # A row that takes the key which this one left.
            Note.objects.get_or_create(id=100, defaults={"title": "other"})
        Note.objects.filter(pk=row.pk).update(title=str(turn))
        number_all()
        recorded[realtime.head()] = Note.objects.values(*FIELDS).get(pk=row.pk)
    for seq, then in recorded.items():
        found = realtime.as_of(row, seq)
        assert found is not None and values(found) == then
    assert realtime.as_of(row, 0) is None
    titles = [change.new["title"] for change in realtime.history(row)]
    assert "other" not in titles and titles[-1] == "0"


def test_every_kind_of_value_comes_back_as_it_was() -> None:
    specimen = Specimen.objects.create()
    for field in Specimen._meta.concrete_fields:
        value = SAMPLES.get(field.get_internal_type())
        if value is not None and not field.primary_key and field.remote_field is None:
            setattr(specimen, field.attname, value)
    specimen.save()
    number_all()
    then = Specimen.objects.values().get()
    at = realtime.head()
    Specimen.objects.all().delete()
    number_all()
    found = realtime.as_of(specimen, at)
    assert {name: getattr(found, name) for name in then} == then
    (one,) = realtime.as_of(Specimen.objects.all(), at)
    assert {name: getattr(one, name) for name in then} == then


SAMPLES: dict[str, Any] = {
    "BinaryField": b"\x00\xff",
    "BooleanField": True,
    "BigIntegerField": 2**62,
    "CharField": "é\"\\'",
    "DateField": datetime(2024, 2, 29).date(),
    "DateTimeField": datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "DecimalField": Decimal("12.50"),
    "DurationField": timedelta(days=1, microseconds=5),
    "FloatField": 0.1,
    "GenericIPAddressField": "2001:db8::1",
    "IntegerField": -5,
    "JSONField": {"a": [1, 0.5, None, "x"]},
    "SmallIntegerField": 7,
    "TextField": "line\nline",
    "TimeField": datetime(2024, 1, 1, 23, 59, 1).time(),
    "UUIDField": UUID(int=2**100),
}


def changed_note() -> tuple[Note, int]:
    """A note with the title "new", and a position at which it was "old"."""
    row = Note.objects.create(title="old")
    number_all()
    at = realtime.head()
    Note.objects.filter(pk=row.pk).update(title="new")
    number_all()
    return row, at


def test_a_time_means_what_was_committed_by_then() -> None:
    row = Note.objects.create(title="old")
    number_all()
    at = realtime.history(row)[0].commit_timestamp
    assert at is not None
    Note.objects.filter(pk=row.pk).update(title="new")
    number_all()
    moment = datetime.fromisoformat(at)
    assert realtime.as_of(row, moment).title == "old"
    assert realtime.as_of(row, datetime.now(UTC)).title == "new"
    # The clock of a program may be ahead of its database's.
    assert realtime.as_of(row, datetime.now(UTC) + timedelta(seconds=2)).title == "new"
    with pytest.raises(ValueError, match="still to come"):
        realtime.as_of(row, datetime.now(UTC) + timedelta(minutes=5))


@pytest.mark.parametrize("numbered", [True, False])
def test_changes_without_a_number_are_undone_too(numbered: bool) -> None:
    row, at = changed_note()
    with transaction.atomic():
        Note.objects.filter(pk=row.pk).update(title="newer")
        Note.objects.create(title="yet another")
        if numbered:
            assert realtime.as_of(row, at).title == "old"
        assert [found.title for found in realtime.as_of(Note.objects.all(), at)] == ["old"]
        assert [row.title for row in realtime.as_of(Note.objects.all(), at + 1)] == ["new"]


def test_an_instance_of_the_past_is_not_saved() -> None:
    row, at = changed_note()
    then = realtime.as_of(row, at)
    for method in (then.save, then.delete, then.refresh_from_db):
        with pytest.raises(TypeError, match="as it was at an earlier time"):
            method()
    assert Note.objects.get().title == "new"


def test_positions_to_come_are_refused() -> None:
    row, _ = changed_note()
    for at in (99, -1, datetime.now(UTC) + timedelta(days=1)):
        with pytest.raises(ValueError, match=r"to come|numbers from 0 to 2"):
            realtime.as_of(row, at)
    for at in (True, "5", None):
        with pytest.raises(TypeError, match="expected a seq or a datetime"):
            realtime.as_of(row, at)


def test_what_was_pruned_is_lost_and_is_not_guessed() -> None:
    row, at = changed_note()
    pruning.prune(ALL)
    with pytest.raises(HistoryLost, match="from seq 3 on"):
        realtime.as_of(row, at)
    with pytest.raises(HistoryLost, match="from seq 3 on"):
        realtime.as_of(Note.objects.all(), at)
    assert realtime.as_of(row, 2).title == "new"


def test_before_a_new_epoch_nothing_is_known() -> None:
    row, at = changed_note()
    begin_epoch(connection)
    assert realtime.as_of(row, realtime.head()).title == "new"
    Note.objects.filter(pk=row.pk).update(title="newer")
    number_all()
    with pytest.raises(HistoryLost, match="new epoch"):
        realtime.as_of(row, at)
    assert realtime.as_of(row, 2).title == "new"


def test_a_column_that_is_not_published_is_not_known() -> None:
    row, at = changed_note()
    with with_history(Note, exclude=["body"]):
        then = realtime.as_of(row, at)
        assert then.title == "old"
        with pytest.raises(HistoryLost, match=r"body of zoo\.Note is not known"):
            then.body  # noqa: B018
        with pytest.raises(ValueError, match="body: this column is not published"):
            realtime.as_of(Note.objects.filter(body=""), at)


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Note.objects.filter(team__name="a"),
        lambda: Note.objects.filter(title=F("body")),
        lambda: Note.objects.filter(created__year=2024),
        lambda: Note.objects.all()[:5],
        lambda: Note.objects.distinct(),
        lambda: Note.objects.values("title"),
        lambda: Note.objects.annotate(more=F("score") + 1),
        lambda: Note.objects.filter(pk=1).union(Note.objects.filter(pk=2)),
        lambda: Note.objects.order_by("title"),
        lambda: Note.objects.filter(pk__in=Note.objects.filter(pk=1)),
    ],
)
def test_a_queryset_whose_rows_filters_do_not_tell_is_refused(queryset: Callable[[], Any]) -> None:
    changed_note()
    with pytest.raises(ValueError, match=r"this queryset has no condition|sort the list"):
        realtime.as_of(queryset(), 1)


def test_filters_judge_the_rows_as_they_were() -> None:
    row, at = changed_note()
    assert realtime.as_of(Note.objects.filter(title="new"), at) == []
    (then,) = realtime.as_of(Note.objects.filter(title="old"), at)
    assert (then.pk, then.title) == (row.pk, "old")
    assert realtime.as_of(Note.objects.none(), at) == []
    assert realtime.as_of(Note.objects.exclude(title__startswith="o"), at) == []
    assert len(realtime.as_of(Note.objects.filter(title__in=["old", "$x"]), at)) == 1


def test_models_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(LookupError, match="not published"):
        realtime.as_of(Member.objects.all(), 0)
    with pytest.raises(ValueError, match="several tables"):
        realtime.as_of(Diner.objects.all(), 0)
    with pytest.raises(TypeError, match="instance or a queryset"):
        realtime.as_of(Note, 0)


def test_a_subject_sees_rows_as_they_were_by_policies_of_today(
    granted: Callable[..., Any],
) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    shown = Note.objects.create(title="shown", is_public=True)
    before = Note.objects.create(title="hidden before")
    since = Note.objects.create(title="hidden since", is_public=True)
    gone = Note.objects.create(title="gone", is_public=True)
    number_all()
    at = realtime.head()
    Note.objects.filter(pk=before.pk).update(is_public=True)
    Note.objects.filter(pk=since.pk).update(is_public=False)
    Note.objects.filter(pk=gone.pk).delete()
    number_all()
    anybody = Subject.anonymous()
    found = realtime.as_of(Note.objects.all(), at, subject=anybody)
    assert [row.title for row in found] == ["shown", "gone"]
    for row, there in ((shown, True), (before, False), (since, False), (gone, True)):
        row = Note(pk=row.pk or found[-1].pk)
        assert (realtime.as_of(row, at, subject=anybody) is not None) is there


@on_postgresql
def test_an_emptied_table_is_told() -> None:
    row, at = changed_note()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE zoo_note CASCADE")
    number_all()
    with pytest.raises(HistoryLost, match="emptied at seq 3"):
        realtime.as_of(Note.objects.all(), at)
    assert realtime.as_of(row, at).title == "old"
    assert realtime.as_of(row, 3) is None
    assert [change.type for change in realtime.history(row)] == ["TRUNCATE", "UPDATE", "INSERT"]


def test_the_history_of_a_model_outlives_the_log() -> None:
    with with_history(Note):
        row, at = changed_note()
        Team.objects.create(name="other entries")
        number_all()
        pruning.prune(ALL)
        Note.objects.filter(pk=row.pk).update(title="newer")
        number_all()
        assert realtime.as_of(row, at).title == "old"
        assert [row.title for row in realtime.as_of(Note.objects.all(), at + 1)] == ["new"]
        assert [change.type for change in realtime.history(row)] == ["UPDATE", "UPDATE", "INSERT"]
        assert LogHead.objects.get().seq == 4 and copy_all() == 1
        assert [change.seq for change in realtime.history(row)] == [4, 2, 1]


def test_a_row_that_left_its_key_and_is_hidden_today_is_not_shown_under_the_old_one(
    granted: Callable[..., Any],
) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    Note.objects.create(id=10, title="moved and hidden", is_public=True)
    Note.objects.create(id=20, title="moved and shown", is_public=True)
    number_all()
    at = realtime.head()
    Note.objects.filter(pk=10).update(id=11)
    Note.objects.filter(pk=11).update(id=12, is_public=False)
    Note.objects.filter(pk=20).update(id=21)
    number_all()
    anybody = Subject.anonymous()
    found = realtime.as_of(Note.objects.all(), at, subject=anybody)
    assert [(row.pk, row.title) for row in found] == [(20, "moved and shown")]
    assert len(realtime.as_of(Note.objects.all(), at)) == 2
    for key in (10, 11, 12):
        assert realtime.as_of(Note(pk=key), at, subject=anybody) is None
        assert not realtime.history(Note(pk=key), subject=anybody)
    assert realtime.as_of(Note(pk=21), at, subject=anybody).pk == 20
    assert len(realtime.history(Note(pk=21), subject=anybody)) == 2


def test_a_hidden_row_is_not_shown_among_others_that_changed(granted: Callable[..., Any]) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    Note.objects.bulk_create([Note(title=str(n), is_public=True) for n in range(30)])
    number_all()
    at = realtime.head()
    Note.objects.filter(title__in=["3", "4"]).update(is_public=False)
    Note.objects.filter(title__in=["5", "6"]).delete()
    Note.objects.filter(title__in=["7", "8"]).update(title="x")
    number_all()
    found = realtime.as_of(Note.objects.all(), at, subject=Subject.anonymous())
    assert [row.title for row in found] == [str(n) for n in range(30) if n not in (3, 4)]


@on_postgresql
def test_of_an_emptied_table_a_hidden_row_is_answered_as_one_that_never_was(
    granted: Callable[..., Any],
) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    Note.objects.create(title="before", is_public=True)
    number_all()
    at = realtime.head()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE zoo_note CASCADE")
    hidden = Note.objects.create(title="hidden")
    number_all()
    never = Note(pk=hidden.pk + 1_000)
    for row in (hidden, never):
        assert realtime.as_of(row, at, subject=Subject.anonymous()) is None
    with pytest.raises(HistoryLost, match="emptied since"):
        realtime.as_of(never, at)


def test_a_filter_is_put_to_no_changed_row_that_is_hidden(granted: Callable[..., Any]) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    for title, public in (("shown", True), ("hidden", False)):
        Note.objects.create(title=title, is_public=public)
    number_all()
    at = realtime.head()
    Note.objects.update(score=1)
    number_all()
    judged: list[Any] = []

    def counting(predicate: Any) -> Callable[[Any], Any]:
        matches = matcher(predicate)

        def judge(row: Any) -> Any:
            judged.append(row["title"])
            return matches(row)

        return judge

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realtime.row_history.past.matcher", counting)
        found = realtime.as_of(
            Note.objects.filter(title__contains="d"), at, subject=Subject.anonymous()
        )
    assert not found and judged == ["shown"]
