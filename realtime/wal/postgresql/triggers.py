"""The text of capture on PostgreSQL: one trigger function per table. Never talks to a database.

The function belongs to the role that migrates and runs with its rights, so a writer needs none on
the log. It fixes search_path, and the settings that values are printed by. Nothing in it names a
column where a missing one would fail the user's write: should the table have changed under it (a
migration that is half done), the image is made from what the row has, until the next `reconcile`.

INSERT has a statement trigger with a transition table, which takes less than half the time in bulk,
wherever that is exact (see `Level`). UPDATE and DELETE have row triggers: only they see what an
UPDATE made of which row, and the DELETE of a row before a new one of that key when a single
statement does both.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from auth_rls.predicates.kinds import Kind
from realtime.wal.entry import ColumnInfo, Relation
from realtime.wal.postgresql.values import cell, concat, or_null, plain, quote_name, quote_text

# Triggers fire in the order of their names. Ours come first, so that what another trigger writes
# about a row stands in the log after the change that set it off.
PREFIX = "00_rowcast_"
FUNCTION_PREFIX = "rowcast_"

_SEARCH_PATH = "pg_catalog, pg_temp"
_NAME_BYTES = 63
# pg_trigger.tgtype
_ROW = 1
_TYPES = {"INSERT": 4, "UPDATE": 16, "DELETE": 8, "TRUNCATE": 32}
_TXID = "pg_current_xact_id()::text::bigint"
_COLUMNS = "(op, pk_text, old, new, relation_id, txid, captured_us, actor)"
# The actor: a setting of the transaction, which any writer may leave unset.
ACTOR_SETTING = "rowcast.actor"
_ACTOR = f"(SELECT nullif(current_setting('{ACTOR_SETTING}', true), ''))"


class Level(enum.StrEnum):
    """How INSERT is captured.

    ROW where a statement trigger would not do: a partitioned table and whatever inherits (a write
    to a part fires no statement trigger of the whole), a table that a logical replication writes to
    (it fires row triggers only), and a table with other AFTER ROW triggers: they run before any
    statement trigger, so what they write about the same rows would stand in the log before the
    INSERT itself.
    """

    ROW = "ROW"
    STATEMENT = "STATEMENT"


@dataclass(frozen=True, slots=True)
class Function:
    """A trigger function. `name` is unquoted, `body` what the database keeps of it as text."""

    name: str
    body: str
    sql: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowTrigger:
    """A trigger of a table. `type` is what pg_trigger.tgtype says of such a trigger."""

    name: str
    type: int
    sql: tuple[str, ...]


def function_name(schema: str, table: str) -> str:
    """The name of a table's function: readable, unlike any other table's, and short enough."""
    name = (
        f"{FUNCTION_PREFIX}{table}" if schema == "public" else f"{FUNCTION_PREFIX}{schema}.{table}"
    )
    if len(name.encode()) <= _NAME_BYTES:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    kept = name.encode()[: _NAME_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{kept}_{digest}"


@dataclass(frozen=True, slots=True)
class TriggerFunctionSql:
    """What the texts of a table are made from.

    `types` gives the type of every column of the table, `virtual` the expression of those that are
    computed when they are read, which no trigger is given. `whole`: no column is left out.
    `table` and `wal` are the table and the log as a statement names them, `home` is the table's
    schema by its name, `zone` the time zone of moments without one.
    """

    relation: Relation
    types: Mapping[str, str]
    whole: bool
    table: str
    wal: str
    virtual: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    level: Level = Level.STATEMENT
    home: str = "public"

    def image(self, row: str) -> str:
        """An expression that gives the row as a JSON object, in column order."""
        parts = []
        for position, column in enumerate(self.relation.columns):
            lead = ("," if position else "{") + json.dumps(column.name, ensure_ascii=False) + ":"
            parts += [quote_text(lead), self._cell(column, row)]
        return concat([*parts, "'}'"])

    def probe(self, row: str) -> str:
        """Expressions that fail where the image would, and cost less: to_json() takes any type."""
        parts = []
        for column in self.relation.columns:
            c, value = f"{row}.{quote_name(column.name)}", self._cell(column, row)
            parts.append(c if value == or_null(plain(c)) else value)
        return ", ".join(parts)

    def key_text(self, row: str) -> str:
        """An expression for the row's key as people write it; a JSON array where composite."""
        columns = {column.name: column for column in self.relation.columns}
        if len(self.relation.key) == 1:
            column = columns[self.relation.key[0]]
            if column.kind in (Kind.INT, Kind.TEXT, Kind.UUID, Kind.DECIMAL):
                return f"{row}.{quote_name(column.name)}::text"
            return f"trim('\"' FROM {self._cell(column, row)})"
        cells = [self._cell(columns[name], row) for name in self.relation.key]
        return "concat('[', " + ", ',', ".join(cells) + ", ']')"

    def _cell(self, column: ColumnInfo, row: str) -> str:
        c = f"{row}.{quote_name(column.name)}"
        if column.name in self.virtual:
            stored = (quote_name(name) for name in self.types if name not in self.virtual)
            given = ", ".join(f"{row}.{name} AS {name}" for name in stored)
            c = f"(SELECT {self.virtual[column.name]} FROM (SELECT {given}) AS rowcast_row)"
        return cell(column, c, self.types.get(column.name, ""), self.zone)

    def _names(self, names: Sequence[str]) -> str:
        return f"ARRAY[{', '.join(map(quote_text, names))}]::text[]"

    def spare_image(self, row: str) -> str:
        """The image from what the row has: a column that is missing is missing in it too."""
        stored = [c.name for c in self.relation.columns if c.name not in self.virtual]
        names = self._names(stored)
        return (
            "(SELECT concat('{', string_agg(concat(to_json(e.key), ':', e.value), ','"
            f" ORDER BY array_position({names}, e.key)), '}}')"
            f" FROM json_each(row_to_json({row}.*)) AS e WHERE e.key = ANY({names}))"
        )

    def spare_key(self, row: str) -> str:
        names = self._names(self.relation.key)
        return (
            "(SELECT string_agg(e.value #>> '{}', ',')"
            f" FROM json_each(row_to_json({row}.*)) AS e WHERE e.key = ANY({names}))"
        )

    # --- the function -------------------------------------------------------------------------

    @property
    def settings(self) -> tuple[str, ...]:
        """What the function sets while it runs, as PostgreSQL keeps it."""
        others = (f"{name}={value}" for name, value in self._settings.items())
        return (f"search_path={_SEARCH_PATH}", *others)

    @property
    def _settings(self) -> dict[str, str]:
        kinds = {column.kind for column in self.relation.columns}
        found = {}
        if self.level is Level.STATEMENT:
            # There is only one way to read a transition table; after a large INSERT PostgreSQL
            # would look for a better one again for every small one.
            found["plan_cache_mode"] = "force_generic_plan"
        if Kind.DATETIME in kinds:
            found["TimeZone"] = "UTC"
        if Kind.FLOAT in kinds:
            # The fewest digits that read back as the same number.
            found["extra_float_digits"] = "1"
        return found

    def function(self) -> Function:
        """The trigger function of the table."""
        name = function_name(self.relation.schema, self.relation.table)
        body = self._body()
        tag = "$rowcast$"
        while tag in body:
            tag = tag[:-1] + "_$"
        schema = self.wal.rsplit(".", 1)[0]
        full = f"{schema}.{quote_name(name)}()"
        settings = f"SET search_path TO {_SEARCH_PATH}" + "".join(
            f" SET {name} TO {quote_text(value)}" for name, value in self._settings.items()
        )
        return Function(
            name,
            body,
            (
                f"CREATE OR REPLACE FUNCTION {full} RETURNS trigger LANGUAGE plpgsql"
                f" SECURITY DEFINER {settings} AS {tag}{body}{tag}",
                # Or any role could make a trigger of it on a table of its own and write to the log.
                f"REVOKE ALL ON FUNCTION {full} FROM PUBLIC",
            ),
        )

    def _body(self) -> str:
        # A column may be called as anything here is. Columns are always named with their row, and
        # variables with the block's label. What is left are the names within the expression of a
        # virtual column: columns, as the directive says.
        same = (
            ""
            if self.whole
            else "    IF rowcast.before = rowcast.after THEN RETURN NULL; END IF;\n"
        )
        return f"""
#variable_conflict use_column
-- {"; ".join(self.settings)}
<<rowcast>>
DECLARE
    op text := TG_OP;
    us bigint := extract(epoch from clock_timestamp()) * 1000000;
    before text;
    after text;
    key text;
BEGIN
    -- A copy of the schema may bring its triggers along: its rows are not this table's. A part of
    -- a partitioned table may be in any schema.
    IF TG_TABLE_SCHEMA <> {quote_text(self.home)} THEN
        IF NOT EXISTS (
            SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = pg_partition_root(TG_RELID) AND n.nspname = {quote_text(self.home)}
        ) THEN RETURN NULL; END IF;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        {self._write()};
        RETURN NULL;
    END IF;
    IF TG_LEVEL = 'STATEMENT' THEN
        BEGIN
            -- Only a test, and nothing is written: each of the statements of a transaction
            -- would be a subtransaction of it.
            PERFORM {self.probe("r")} FROM rowcast_new AS r LIMIT 0;
        EXCEPTION WHEN OTHERS THEN
            {self._write(self.spare_key("r"), "NULL", self.spare_image("r"))}
            FROM rowcast_new AS r;
            RETURN NULL;
        END;
        {self._write(self.key_text("r"), "NULL", self.image("r"))}
        FROM rowcast_new AS r;
        RETURN NULL;
    END IF;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            rowcast.key := {self.key_text("OLD")};
            rowcast.before := {self.image("OLD")};
        END IF;
        IF TG_OP <> 'DELETE' THEN
            rowcast.key := {self.key_text("NEW")};
            rowcast.after := {self.image("NEW")};
        END IF;
    EXCEPTION WHEN OTHERS THEN
        IF TG_OP <> 'INSERT' THEN
            rowcast.key := {self.spare_key("OLD")};
            rowcast.before := {self.spare_image("OLD")};
        END IF;
        IF TG_OP <> 'DELETE' THEN
            rowcast.key := {self.spare_key("NEW")};
            rowcast.after := {self.spare_image("NEW")};
        END IF;
    END;
{same}    {self._write("rowcast.key", "rowcast.before", "rowcast.after")};
    RETURN NULL;
END
"""

    def _write(self, key: str = "NULL", old: str = "NULL", new: str = "NULL") -> str:
        """The beginning of a statement that writes to the log."""
        # As a subquery the transaction's id is asked for once, and by a statement that concerned
        # no row not at all: asking gives the transaction one.
        fixed = f"{quote_text(self.relation.id)}, (SELECT {_TXID}), rowcast.us, {_ACTOR}"
        return f"INSERT INTO {self.wal} {_COLUMNS} SELECT rowcast.op, {key}, {old}, {new}, {fixed}"

    # --- the triggers -------------------------------------------------------------------------

    def triggers(self, ops: Collection[str] = frozenset(_TYPES)) -> tuple[RowTrigger, ...]:
        """The triggers that run the function, of these of the four ops."""
        rows = {"INSERT": self.level is Level.ROW, "UPDATE": True, "DELETE": True}
        return tuple(
            self._trigger(
                op,
                type_,
                rows.get(op, False),
                "NEW TABLE AS rowcast_new" if op == "INSERT" else "",
            )
            for op, type_ in _TYPES.items()
            if op in ops
        )

    def _trigger(self, op: str, type_: int, row: bool, transition: str = "") -> RowTrigger:
        name = f"{PREFIX}{op.lower()}"
        schema = self.wal.rsplit(".", 1)[0]
        function = (
            f"{schema}.{quote_name(function_name(self.relation.schema, self.relation.table))}"
        )
        referencing = f" REFERENCING {transition}" if transition and not row else ""
        each = "ROW" if row else "STATEMENT"
        return RowTrigger(
            name,
            type_ | (_ROW if row else 0),
            (
                f"CREATE OR REPLACE TRIGGER {quote_name(name)} AFTER {op} ON {self.table}"
                f"{referencing} FOR EACH {each} EXECUTE FUNCTION {function}()",
                # Also where session_replication_role is replica: what a restore or a logical
                # replication writes is a change like any other.
                f"ALTER TABLE {self.table} ENABLE ALWAYS TRIGGER {quote_name(name)}",
            ),
        )
