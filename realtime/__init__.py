"""Rowcast: committed row changes, sent live to those who may see them.

The public names are imported on first use, because an app package is imported before its models
may be.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_EXPORTS = {
    "abroadcast": "realtime.api",
    "apresence": "realtime.api",
    "broadcast": "realtime.api",
    "actor": "realtime.wal.actor",
    "head": "realtime.api",
    "presence": "realtime.api",
    "publish": "realtime.wal.published",
}

__all__ = ["abroadcast", "actor", "apresence", "broadcast", "head", "presence", "publish"]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
