"""Whether a server's private objects are as they are known.

Servers have no interface for some bounds, so their objects are used as they are. A version that
names things otherwise is served without the bound, and a line of the log says so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger("realtime.server")


def is_expected(thing: Any, names: Iterable[str], unbounded: str) -> bool:
    """Whether an object, class or module of a server has all these attributes. If not, it is logged
    once; `unbounded` says what clients may do without bound for that, as "send large heads"."""
    missing = ", ".join(name for name in names if not hasattr(thing, name))
    if missing:
        named = thing if hasattr(thing, "__name__") else type(thing)
        module = "" if named is thing and "." in named.__name__ else f"{named.__module__}."
        _warn(f"{module}{named.__name__}", missing, unbounded)
    return not missing


@functools.cache
def _warn(owner: str, missing: str, unbounded: str) -> None:
    logger.warning(
        "%s has no %s, so clients may %s without bound. Install the version of %s that "
        "requirements.txt names.",
        owner,
        missing,
        unbounded,
        owner.partition(".")[0],
        extra={"action": "server_unknown"},
    )
