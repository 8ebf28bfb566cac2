"""Who writes, beside each change: in the writer's own transaction, and in nobody else's way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.functional import SimpleLazyObject

import realtime
from realtime.models import WalEntry
from realtime.wal.actor import acting
from realtime.wal.sqlite import triggers as sql
from realtime.wal.sqlite.actor import SqliteActorWrapper
from tests.support.policies import user
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.django_db(transaction=True)


def log(table: str = "zoo_team") -> list[str | None]:
    """The actors of one table's entries, oldest first."""
    entries = WalEntry.objects.filter(table_name=table).order_by("id")
    return list(entries.values_list("actor", flat=True))


@pytest.fixture(autouse=True)
def _forget(transactional_db: None) -> None:
    WalEntry.objects.all().delete()


def test_every_way_of_writing_is_recorded_with_its_actor() -> None:
    ada = user()
    with realtime.actor(ada):
        team = Team.objects.create(name="a")
        team.name = "b"
        team.save()
        Team.objects.update(name="c")
        Team.objects.bulk_create([Team(name="d"), Team(name="e")])
        with connection.cursor() as cursor:
            cursor.execute("/* by hand */ INSERT INTO zoo_team (name) VALUES (%s)", ["f"])
            cursor.executemany("INSERT INTO zoo_team (name) VALUES (%s)", [["g"], ["h"]])
        Team.objects.all().delete()
    assert log() == [str(ada.pk)] * 14


def test_outside_nobody_is_recorded() -> None:
    Team.objects.create(name="a")
    with realtime.actor("somebody"):
        Team.objects.create(name="b")
    Team.objects.create(name="c")
    assert log() == [None, "somebody", None]


def test_in_one_transaction_several_may_write() -> None:
    with transaction.atomic():
        Team.objects.create(name="a")
        with realtime.actor("one"):
            Team.objects.create(name="b")
            with realtime.actor("two"):
                Team.objects.create(name="c")
            with realtime.actor(None):
                Team.objects.create(name="d")
            Team.objects.create(name="e")
        Team.objects.create(name="f")
    Team.objects.create(name="g")
    assert log() == [None, "one", "two", None, "one", None, None]


def test_a_rollback_to_a_savepoint_neither_loses_the_actor_nor_keeps_a_wrong_one() -> None:
    with realtime.actor("one"), transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Team.objects.create(name="never")
            raise ZeroDivisionError
        Team.objects.create(name="a")
        with pytest.raises(ZeroDivisionError), transaction.atomic(), realtime.actor("two"):
            Team.objects.create(name="never")
            raise ZeroDivisionError
        Team.objects.create(name="b")
    assert log() == ["one", "one"]


def test_a_rollback_leaves_the_next_transaction_its_own_actor() -> None:
    with pytest.raises(ZeroDivisionError), realtime.actor("one"), transaction.atomic():
        Team.objects.create(name="never")
        raise ZeroDivisionError
    with transaction.atomic():
        Team.objects.create(name="a")
    with realtime.actor("two"), transaction.atomic():
        Team.objects.create(name="b")
    assert log() == [None, "two"]


def test_an_actor_is_recorded_in_each_of_its_transactions_that_begin_with_a_read() -> None:
    for name in ("a", "b"):
        with realtime.actor("one"), transaction.atomic():
            Team.objects.count()
            Team.objects.create(name=name)
    assert log() == ["one", "one"]


def test_a_failed_write_is_the_writers_own_error_and_no_other() -> None:
    from django.db import IntegrityError

    team = Team.objects.create(name="a")
    with realtime.actor("one"):
        with pytest.raises(IntegrityError):
            Team.objects.create(pk=team.pk, name="b")
        Team.objects.create(name="c")
    assert log() == [None, "one"]


def test_as_a_decorator_it_names_a_job() -> None:
    @realtime.actor("nightly import")
    def job() -> None:
        Team.objects.create(name="a")

    job()
    assert log() == ["nightly import"]


