"""Dead letters that are sent again: their handler is run once more, here and now.

Not by a runner, and not in order: the handler has gone on since. What it writes to the database is
committed together with the end of the letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.db import models, router

from realtime.handling import chain, registry
from realtime.handling.attempt import run_aside, text_of
from realtime.handling.definition import HandlerDefinition
from realtime.handling.handled_change import HandledChange
from realtime.handling.operations import CannotDo, unknown
from realtime.models import DeadLetter, Handler
from realtime.subscriptions.change import key_of
from realtime.wal import actor


def send_again(letter: DeadLetter) -> None:
    """Run the letter's handler on its change, with the same delivery id, and delete the letter. In
    a thread of its own, so that a handler that hangs is given up as in a runner.

    Raises CannotDo, with the letter kept, when the handler fails, takes longer than an attempt may,
    or is not to be found."""
    alias = letter._state.db or router.db_for_write(DeadLetter)
    definition = _definition(letter.handler, alias)
    change = change_of(letter)
    name = chain.actor_of(letter.handler, 1)
    kept = DeadLetter.objects.using(alias).filter(pk=letter.pk)

    def work() -> None:
        if not kept.select_for_update():
            raise CannotDo("It was sent again or deleted meanwhile.")
        with actor.acting(lambda: name):
            definition.call([change])

    try:
        run_aside(alias, definition.most_seconds, work, kept.delete)
    except CannotDo:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # As in an attempt of the runner: also what ends a process or a task is a failure here.
        raise CannotDo(f"The handler failed again: {text_of(error)}") from error


def change_of(letter: DeadLetter) -> HandledChange:
    """The change that a letter keeps. Raises CannotDo when its model is gone."""
    kept: dict[str, Any] = letter.change
    try:
        model = apps.get_model(kept["model"])
    except (LookupError, ValueError):
        raise CannotDo(f"There is no model {kept['model']} any more.") from None
    old, new = _row(model, kept["old"]), _row(model, kept["new"])
    return HandledChange(
        type=kept["type"],
        schema=kept["schema"],
        table=kept["table"],
        model=model,
        pk=key_of(model, {**(old or {}), **(new or {})}),
        old=old,
        new=new,
        columns=tuple(kept["columns"]),
        seq=kept["seq"],
        commit_timestamp=kept["commit_timestamp"],
        actor=kept["actor"],
        handler=letter.handler,
        epoch=kept["epoch"],
    )


def _definition(name: str, alias: str) -> HandlerDefinition:
    definition = registry.named(name)
    if definition is not None:
        return definition
    if Handler.objects.using(alias).filter(pk=name).exists():
        raise CannotDo(f"No code has the handler {name!r}.")
    raise CannotDo(unknown(name, {one.name for one in registry.definitions()}))


def _row(model: type[models.Model], row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """JSON has no decimals: they are kept as texts."""
    if row is None:
        return None
    decimals = {
        field.column
        for field in model._meta.concrete_fields
        if isinstance(field, models.DecimalField)
    }
    return {
        name: Decimal(value) if name in decimals and isinstance(value, str) else value
        for name, value in row.items()
    }
