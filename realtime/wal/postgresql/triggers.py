"""The text of capture on PostgreSQL: one trigger function per table. Never talks to a database.

The function belongs to the role that migrates and runs with its rights, so a writer needs none on
the log. It fixes search_path, and the settings that values are printed by. Nothing in it names a
column where a missing one would fail the user's write: should the table have changed under it (a
migration that is half done), the image is made from what the row has, until the next `reconcile`.

INSERT has a statement trigger with a transition table, which takes less than half the time in bulk,
wherever that is exact (see `Level`). UPDATE and DELETE have row triggers: a statement may take away
a row and make another one of its key, and only row triggers fire in the order of the changes.
Statement triggers fire when their part of the statement has ended, which for a DELETE in WITH may
be after the INSERT that reads from it, and a MERGE fires those of INSERT first. Row triggers fire
before any statement trigger, so what leaves a key is in the log before what takes it.

What a write costs is above all the parts of the expressions, which PostgreSQL prepares for each
transaction anew. So a row is printed by one call of row_to_json() where it can be.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from auth_rls.predicates.kinds import Kind
from realtime.wal.entry import ColumnInfo, Relation
from realtime.wal.postgresql.values import (
    as_json_value,
    cell,
    concat,
    plain_cell,
    quote_name,
    quote_text,
)

# Triggers fire in the order of their names. Ours come first, so that what another trigger writes
# about a row stands in the log after the change that set it off.
PREFIX = "00_rowcast_"
FUNCTION_PREFIX = "rowcast_"

_SEARCH_PATH = "pg_catalog, pg_temp"
_NAME_BYTES = 63
# pg_trigger.tgtype
_ROW = 1
_TYPES = {"INSERT": 4, "UPDATE": 16, "DELETE": 8, "TRUNCATE": 32}
#: The id of the present transaction, as entries have it.
TXID = "pg_current_xact_id()::text::bigint"
_COLUMNS = "(op, pk_text, old, new, relation_id, txid, captured_us, actor)"
_NOW_US = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
# The actor: a setting of the transaction, which any writer may leave unset.
ACTOR_SETTING = "rowcast.actor"
_ACTOR = f"nullif(current_setting('{ACTOR_SETTING}', true), '')"


class Level(enum.StrEnum):
    """How INSERT is captured.

    ROW where a statement trigger would not do: a partitioned table and whatever inherits (a write
    to a part fires no statement trigger of the whole), a table that a logical replication writes to
    (it fires row triggers only), and a table with other AFTER triggers, for each row or for
    UPDATE and DELETE statements: they may run before the statement trigger of an INSERT, so what
    they write about the same rows would stand in the log before the INSERT itself.
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


