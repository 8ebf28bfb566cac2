"""Topics that name a table: how clients subscribed to changes before there were bindings.

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
    """A topic (its name without `realtime:`) as an item of `postgres_changes`; None for one that
    names none of these schemas, which is a topic for broadcasts and presence alone.

    A filter may hold colons. A topic with an empty table name gives an empty item, which is refused
    as a binding: it must not mean a whole schema by mistake.
    """
    item = dict(zip(("schema", "table", "filter"), name.split(":", 2), strict=False))
    if item["schema"] != _ANY and item["schema"] not in schemas:
        return None
    return item if item.get("table", _ANY) else {}
