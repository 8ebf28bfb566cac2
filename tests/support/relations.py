"""A relation with a column of every kind, as entries of the log name it."""

from __future__ import annotations

from auth_rls.predicates.kinds import Kind
from realtime.wal.entry import ColumnInfo, Relation

# One column of every kind, as Django declares it on SQLite.
COLUMNS = (
    ("id", "int8", Kind.INT, "integer PRIMARY KEY"),
    ("flag", "bool", Kind.BOOL, "bool"),
    ("number", "int8", Kind.INT, "bigint"),
    ("real", "float8", Kind.FLOAT, "real"),
    ("price", "numeric", Kind.DECIMAL, "decimal"),
    ("word", "text", Kind.TEXT, "text"),
    ("uid", "uuid", Kind.UUID, "char(32)"),
    ("day", "date", Kind.DATE, "date"),
    ("clock", "time", Kind.TIME, "time"),
    ("moment", "timestamptz", Kind.DATETIME, "datetime"),
    ("local", "timestamp", Kind.DATETIME, "datetime"),
    ("span", "interval", Kind.INTERVAL, "bigint"),
    ("address", "inet", Kind.INET, "char(39)"),
    ("document", "jsonb", Kind.JSON, "text"),
    ("blob", "bytea", Kind.BINARY, "BLOB"),
)


def relation_of(columns: tuple[tuple[str, str, Kind, str], ...], table: str, *key: str) -> Relation:
    infos = tuple(ColumnInfo(name, type_, kind) for name, type_, kind, _ in columns)
    return Relation("r1", "public", table, infos, key or ("id",))
