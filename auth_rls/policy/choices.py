"""Values in policies that no row can have, because the field's `choices` do not name them.

Such a policy can be used: rows written past Django may have the value. So this is a warning, for
the check `auth_rls.W010` and the admin. Reads model classes, never the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models

from auth_rls.policy.definition import Understood
from auth_rls.predicates.predicate import Predicate, Ref, Select, tests
from auth_rls.sql.columns import columns_of, model_named

# Operators that compare with whole values; parts of texts and orders need no value to exist.
_WHOLE = ("exact", "in")
# As many choices are named in a message.
_MOST_NAMED = 10


def beside_choices(understood: Understood) -> list[str]:
    """A sentence for every value that the policy compares a column with and that is none of the
    choices of the column's field, those inside selects too."""
    found: dict[str, None] = {}
    for predicate in (understood.rule.using, understood.rule.with_check):
        if predicate is not None:
            found |= dict.fromkeys(_in(predicate, understood.model))
    return list(found)


def _in(predicate: Predicate, model: type[models.Model]) -> Iterator[str]:
    columns = columns_of(model)
    for test in tests(predicate):
        if isinstance(test.value, Select):
            yield from _in(test.value.where, model_named(test.value.model))
        elif test.op in _WHOLE and test.column in columns:
            field: Any = columns[test.column].field
            choices = [str(value) for value, _ in field.flatchoices or ()]
            if not choices:
                continue
            for value in _literals(test.value):
                # A field without a value holds the empty text, whatever its choices.
                if str(value) not in choices and value != "":
                    yield (
                        f"{field.name} of {model._meta.label} is compared with {value!r}, which is "
                        f"none of its choices: {_listed(choices)}."
                    )


def _literals(value: Any) -> list[Any]:
    many = isinstance(value, frozenset | tuple)
    values = sorted(value, key=repr) if many else [value]
    return [each for each in values if not isinstance(each, Ref) and each is not None]


def _listed(choices: list[str]) -> str:
    rest = len(choices) - _MOST_NAMED
    return ", ".join(choices[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
