"""`assert_visible` and `assert_hidden`: the verdict of every door on one row, and the reasons."""

from __future__ import annotations

from typing import Any

from django.db import models

from auth_rls.access.snapshot import permission_name
from auth_rls.explain import askers, questions, report
from auth_rls.explain.errors import ExplainError
from auth_rls.explain.questions import Answer, Question
from auth_rls.policy.definition import actions_of
from auth_rls.sql.columns import concrete
from realtime.testing.preconditions import SetupError


def assert_visible(user: Any, instance: models.Model, perm: str | None = None) -> None:
    """Fail unless the policies let `user`, a Django user or a `Subject`, see the stored row of
    `instance`, by every door: the stream, querysets, `has_perm`, and REST where it is installed.

    `perm` is another permission ("tasks.change_task") or action ("change"); of an add the values of
    the instance are judged. A topic is an instance of `realtime.models.Topic`.

    Raises AssertionError, which names the policies and the clauses that decided; SetupError for an
    instance that is not stored, or a permission on another model.
    """
    found = answer(user, instance, perm)
    if not found.allowed:
        raise AssertionError(_text(found, "denied", "allowed"))


def assert_hidden(user: Any, instance: models.Model, perm: str | None = None) -> None:
    """Fail unless the policies and every door refuse; see `assert_visible`."""
    found = answer(user, instance, perm)
    if found.explanation.allowed or not found.agree:
        raise AssertionError(_text(found, "allowed", "denied"))


def answer(user: Any, instance: models.Model, perm: str | None = None) -> Answer:
    """The policies' verdict and that of every door. Raises SetupError."""
    model = concrete(type(instance))
    action = _action(model, perm)
    who = askers.asker_for(user)
    if action in ("view", "change", "delete"):
        if instance.pk is None:
            raise SetupError(
                f"The {model._meta.label} has no key, so it is not stored: save() it first. Only "
                "of an add the values of an instance are judged."
            )
        try:
            instance = questions.stored_row(model, questions.key_text(instance.pk))
        except ExplainError as error:
            raise SetupError(error.message) from None
    return questions.answer(who, Question(who.subject, who.user, action, instance, who.refused))


def _action(model: type[models.Model], perm: str | None) -> str:
    actions = actions_of(model)
    if perm is None:
        return actions[0]
    for action in actions:
        if perm in (action, permission_name(model, action)):
            return action
    names = ", ".join(permission_name(model, action) for action in actions)
    raise SetupError(f"{perm!r} is no permission on {model._meta.label}. Its permissions: {names}.")


def _text(found: Answer, verdict: str, wanted: str) -> str:
    doubt = "" if found.agree else ", and the doors do not agree"
    head = f"{report.heading(found)}: {verdict}{doubt}; expected: {wanted} by every door."
    if not found.agree:
        head = f"{report.heading(found)}: the doors do not agree; expected: {wanted} by every door."
    return "\n".join([head, *report.reasons(found)])
