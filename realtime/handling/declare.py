"""`on_change`: declares a function, or a task, as a handler of committed changes."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from realtime.handling import registry
from realtime.handling.definition import EVENTS, HandlerDefinition
from realtime.handling.hand_over import hand_over, name_of
from realtime.handling.handled_change import HandledChange
from realtime.subscriptions.change import Model

Function = TypeVar("Function", bound=Callable[..., Any])
EVERY_EVENT = "*"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """Calls a synchronous function with a change, or with `batch` with a list."""

    function: Callable[[Any], Any]
    batch: bool

    def __call__(self, changes: Sequence[HandledChange]) -> None:
        if self.batch:
            self.function(list(changes))
            return
        for change in changes:
            self.function(change)


@dataclass(frozen=True, slots=True)
class CoroutineCall:
    """Runs an asynchronous function on an event loop of its own, in the thread that calls. Its
    `sync_to_async` code, Django's asynchronous ORM calls among it, comes back to that thread, and
    so to the transaction that is open there. Raises TimeoutError after `timeout` seconds.
    """

    function: Callable[[Any], Any]
    batch: bool
    timeout: float

    def __call__(self, changes: Sequence[HandledChange]) -> None:
        async_to_sync(self._run)(changes)

    async def _run(self, changes: Sequence[HandledChange]) -> None:
        async with asyncio.timeout(self.timeout):
            if self.batch:
                await self.function(list(changes))
                return
            for change in changes:
                await self.function(change)


@overload
def on_change(
    model: Model | Sequence[Model],
    /,
    *,
    events: Collection[str] | str = EVENTS,
    columns: Collection[str] | None = None,
    filter: str | None = None,
    name: str | None = None,
    batch: int | None = None,
    key: str | None = None,
    concurrency: int = 1,
    on_failure: str = "stop",
    attempts: int = 5,
    start: str = "head",
    timeout: float = 60,
    task: None = None,
) -> Callable[[Function], Function]: ...
@overload
def on_change(
    model: Model | Sequence[Model],
    /,
    *,
    events: Collection[str] | str = EVENTS,
    columns: Collection[str] | None = None,
    filter: str | None = None,
    name: str | None = None,
    batch: int | None = None,
    key: str | None = None,
    concurrency: int = 1,
    on_failure: str = "stop",
    attempts: int = 5,
    start: str = "head",
    timeout: float = 60,
    task: Any,
) -> Any: ...
def on_change(
    model: Model | Sequence[Model],
    /,
    *,
    events: Collection[str] | str = EVENTS,
    columns: Collection[str] | None = None,
    filter: str | None = None,
    name: str | None = None,
    batch: int | None = None,
    key: str | None = None,
    concurrency: int = 1,
    on_failure: str = "stop",
    attempts: int = 5,
    start: str = "head",
    timeout: float = 60,
    task: Any = None,
) -> Any:
    """Run a function on every committed change of a published model: exactly once, as far as it
    writes to the database of the log, and in order. Modules `handlers` of all apps are imported at
    the start.

    The function gets a change with `type`, `pk`, `old`, `new`, `columns`, `changed`, `seq`, `actor`
    and `delivery_id`, inside the transaction that moves the handler's cursor. It may be
    asynchronous.

    `events`: of "INSERT", "UPDATE", "DELETE" (these three are the default) and "TRUNCATE"; "*" for
    all. `columns`: of UPDATEs only those that change one of these. `filter`: as for a socket,
    "status=eq.paid", on the row as it is after the change. `name`: of the cursor, by default the
    function's path; a handler that is renamed keeps its cursor if it keeps its name. `batch`: give
    a list of up to so many changes, of large rows fewer, in one transaction. `key` and
    `concurrency`: changes with different values in this column are handled at once, up to so many;
    order is kept for each value. `on_failure`: after `attempts` failed ones, with growing pauses,
    "stop", or keep the change as a `DeadLetter` and go on: "dead_letter". `start`: where a new
    handler begins, at the "head" of the log or the "beginning" of what is kept. `timeout`: seconds
    for one attempt.

    With `task`, changes are handed over to a task of `django.tasks` or Celery as JSON values; the
    call then declares the handler and returns the task.

    Raises ImproperlyConfigured for arguments that cannot be, and for a name that another handler
    has. A handler that does not fit its model is reported by the system checks (realtime.E030 to
    E032).
    """
    given: tuple[Model, ...] = tuple(model) if isinstance(model, list | tuple) else (model,)  # type: ignore[assignment]
    for one in given:
        if not (isinstance(one, type) and issubclass(one, models.Model)):
            raise ImproperlyConfigured(
                "on_change takes a model class, or a list of them, as in @on_change(Order), not "
                f"{_kind(one)}."
            )
    wanted = (*EVENTS, "TRUNCATE") if events == EVERY_EVENT else events

    def define(default: str, call: Any, origin: registry.Origin, **more: Any) -> None:
        definition = HandlerDefinition(
            name=default if name is None else name,
            models=given,
            call=call,
            events=_listed(wanted),
            columns=_listed(columns),
            filter="" if filter is None else filter,
            batch=1 if batch is None else batch,
            key=key,
            concurrency=concurrency,
            on_failure=on_failure,
            attempts=attempts,
            start=start,
            timeout=timeout,
            **more,
        )
        registry.declare(definition, origin)

    if task is not None:
        frame = sys._getframe(1)
        origin = frame.f_code.co_filename, frame.f_lineno
        call = hand_over(task, batch is not None)
        define(name_of(task), call, origin)
        return task

    def declare(function: Function) -> Function:
        if not callable(function):
            raise ImproperlyConfigured(
                f"on_change is for a function of a change, not {function!r}; a task is given as "
                "task=...."
            )
        if (fault := _fault(function)) is not None:
            raise ImproperlyConfigured(
                f"on_change: {getattr(function, '__qualname__', function)} {fault}."
            )
        waits = iscoroutinefunction(function)
        call = (
            CoroutineCall(function, batch is not None, timeout)
            if waits
            else FunctionCall(function, batch is not None)
        )
        path = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
        path = path.replace("<locals>.", "").replace("<lambda>", "lambda")
        define(path, call, _origin(function), time_limit_inside=waits)
        return function

    return declare


def _kind(value: object) -> str:
    """What something is, without its text, which may be long or cost a query."""
    name = getattr(value, "__name__", None)
    kind = type(value).__name__
    return f"the {kind} {name}" if isinstance(name, str) else f"a value of {kind}"


def _listed(value: Any) -> Any:
    """A tuple of what is a list of some sort; anything else is left to the definition to refuse."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _fault(function: Callable[..., Any]) -> str | None:
    """Why a function would never do anything when it gets a change; None if it may."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "is a generator, whose body would not run: write it without yield"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Of some functions in C it is not known.
        return None
    try:
        signature.bind(None)
    except TypeError:
        return (
            f"must take one argument, the change or with batch=... a list of them, not {signature}"
        )
    return None


def _origin(function: Callable[..., Any]) -> registry.Origin:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return str(function.__module__), 0
    return code.co_filename, code.co_firstlineno