def test_any_text_is_recorded_as_it_is() -> None:
    odd = 'O\'Neil "x" %s \U0001f600' + "é" * 300
    with realtime.actor(odd):
        Team.objects.create(name="a")
    assert log() == [odd]


@pytest.mark.parametrize("nobody", [None, "", AnonymousUser()])
def test_nobody_is_recorded_as_null(nobody: Any) -> None:
    with realtime.actor(nobody):
        Team.objects.create(name="a")
    assert log() == [None]


def test_what_is_no_actor_is_refused() -> None:
    with pytest.raises(TypeError, match="a Django user, a text or None, not int 7"):
        realtime.actor(7).__enter__()
    with pytest.raises(ValueError, match="NUL"):
        realtime.actor("a\0b").__enter__()


def test_reading_asks_nobody_who_it_is() -> None:
    def who() -> str:
        raise AssertionError("asked")

    with acting(who):
        assert list(Team.objects.all()) == []
        with transaction.atomic():
            assert not Team.objects.filter(name="a").exists()


def test_who_cannot_be_told_is_nobody_and_the_write_goes_on(caplog: Any) -> None:
    def who() -> str:
        raise LookupError("no such session")

    with acting(who):
        Team.objects.create(name="a")
    assert log() == [None]
    assert "who writes cannot be told" in caplog.text


def test_finding_out_who_it_is_may_itself_write() -> None:
    def who() -> str:
        Note.objects.create(title="seen")
        return "ada"

    with acting(who):
        Team.objects.create(name="a")
    assert log() == ["ada"]
    assert log("zoo_note") == [None]


async def test_async_code_writes_as_its_actor() -> None:
    ada = await sync_to_async(user)()
    with realtime.actor(ada):
        await Team.objects.acreate(name="a")
    await Team.objects.acreate(name="b")
    assert await sync_to_async(log)() == [str(ada.pk), None]


def test_the_images_and_the_shape_of_the_log_are_what_they_were() -> None:
    with realtime.actor("one"):
        Team.objects.create(pk=71, name="a")
    Team.objects.create(pk=72, name="a")
    one, other = WalEntry.objects.order_by("id")
    assert one.new == other.new.replace("72", "71")
    assert one.relation_id == other.relation_id


@on_sqlite
def test_another_program_writes_as_ever_and_as_nobody() -> None:
    """Without our function the triggers' question is answered by SQLite itself."""
    with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=20)) as other, other:
        other.execute("INSERT INTO zoo_team (name) VALUES ('a')")
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20);"
        "c.execute(\"INSERT INTO zoo_team (name) VALUES ('c')\"); c.commit(); c.close()"
    )
    subprocess.run([sys.executable, "-c", script, connection.settings_dict["NAME"]], check=True)
    assert log() == [None, None]


@on_sqlite
def test_char_means_what_it_means_in_every_number_of_arguments() -> None:
    with connection.cursor() as cursor:
        for count in range(1, 20):
            codes = [97 + place for place in range(count)]
            cursor.execute(f"SELECT char({', '.join(map(str, codes))})")
            assert cursor.fetchone()[0] == "".join(map(chr, codes))
        cursor.execute("SELECT char(97, NULL, -1, 55296, 1114112, 'b', 97, 97, 97, 97, 97, 97, 97)")
        assert cursor.fetchone()[0].endswith("aaaaaaa")


@on_sqlite
@pytest.mark.parametrize("trusted", [True, False])
def test_where_the_schema_is_not_trusted_no_function_of_ours_is_put_into_it(
    caplog: Any, trusted: bool
) -> None:
    """SQLite would take it for an attack, and refuse the write."""

    class Wrapped:
        connection = sqlite3.connect(":memory:")

    codes = sql.ACTOR_CODES
    with closing(Wrapped.connection) as raw:
        raw.execute(f"PRAGMA trusted_schema = {int(trusted)}")
        SqliteActorWrapper(Wrapped).connected()
        found = raw.execute(f"SELECT char({', '.join(map(str, codes))})").fetchone()[0]
    assert found == (None if trusted else "".join(map(chr, codes)))
    assert ("trusted_schema" in caplog.text) is not trusted


