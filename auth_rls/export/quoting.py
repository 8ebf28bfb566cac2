"""Quoting for PostgreSQL: names and texts, and a function as a value.

Owns the rule that no name or text reaches a statement unquoted.

Pure: no Django, no I/O.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SCHEMA = "auth_rls"
"""The schema of the functions that the exported policies call."""

LONGEST = 63
"""The longest name, in bytes; PostgreSQL cuts off the rest."""


def identifier(name: str) -> str:
    """The name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a literal, valid under every value of standard_conforming_strings. Raises
    ValueError for text with NUL characters."""
    if "\0" in text:
        raise ValueError("text without NUL characters is expected")
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def digest(text: str) -> str:
    """A short digest of a text: equal texts have equal digests."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shortened(name: str) -> str:
    """The name, no longer than PostgreSQL takes, so that two different long names stay
    different."""
    if len(name.encode()) <= LONGEST:
        return name
    tail = f"~{digest(name)[:8]}"
    return name.encode()[: LONGEST - len(tail)].decode(errors="ignore") + tail


@dataclass(frozen=True, slots=True)
class Function:
    """A function in our schema. With `definer` it runs with its owner's rights, and raises an error
    if row-level security would hide rows of a table that it reads. With `output` the arguments are
    results."""

    name: str
    arguments: str
    returns: str
    body: str
    language: str = "sql"
    volatility: str = "STABLE"
    parallel: str = "SAFE"
    strict: bool = False
    definer: bool = False
    settings: tuple[str, ...] = ()
    output: bool = False

    @property
    def signature(self) -> str:
        return f"{self.call}({'' if self.output else self.arguments})"

    @property
    def call(self) -> str:
        return f"{SCHEMA}.{identifier(self.name)}"

    @property
    def sql(self) -> str:
        lines = [
            f"CREATE OR REPLACE FUNCTION {self.call}({self.arguments})",
            f"RETURNS {self.returns} LANGUAGE {self.language} {self.volatility}"
            f"{' STRICT' if self.strict else ''} PARALLEL {self.parallel}"
            f"{' SECURITY DEFINER' if self.definer else ''}",
            # The temporary schema comes last, or a table created there would replace ours.
            "SET search_path = pg_catalog, pg_temp",
            *(["SET row_security = off"] if self.definer else []),
            *(f"SET {setting}" for setting in self.settings),
        ]
        tag = "$body$"
        while tag in self.body:
            tag = f"${digest(self.body + tag)}$".replace("$", "$b", 1)
        return "\n".join(lines) + f"\nAS {tag}\n{self.body.strip()}\n{tag}"
