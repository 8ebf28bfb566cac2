"""Topics that name a table: how clients asked for changes before there were bindings.

supabase-js 1, realtime-js 1 and the other clients of their time join `realtime:<schema>:<table>`,
with `:<filter>` behind it or without, `realtime:<schema>`, or `realtime:*`, and send no `config`.
Pure: no Django, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_ANY = "*"


def is_legacy(payload: Mapping[str, Any]) -> bool:
    """Whether a `phx_join` payload is of such a client. All others send `config`, if only an empty
    one."""
    return "config" not in payload


def binding_of(name: str, schemas: Collection[str]) -> dict[str, Any] | None:
    """What a topic (its name without `realtime:`) asks for, as an item of `postgres_changes`; None
    for one that names no schema of these, which is a topic for broadcasts and presence alone.

    A filter may hold colons. A topic with no name of a table where one belongs asks for nothing,
    rather than for a whole schema by a slip: its item is empty, which no binding may be.
    """
    item = dict(zip(("schema", "table", "filter"), name.split(":", 2), strict=False))
    if item["schema"] != _ANY and item["schema"] not in schemas:
        return None
    return item if item.get("table", _ANY) else {}
