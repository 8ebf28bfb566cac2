"""The handlers that this process knows: those declared in code, and those stored in the database.

Declaring touches no database. What is stored is read by functions, which are called again while
handlers run, so that what they return may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured

from realtime.handling.definition import HandlerDefinition

ReadDefinitions = Callable[[], Iterable[HandlerDefinition]]
# Where code stands: its file and line.
Origin = tuple[str, int]

_declared: dict[str, tuple[HandlerDefinition, Origin]] = {}
_stored: list[ReadDefinitions] = []


def declare(definition: HandlerDefinition, origin: Origin) -> None:
    """Know a handler that stands at `origin`. One that was declared at the same origin is replaced,
    because its module was loaded anew.

    Raises ImproperlyConfigured for a name that another handler has.
    """
    known = _declared.get(definition.name)
    if known is not None and not _again(known, definition, origin):
        places = " and ".join(f"{file}:{line}" for file, line in (known[1], origin))
        raise ImproperlyConfigured(
            f"on_change: two handlers are called {definition.name!r}, at {places}: the name is that"
            " of the cursor. Give one of them another name=...."
        )
    _declared[definition.name] = definition, origin


def _again(
    known: tuple[HandlerDefinition, Origin], definition: HandlerDefinition, origin: Origin
) -> bool:
    """Whether it is the known handler once more. A function that two decorators declare is the
    same object; a module that is loaded anew makes another one."""
    return known[1] == origin and (known[0] == definition or known[0].call != definition.call)


def add_stored(read: ReadDefinitions) -> None:
    """Have `read` called for more definitions, in the threads that run and list handlers."""
    if read not in _stored:
        _stored.append(read)


def declared() -> tuple[HandlerDefinition, ...]:
    """The handlers declared in code, in that order."""
    return tuple(definition for definition, _ in _declared.values())


def are_known() -> bool:
    """Whether there are handlers, or some may be stored."""
    return bool(_declared or _stored)


def definitions() -> list[HandlerDefinition]:
    """Every handler. Raises what the database raises. In a database thread."""
    found = list(declared())
    for read in _stored:
        found += read()
    return found


def named(name: str) -> HandlerDefinition | None:
    """The handler of this name, if any. Raises what the database raises. In a database thread."""
    return next((one for one in definitions() if one.name == name), None)


@contextmanager
def isolated() -> Iterator[None]:
    """Within the block no handlers are known but those added in it. For tests."""
    declared, stored = dict(_declared), list(_stored)
    _declared.clear()
    _stored.clear()
    try:
        yield
    finally:
        _declared.clear()
        _declared.update(declared)
        _stored[:] = stored
