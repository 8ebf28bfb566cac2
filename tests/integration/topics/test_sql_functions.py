"""The functions that SQL written for Supabase calls: what they send, and who may send by them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from realtime.models import Message
from realtime.protocol.serializer import binary_broadcast
from tests.support.postgresql_tables import another, sql
from tests.support.row_security import CLERK
from tests.support.socket_client import db
from tests.support.topics import TOPIC, allow, heard
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")
PRIVATE = {"config": {"private": True}}


def run(action: str, **options: Any) -> str:
    out = StringIO()
    call_command("realtime_functions", action, stdout=out, stderr=out, **options)
    return out.getvalue()


@pytest.fixture
def functions(transactional_db: None) -> Iterator[None]:
    run("install")
    yield
    run("uninstall")
    sql("DROP SCHEMA IF EXISTS realtime CASCADE")


@pytest.fixture
def clerk(functions: None) -> Iterator[str]:
    """A role that may call, and has no rights on the table of messages."""
    sql(f"DROP ROLE IF EXISTS {CLERK}")
    sql(f"CREATE ROLE {CLERK}")
    yield CLERK
    sql(f"DROP OWNED BY {CLERK} CASCADE")
    sql(f"DROP ROLE {CLERK}")


def as_role(role: str, statement: str) -> list[str]:
    """Run it as this role; the warnings it gave."""
    warnings: list[str] = []
    with another() as link:
        link.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
        link.execute(f"SET ROLE {role}")
        link.execute(statement)
    return warnings


def stored() -> list[tuple[Any, ...]]:
    return list(Message.objects.order_by("number").values_list("topic", "event", "private"))


@on_sqlite
def test_on_sqlite_the_command_says_what_to_do_instead() -> None:
    with pytest.raises(CommandError, match=r"are PostgreSQL's.*Insert rows into realtime_message"):
        run("install")


@on_postgresql
async def test_send_reaches_the_private_topic_unless_said_otherwise(
    functions: None, listen: Any
) -> None:
    await db(allow, "receive_broadcast")
    public, private = await listen(), await listen(**PRIVATE)
    await db(sql, "SELECT realtime.send('{\"n\": 1.50}', 'e', 'room')")
    await db(sql, "SELECT realtime.send('{\"n\": 2}', 'e', 'room', false)")
    told = await heard(private)
    assert (told["event"], told["payload"]["n"]) == ("e", 1.5)
    assert uuid.UUID(told["payload"]["id"]) == uuid.UUID(told["meta"]["id"])
    assert "user_id" not in told["meta"]
    assert (await heard(public))["payload"]["n"] == 2
    assert await private.silent()


@on_postgresql
async def test_an_id_of_the_payload_stays_and_what_is_no_object_has_none(
    functions: None, listen: Any
) -> None:
    client = await listen()
    for payload in ('{"id": 7}', "[1, 2]", '"text"', "null", "{}"):
        await db(sql, "SELECT realtime.send(%s::jsonb, 'e', 'room', false)", payload)
    told = [(await heard(client))["payload"] for _ in range(5)]
    assert told[:4] == [{"id": 7}, [1, 2], "text", None]
    assert list(told[4]) == ["id"]


@on_postgresql
async def test_bytes_are_sent_as_bytes(functions: None, listen: Any) -> None:
    await db(allow, "receive_broadcast")
    client = await listen(**PRIVATE)
    await db(sql, r"SELECT realtime.send_binary('\x00ff10', 'e', 'room')")
    frame = await heard(client)
    id_ = str(await db(lambda: Message.objects.get().id))
    assert frame == binary_broadcast(TOPIC, "e", b"\x00\xff\x10", 0, {"id": id_})  # type: ignore[arg-type]


TRIGGER = """
CREATE FUNCTION zoo_tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = '' AS $$
BEGIN
    PERFORM realtime.broadcast_changes(
        'room', TG_OP || '!', TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD
    );
    RETURN NULL;
