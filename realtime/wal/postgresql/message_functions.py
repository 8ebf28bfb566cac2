"""The text of the functions that SQL written for Supabase calls. Never talks to a database.

All run with the caller's rights (SECURITY INVOKER), so that none allows more than an INSERT into
`realtime_message` would: the caller's privileges on the table decide, column by column, and its row
security. A function with its owner's rights would send for every role that may run SQL. The INSERT
names only the columns that a sender may choose, so that a role can be granted those alone;
`user_id` is not one of them.

The search path is fixed, with the temporary schema last, so that no table, function or operator of
the caller's session is used instead.

A broadcast that cannot be stored is a warning, as in Supabase: it must not fail the write of the
trigger that sends it. An error that ends the transaction anyway, such as a deadlock, is raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SCHEMA = "realtime"

_SEND = """
DECLARE
    message_id uuid := gen_random_uuid();
    outer_topic text := coalesce(current_setting('realtime.topic', true), '');
BEGIN
    IF coalesce(topic, '') = '' OR coalesce(event, '') = '' THEN
        RAISE WARNING 'The broadcast is not sent: its topic and its event must not be empty.';
        RETURN;
    ELSIF length(topic) > {longest_topic} OR length(event) > {longest_event} THEN
        RAISE WARNING 'The broadcast is not sent: a topic has at most % characters, an event %.',
            {longest_topic}, {longest_event};
        RETURN;
    ELSIF starts_with(topic, 'realtime:') THEN
        RAISE WARNING 'The broadcast is not sent: write its topic without "realtime:".';
        RETURN;
    END IF;
    BEGIN
        -- For the policies of the table.
        PERFORM set_config('realtime.topic', topic, true);
        INSERT INTO {table} (id, topic, event, {column}, private)
        VALUES (message_id, topic, event, {value}, coalesce(private, true));
    EXCEPTION
        WHEN transaction_rollback THEN
            RAISE;
        WHEN OTHERS THEN
            RAISE WARNING 'The broadcast is not sent: %', SQLERRM;
    END;
    PERFORM set_config('realtime.topic', outer_topic, true);
END
"""
# An object without an id gets that of the message; other JSON values cannot hold one.
_PAYLOAD = """CASE
            WHEN jsonb_typeof(payload) = 'object' AND NOT payload ? 'id'
            THEN payload || jsonb_build_object('id', message_id)
            ELSE payload
        END"""
_BROADCAST_CHANGES = """
BEGIN
    IF level = 'STATEMENT' THEN
        RAISE EXCEPTION 'Failed to process the row: function can only be triggered for each row,'
            ' not for each statement';
    ELSIF operation IS NULL OR operation NOT IN ('INSERT', 'UPDATE', 'DELETE') THEN
        RAISE EXCEPTION 'Failed to process the row: Unexpected operation type: %', operation;
    END IF;
    PERFORM {schema}.send(
        jsonb_build_object(
            'schema', table_schema, 'table', table_name, 'operation', operation,
            'record', new, 'old_record', old
        ),
        event_name, topic_name, true
    );
END
"""
_TOPIC = "SELECT nullif(current_setting('realtime.topic', true), '')"


@dataclass(frozen=True, slots=True)
class Function:
    """One function. `types` name it among others of its name."""

    name: str
    arguments: str
    types: str
    body: str
    returns: str = "void"
    language: str = "plpgsql"
    volatility: str = "VOLATILE"

    @property
    def signature(self) -> str:
        return f"{SCHEMA}.{self.name}({self.types})"

    @property
    def sql(self) -> str:
        # The names of arguments win over those of columns; both are Supabase's, so neither can be
        # changed.
        conflict = "#variable_conflict use_variable" if self.language == "plpgsql" else ""
        return (
            f"CREATE OR REPLACE FUNCTION {SCHEMA}.{self.name}({self.arguments})\n"
            f"RETURNS {self.returns} LANGUAGE {self.language} {self.volatility} SECURITY INVOKER\n"
            "SET search_path = pg_catalog, pg_temp\n"
            f"AS $rowcast${conflict}{self.body}$rowcast$"
        )


def functions(table: str, *, longest_topic: int, longest_event: int) -> Iterable[Function]:
    """The functions for a table of messages, whose name is quoted and has its schema. The numbers
    are characters. One that calls another comes after it."""
    names = {"table": table, "longest_topic": longest_topic, "longest_event": longest_event}
    rest = "event text, topic text, private boolean DEFAULT true"
    yield Function(
        "send",
        f"payload jsonb, {rest}",
        "jsonb, text, text, boolean",
        _SEND.format(**names, column="payload", value=_PAYLOAD),
    )
    yield Function(
        "send_binary",
        f"payload bytea, {rest}",
        "bytea, text, text, boolean",
        _SEND.format(**names, column="data", value="payload"),
    )
    yield Function(
        "broadcast_changes",
        "topic_name text, event_name text, operation text, table_name text, table_schema text,"
        " new record, old record, level text DEFAULT 'ROW'",
        "text, text, text, text, text, record, record, text",
        _BROADCAST_CHANGES.format(schema=SCHEMA),
    )
    yield Function("topic", "", "", _TOPIC, returns="text", language="sql", volatility="STABLE")