@on_postgresql
def test_the_setting_ends_with_the_transaction() -> None:
    with realtime.actor("one"):
        Team.objects.create(name="a")
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('rowcast.actor', true)")
            assert cursor.fetchone()[0] in (None, "")


@on_postgresql
def test_another_program_may_say_who_it_is_with_a_setting() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL rowcast.actor = 'psql'")
        cursor.execute("SELECT 1")
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('rowcast.actor', 'psql', false)")
    try:
        with transaction.atomic():
            Team.objects.create(name="a")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET rowcast.actor")
    assert log() == ["psql"]


@on_postgresql
def test_truncate_has_an_actor_too() -> None:
    with realtime.actor("one"), connection.cursor() as cursor:
        cursor.execute("TRUNCATE zoo_note")
    assert log("zoo_note") == ["one"]


@on_postgresql
def test_a_composed_statement_and_a_block_of_code_have_an_actor_too() -> None:
    from psycopg import sql

    table = sql.Identifier("zoo_team")
    with realtime.actor("one"), connection.cursor() as cursor:
        cursor.execute(sql.SQL("INSERT INTO {} (name) VALUES (%s)").format(table), ["a"])
        # No transaction may be made for what cannot run in one.
        cursor.execute(sql.SQL("VACUUM {}").format(table))
        cursor.execute("DO $$ BEGIN INSERT INTO zoo_team (name) VALUES ('b'); COMMIT; END $$")
        with transaction.atomic():
            cursor.execute("DO $$ BEGIN INSERT INTO zoo_team (name) VALUES ('c'); END $$")
    assert log() == ["one", None, "one"]


# The middleware


def write(request: HttpRequest) -> HttpResponse:
    Team.objects.create(name="a")
    return HttpResponse()


async def write_async(request: HttpRequest) -> HttpResponse:
    await Team.objects.acreate(name="a")
    return HttpResponse()


def read(request: HttpRequest) -> HttpResponse:
    untouched: Any = request.user
    assert isinstance(untouched, SimpleLazyObject)
    return HttpResponse(str(Team.objects.count()))


urlpatterns = [path("write", write), path("async", write_async), path("read", read)]


@pytest.fixture
def views(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def test_a_request_writes_as_its_user(views: None) -> None:
    ada = user()
    client = Client()
    client.get("/write")
    client.force_login(ada)
    client.get("/write")
    assert log() == [None, str(ada.pk)]


async def test_an_async_request_writes_as_its_user(views: None) -> None:
    ada = await sync_to_async(user)()
    client = AsyncClient()
    await client.aforce_login(ada)
    await client.get("/async")
    await client.get("/write")
    assert await sync_to_async(log)() == [str(ada.pk)] * 2


def test_a_request_that_only_reads_does_not_look_at_its_session(views: None) -> None:
    client = Client()
    client.force_login(user())
    response = client.get("/read")
    assert "Cookie" not in response.get("Vary", "")


@pytest.mark.parametrize(
    ("claims", "actor"),
    [
        ({"role": "authenticated", "sub": "elsewhere-7"}, "elsewhere-7"),
        ({"role": "service_role"}, "service_role"),
        ({"role": "anon"}, None),
    ],
)
def test_a_token_writes_as_its_user_id_or_role(
    views: None, claims: dict[str, str], actor: str | None
) -> None:
    from auth_rls.subjects import tokens

    token = tokens.sign({**claims, "exp": 2**40})
    Client().get("/write", headers={"authorization": f"Bearer {token}"})
    assert log() == [actor]
