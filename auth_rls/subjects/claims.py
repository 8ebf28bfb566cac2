"""Claims by name or by dotted path, and whether two of them are the same JSON value.

Pure. A name with a dot, such as "https://app.example/role", takes precedence over the path that it
may also be read as.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim called `path`, else the one at that dotted path; None where there is none.

    Of several ways to read a path the one with the longest names counts.
    """
    if path in claims:
        return claims[path]
    cut = path.rfind(".")
    while cut > 0:
        inner = claims.get(path[:cut])
        if isinstance(inner, Mapping):
            found = claim_at(inner, path[cut + 1 :])
            if found is not None:
                return found
        cut = path.rfind(".", 0, cut)
    return None


def put_claim(claims: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` where `claim_at` finds it. A path that is a URL is one name."""
    if "/" in path or ":" in path:
        claims[path] = value
        return
    *outer, name = path.split(".")
    for part in outer:
        if not isinstance(claims.get(part), dict):
            claims[part] = {}
        claims = claims[part]
    claims[name] = value


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where `1` and `true` differ and `1` and `1.0` do
    not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)