def _lines(statements: Sequence[str]) -> str:
    return "\n            ".join(statements)


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
    schema by its name, `zone` the time zone of moments without one. `next_column` is the number
    that a new column of the table would get, None where parts of the table have columns of their
    own.
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
    next_column: int | None = None

    def image(self, row: str) -> str:
        """An expression that gives the row as a JSON object, in column order."""
        parts = []
        for position, column in enumerate(self.relation.columns):
            lead = ("," if position else "{") + json.dumps(column.name, ensure_ascii=False) + ":"
            parts += [quote_text(lead), self._cell(column, row)]
        return concat([*parts, "'}'"])

    def _probes(self, row: str) -> list[str]:
        """Expressions that fail where the image would, and cost less: to_json() takes any type."""
        parts = []
        for column in self.relation.columns:
            c, value = f"{row}.{quote_name(column.name)}", self._cell(column, row)
            parts.append(c if value == plain_cell(c) else value)
        return parts

    def _images(self, row: str) -> str:
        """Joined with the rows `row` of a FROM, it has row_to_json() print the image of each."""
        parts = (
            f"{as_json_value(column, self._value(column, row), self._type(column), self.zone)}"
            f" AS {quote_name(column.name)}"
            for column in self.relation.columns
        )
        return f"CROSS JOIN LATERAL (SELECT {', '.join(parts)}) AS rowcast_image"

    @property
    def _prints_itself(self) -> bool:
        """Whether row_to_json() of a row is its image."""
        columns = self.relation.columns
        return (
            self.next_column is not None
            and [column.name for column in columns] == list(self.types)
            and all(self._cell(c, "r") == plain_cell(self._value(c, "r")) for c in columns)
        )

    def _row_image(self, row: str) -> str:
        return f"row_to_json({row})::text" if self._prints_itself else self.image(row)

    def _test(self, row: str) -> str:
        """Statements that fail where the row prints itself and has not the columns that it had."""
        if not self._prints_itself:
            return ""
        names = [f"{row}.{quote_name(column.name)}" for column in self.relation.columns]
        # A function takes at most 100 arguments.
        parts = (names[at : at + 100] for at in range(0, len(names), 100))
        there = " + ".join(f"num_nulls({', '.join(part)})" for part in parts)
        added = f"has_column_privilege(TG_RELID, {self.next_column}::smallint, 'SELECT')"
        return f"""IF {there} < 0 OR {added} IS NOT NULL THEN
                RAISE EXCEPTION 'a column was added';
            END IF;"""

    def key_text(self, row: str) -> str:
        """An expression for the row's key as people write it; a JSON array where composite."""
        columns = {column.name: column for column in self.relation.columns}
        if len(self.relation.key) == 1:
            column = columns[self.relation.key[0]]
            if column.kind in (Kind.INT, Kind.TEXT, Kind.UUID, Kind.DECIMAL):
                return f"{row}.{quote_name(column.name)}::text"
            return f"trim('\"' FROM ({self._cell(column, row)})::text)"
        cells = [self._cell(columns[name], row) for name in self.relation.key]
        return "concat('[', " + ", ',', ".join(cells) + ", ']')"

    def _cell(self, column: ColumnInfo, row: str) -> str:
        return cell(column, self._value(column, row), self._type(column), self.zone)

    def _value(self, column: ColumnInfo, row: str) -> str:
        if column.name not in self.virtual:
            return f"{row}.{quote_name(column.name)}"
        stored = (quote_name(name) for name in self.types if name not in self.virtual)
        given = ", ".join(f"{row}.{name} AS {name}" for name in stored)
        return f"(SELECT {self.virtual[column.name]} FROM (SELECT {given}) AS rowcast_row)"

    def _type(self, column: ColumnInfo) -> str:
        return self.types.get(column.name, "")

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
        return f"""
#variable_conflict use_column
-- {"; ".join(self.settings)}
<<rowcast>>
DECLARE
    key text;
    before text;
    after text;
    tx bigint;
    us bigint := {_NOW_US};
    who text := {_ACTOR};
BEGIN
    -- A copy of the schema may bring its triggers along: its rows are not this table's. A part of
    -- a partitioned table may be in any schema.
    IF TG_TABLE_SCHEMA <> {quote_text(self.home)} THEN
        IF NOT EXISTS (
            SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = pg_partition_root(TG_RELID) AND n.nspname = {quote_text(self.home)}
        ) THEN RETURN NULL; END IF;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF TG_LEVEL = 'STATEMENT' THEN
            {self._rows()}
        ELSE
            {self._row("INSERT", "NEW", {"after": "NEW"})}
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        {self._row("UPDATE", "NEW", {"before": "OLD", "after": "NEW"})}
    ELSIF TG_OP = 'DELETE' THEN
        {self._row("DELETE", "OLD", {"before": "OLD"})}
    ELSE
        {self._write("TRUNCATE")}
    END IF;
    RETURN NULL;
END
"""

    def _row(self, op: str, row: str, images: Mapping[str, str]) -> str:
        """Statements that write the entry of a row. `images`: the rows of the variables."""
        # Values are assigned one by one, and the statement that writes has nothing to compute:
        # PostgreSQL prepares it for each row, and an assignment for each transaction.
        spare = [f"rowcast.{name} := {self.spare_image(of)};" for name, of in images.items()]
        exact = [f"rowcast.{name} := {self._row_image(of)};" for name, of in images.items()]
        same = "IF rowcast.before = rowcast.after THEN RETURN NULL; END IF;"
        return f"""BEGIN
            rowcast.key := {self.key_text(row)};
            {_lines(exact)}
            {self._test(row)}
        EXCEPTION WHEN OTHERS THEN
            rowcast.key := {self.spare_key(row)};
            {_lines(spare)}
        END;
        {same if op == "UPDATE" and not self.whole else ""}
        {self._write(op)}"""

    def _rows(self) -> str:
        """Statements that write the entries of the rows of an INSERT."""
        return f"""BEGIN
            -- Only a test, and nothing is written: each of the statements of a transaction
            -- would be a subtransaction of it. Missing columns are found before anything runs,
            -- and as no row is wanted, there is next to nothing to run.
            PERFORM FROM rowcast_new AS r
            WHERE false AND ROW({", ".join(self._probes("r"))}) IS NULL;
        EXCEPTION WHEN OTHERS THEN
            {self._write_rows(self.spare_key("r"), self.spare_image("r"))}
            FROM rowcast_new AS r;
            RETURN NULL;
        END;
        {self._write_rows(self.key_text("r"), "row_to_json(rowcast_image.*)::text")}
        FROM rowcast_new AS r {self._images("r")};"""

    def _write(self, op: str) -> str:
        """Statements that write one entry to the log."""
        values = (
            f"'{op}', rowcast.key, rowcast.before, rowcast.after, {quote_text(self.relation.id)}"
        )
        return f"""rowcast.tx := {TXID};
        INSERT INTO {self.wal} {_COLUMNS}
        VALUES ({values}, rowcast.tx, rowcast.us, rowcast.who);"""

    def _write_rows(self, key: str, new: str) -> str:
        """The beginning of a statement that writes an entry for each row of a FROM."""
        # As a subquery the transaction's id is asked for once, and by a statement that concerned
        # no row not at all: asking gives the transaction one.
        fixed = f"{quote_text(self.relation.id)}, (SELECT {TXID}), rowcast.us, rowcast.who"
        return f"INSERT INTO {self.wal} {_COLUMNS} SELECT 'INSERT', {key}, NULL, {new}, {fixed}"

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