END $$;
CREATE TRIGGER zoo_tell AFTER INSERT OR UPDATE OR DELETE ON zoo_team
FOR EACH ROW EXECUTE FUNCTION zoo_tell();
"""


@pytest.fixture
def trigger(functions: None) -> Iterator[None]:
    sql(TRIGGER)
    yield
    sql("DROP FUNCTION zoo_tell CASCADE")


@on_postgresql
async def test_a_trigger_written_for_supabase_sends_what_its_clients_expect(
    trigger: None, listen: Any
) -> None:
    await db(allow, "receive_broadcast")
    client = await listen(**PRIVATE)

    def work() -> int:
        team = Team.objects.create(name="one")
        Team.objects.filter(pk=team.pk).update(name="two")
        pk = team.pk
        team.delete()
        with transaction.atomic():
            Team.objects.create(name="rolled back")
            transaction.set_rollback(True)
        return int(pk)

    pk = await db(work)
    told = [await heard(client) for _ in range(3)]
    assert [message["event"] for message in told] == ["INSERT!", "UPDATE!", "DELETE!"]
    one, two = {"id": pk, "name": "one"}, {"id": pk, "name": "two"}
    rows = [(None, one), (one, two), (two, None)]
    for message, (old, new) in zip(told, rows, strict=True):
        payload = message["payload"]
        assert payload.pop("id") == message["meta"]["id"]
        operation = message["event"].rstrip("!")
        assert payload == {
            "schema": "public",
            "table": "zoo_team",
            "operation": operation,
            "record": new,
            "old_record": old,
        }
    assert await client.silent()


@on_postgresql
async def test_a_message_stands_among_the_changes_of_its_transaction(
    functions: None, granted: Any, connect: Any
) -> None:
    await db(granted, "view_note")
    client = await connect()
    await client.listen()

    def work() -> None:
        with transaction.atomic():
            Note.objects.create(title="one")
            sql("SELECT realtime.send('{}', 'between', 'room', false)")
            Note.objects.create(title="two")

    await db(work)
    frames = [await client.receive() for _ in range(3)]
    assert [frame[3] for frame in frames] == ["postgres_changes", "broadcast", "postgres_changes"]


@on_postgresql
@pytest.mark.parametrize(
    "call, words",
    [
        ("'a', 'e', 'DELETE', 't', 's', null, null, 'STATEMENT'", "not for each statement"),
        ("'a', 'e', 'TRUNCATE', 't', 's', null, null", "Unexpected operation type: TRUNCATE"),
        ("'a', 'e', null, 't', 's', null, null", "Unexpected operation type"),
    ],
)
def test_a_trigger_that_is_not_for_rows_is_an_error(functions: None, call: str, words: str) -> None:
    with another() as link, pytest.raises(psycopg.errors.RaiseException, match=words):
        link.execute(f"SELECT realtime.broadcast_changes({call})")
    assert stored() == []


@on_postgresql
@pytest.mark.parametrize(
    "topic, event, words",
    [
        ("", "e", "must not be empty"),
        (None, "e", "must not be empty"),
        ("room", "", "must not be empty"),
        ("room", None, "must not be empty"),
        ("x" * 1_025, "e", "at most 1024 characters"),
        ("room", "x" * 1_025, "at most 1024 characters"),
        ("realtime:room", "e", 'without "realtime:"'),
    ],
)
@pytest.mark.parametrize("function", ["send('{}'", r"send_binary('\x00'"])
def test_a_broadcast_that_cannot_be_sent_is_a_warning_and_fails_no_write(
    functions: None, function: str, topic: Any, event: Any, words: str
) -> None:
    warnings: list[str] = []
    with another() as link, link.transaction():
        link.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
        link.execute("INSERT INTO zoo_team (name) VALUES ('kept')")
        link.execute(f"SELECT realtime.{function}, %s, %s)", [event, topic])
    assert len(warnings) == 1 and words in warnings[0]
    assert stored() == []
    assert Team.objects.get().name == "kept"


@on_postgresql
def test_no_private_at_all_means_private(functions: None) -> None:
    sql("SELECT realtime.send('{}', 'e', 'room', null)")
    assert stored() == [("room", "e", True)]


@on_postgresql
def test_arguments_may_be_named_as_supabase_names_them(functions: None) -> None:
    sql("SELECT realtime.send(topic => 'a', event => 'e', payload => '{}', private => false)")
    sql("SELECT realtime.send_binary(topic => 'b', event => 'e', payload => 'x')")
    sql(
        "SELECT realtime.broadcast_changes(topic_name => 'c', event_name => 'e', new => row(1),"
        " old => null, operation => 'INSERT', table_name => 't', table_schema => 's')"
    )
    assert stored() == [("a", "e", False), ("b", "e", True), ("c", "e", True)]


# --- rights -------------------------------------------------------------------------------------


@on_postgresql
def test_a_call_may_do_no_more_than_an_insert_of_the_same_role(clerk: str) -> None:
    said = as_role(clerk, "SELECT realtime.send('{}', 'e', 'room')")
    assert said == ["The broadcast is not sent: permission denied for table realtime_message"]
    assert stored() == []


@on_postgresql
def test_the_columns_of_a_sender_are_all_that_a_role_needs(clerk: str) -> None:
    columns = "id, topic, event, payload, data, private"
    sql(f"GRANT INSERT ({columns}) ON realtime_message TO {clerk}")
    assert as_role(clerk, "SELECT realtime.send('{}', 'e', 'room')") == []
    assert as_role(clerk, r"SELECT realtime.send_binary('\x00', 'b', 'room')") == []
    assert stored() == [("room", "e", True), ("room", "b", True)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(
            clerk, "INSERT INTO realtime_message (topic, event, user_id) VALUES ('a', 'b', '1')"
        )


@on_postgresql
def test_policies_on_the_table_see_the_topic_that_is_sent_to(clerk: str) -> None:
    sql(f"GRANT INSERT ON realtime_message TO {clerk}")
    sql("ALTER TABLE realtime_message ENABLE ROW LEVEL SECURITY")
    sql(
        f"CREATE POLICY rooms ON realtime_message FOR INSERT TO {clerk}"
        " WITH CHECK (realtime.topic() LIKE 'room:%' AND topic = realtime.topic())"
    )
    try:
        assert as_role(clerk, "SELECT realtime.send('{}', 'e', 'room:1')") == []
        (said,) = as_role(clerk, "SELECT realtime.send('{}', 'e', 'other')")
        assert "row-level security" in said
        assert stored() == [("room:1", "e", True)]
    finally:
        sql("DROP POLICY rooms ON realtime_message")
        sql("ALTER TABLE realtime_message DISABLE ROW LEVEL SECURITY")


@on_postgresql
def test_nothing_of_the_caller_s_session_stands_in_for_what_is_meant(clerk: str) -> None:
    sql(f"GRANT INSERT ON realtime_message TO {clerk}")
    sql(f"GRANT CREATE ON SCHEMA public TO {CLERK}")
    as_role(
        clerk,
        "CREATE TEMP TABLE realtime_message"
        " (id uuid, topic text, event text, payload jsonb, data bytea, private boolean);"
        "CREATE FUNCTION public.gen_random_uuid() RETURNS uuid LANGUAGE sql"
        " AS $$SELECT NULL::uuid$$;"
        "SET search_path = pg_temp, public, pg_catalog;"
        "SELECT realtime.send('{}', 'e', 'room');",
    )
    assert stored() == [("room", "e", True)]


@on_postgresql
def test_the_topic_is_that_of_the_call_and_of_nothing_else(functions: None) -> None:
    with another() as link, link.transaction():
        assert link.execute("SELECT realtime.topic()").fetchone() == (None,)
        link.execute("SELECT realtime.send('{}', 'e', 'room')")
        link.execute("SELECT realtime.send('{}', '', 'room')")
        assert link.execute("SELECT realtime.topic()").fetchone() == (None,)
        link.execute("SET LOCAL realtime.topic TO 'mine'")
        link.execute("SELECT realtime.send('{}', 'e', 'room')")
        assert link.execute("SELECT realtime.topic()").fetchone() == ("mine",)


# --- the command --------------------------------------------------------------------------------


@on_postgresql
def test_install_is_repeatable_and_check_finds_what_was_altered(functions: None) -> None:
    assert run("install") == "Nothing to do.\n"
    assert run("check") == "4 functions as they should be.\n"
    sql("ALTER FUNCTION realtime.send(jsonb, text, text, boolean) SECURITY DEFINER")
    sql("DROP FUNCTION realtime.topic()")
    with pytest.raises(CommandError, match="2 functions are missing or altered"):
        run("check")
    assert run("install") == "2 functions installed.\n"
    assert run("check") == "4 functions as they should be.\n"


@on_postgresql
def test_what_is_not_ours_is_left_alone(transactional_db: None) -> None:
    sql("CREATE SCHEMA realtime")
    sql("CREATE FUNCTION realtime.topic() RETURNS text LANGUAGE sql AS $$SELECT 'theirs'$$")
    try:
        for action in ("install", "check"):
            with pytest.raises(CommandError, match=r"realtime.topic\(\) is there and is not"):
                run(action)
        assert run("uninstall") == "0 functions removed.\n"
        assert sql("SELECT realtime.topic()") == [("theirs",)]
        assert sql("SELECT to_regproc('realtime.send')") == [(None,)]
    finally:
        sql("DROP SCHEMA realtime CASCADE")


@on_postgresql
def test_uninstall_takes_everything_back_and_names_who_still_calls(trigger: None) -> None:
    said = run("uninstall", verbosity=2)
    assert "realtime.send(" in said and "4 functions removed." in said
    assert "Still called by public.zoo_tell" in said
    assert sql("SELECT to_regnamespace('realtime')") == [(None,)]
    with pytest.raises(CommandError, match="4 functions are missing"):
        run("check")


@on_postgresql
def test_a_schema_of_others_keeps_its_grants_and_stays(transactional_db: None) -> None:
    sql("CREATE SCHEMA realtime")
    try:
        run("install")
        granted = "SELECT has_schema_privilege('public', 'realtime', 'USAGE')"
        assert sql(granted) == [(False,)]
        run("uninstall")
        assert sql("SELECT to_regnamespace('realtime')::text") == [("realtime",)]
    finally:
        sql("DROP SCHEMA realtime CASCADE")
