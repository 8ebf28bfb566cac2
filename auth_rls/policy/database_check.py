"""Whether the database can evaluate a policy that the models allow.

A policy is parsed by the models. If the models are ahead of the database, or a table differs from
its model, every query with the policy's condition fails. Owns the check: the database plans such a
query, which reads no rows. Call it in a database thread.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

from django.db import DatabaseError, models, transaction

from auth_rls.policy.definition import (
    ACTIONS,
    Definition,
    PolicyProblem,
    Understood,
    target,
    understand,
)
from auth_rls.predicates.predicate import (
    UNKNOWN,
    All,
    Any_,
    Const,
    Not,
    Predicate,
    RefTest,
    Select,
    Test,
    has_refs,
    tests,
)
from auth_rls.sql import stored_types
from auth_rls.sql.columns import model_named
from auth_rls.sql.compile import condition
from auth_rls.sql.failures import first_line, public_reason
from auth_rls.sql.primary import primary

logger = logging.getLogger(__name__)

# For a check the types of columns are read anew, once for many policies.
_FRESH_SECONDS = 1.0


def problem_of(
    definition: Definition, databases: Collection[str] | None = None
) -> PolicyProblem | None:
    """Why the policy cannot be used, by the models or by the database; None if it can. Every
    database with one of its tables plans a query, or only `databases` if given."""
    typed([definition], databases, _FRESH_SECONDS)
    try:
        understood = understand(definition)
    except PolicyProblem as problem:
        return problem
    rule = understood.rule
    for field, predicate in (("using", rule.using), ("with_check", rule.with_check)):
        for model, where in () if predicate is None else _asked(understood, predicate):
            alias = primary(model)
            if databases is not None and alias not in databases:
                continue
            found = _problem(field, model, where, alias)
            if found is not None:
                return found
    return None


def typed(
    definitions: Iterable[Definition],
    databases: Collection[str] | None = None,
    seconds: float | None = None,
) -> list[Definition]:
    """The definitions, when it is known which types the columns have that they may name; see
    `stored_types.look`. With `databases` only those are asked."""
    found = list(definitions)
    aliases = set()
    for definition in found:
        try:
            aliases.add(primary(target(definition)[0]))
        except PolicyProblem:
            continue  # It names no table.
    stored_types.look(aliases if databases is None else aliases & {*databases}, seconds)
    return found


def reason(error: DatabaseError) -> str:
    """The text about this error for pages and clients. The database's own message is logged."""
    logger.warning("the database: %s", first_line(error), extra={"action": "database_refused"})
    return public_reason(error)


def _asked(
    understood: Understood, predicate: Predicate
) -> Iterator[tuple[type[models.Model], Predicate]]:
    """The queries to plan, each as a model and a condition: on the model's table or, where it has
    none, on the tables of the selects."""
    if understood.action in ACTIONS:
        yield understood.model, predicate
        return
    for test in tests(predicate):
        if isinstance(test.value, Select):
            yield model_named(test.value.model), test.value.where


def apart(alias: str) -> AbstractContextManager[None]:
    """A savepoint if a transaction is open, so that a failure inside does not end it. Without a
    transaction nothing is begun, because on SQLite that may have to wait."""
    if transaction.get_connection(alias).in_atomic_block:
        return transaction.atomic(using=alias)
    return nullcontext()


def _problem(
    field: str, model: type[models.Model], predicate: Predicate, alias: str
) -> PolicyProblem | None:
    # No manager: one that hides rows would add a condition.
    rows: models.QuerySet[models.Model] = models.QuerySet(model, using=alias)
    try:
        with apart(alias):
            rows.filter(condition(_for_nobody(predicate), model)).values("pk").order_by().explain()
    except DatabaseError as error:
        return _unanswered(field, error)
    return None


def _unanswered(field: str, error: DatabaseError) -> PolicyProblem:
    text = f"the database cannot evaluate it: {public_reason(error)}"
    return PolicyProblem(field, text, detail=first_line(error))


def _for_nobody(predicate: Predicate) -> Predicate:
    """The predicate with each comparison with a subject's value replaced by one of the same column
    without it."""
    if isinstance(predicate, Const):
        return predicate
    if isinstance(predicate, RefTest):
        return UNKNOWN
    if isinstance(predicate, Not):
        return Not(_for_nobody(predicate.part))
    if isinstance(predicate, All):
        return All(tuple(map(_for_nobody, predicate.parts)))
    if isinstance(predicate, Any_):
        return Any_(tuple(map(_for_nobody, predicate.parts)))
    value = predicate.value
    if isinstance(value, Select):
        where = _for_nobody(value.where)
        selected = Select(value.model, value.column, where, value.prefix, value.kind)
        return Test(predicate.column, predicate.op, selected)
    if has_refs(value):
        return Test(predicate.column, "isnull", False)
    return predicate
