"""Triggers on PostgreSQL by which an entry's number is deleted with the entry. SQL text.

A foreign key would do the same, but its check locks each entry that is numbered, and a lock is a
write to the row. By statement, so that pruning pays for one DELETE more and not for one a row.
"""

from __future__ import annotations

_FUNCTION = "realtime_wal_unnumber"
_TRIGGERS = {"DELETE": "realtime_wal_deleted", "TRUNCATE": "realtime_wal_emptied"}

# A role that may delete entries needs no right on their numbers. The numbers are in the schema of
# the log.
_CREATE_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('DELETE FROM %I.realtime_wal_number', TG_TABLE_SCHEMA);
        -- RESTART IDENTITY gives low ids again, which are taken for numbered. And what had no
        -- number yet is gone: a row with another writer begins an epoch.
        EXECUTE format('UPDATE %I.realtime_head SET seen = ''''', TG_TABLE_SCHEMA);
    ELSE
        EXECUTE format(
            'DELETE FROM %I.realtime_wal_number AS n USING gone WHERE n.entry_id = gone.id',
            TG_TABLE_SCHEMA
        );
    END IF;
    RETURN NULL;
END
$body$
"""


def _create(op: str, name: str) -> tuple[str, ...]:
    rows = " REFERENCING OLD TABLE AS gone" if op == "DELETE" else ""
    return (
        f"CREATE OR REPLACE TRIGGER {name} AFTER {op} ON realtime_wal{rows}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()",
        # Also where session_replication_role is replica.
        f"ALTER TABLE realtime_wal ENABLE ALWAYS TRIGGER {name}",
    )


BIND = (
    _CREATE_FUNCTION,
    f"REVOKE ALL ON FUNCTION {_FUNCTION}() FROM PUBLIC",
    *(sql for op, name in _TRIGGERS.items() for sql in _create(op, name)),
)
UNBIND = (
    *(f"DROP TRIGGER IF EXISTS {name} ON realtime_wal" for name in _TRIGGERS.values()),
    f"DROP FUNCTION IF EXISTS {_FUNCTION}()",
)
