"""The write guard around a view's handler: policies judge each row that the handler saves.

A row is judged twice: at the signal before every `save()`, so that a refused row has no effect; and
after it is stored, because fields, other receivers and the database may store other values than the
instance had. If a serializer saves in bulk, which sends no signal, the rows that it returns are
judged. A handler runs in one transaction, so that a refusal leaves no row behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from django.db import models, router, transaction
from django.db.models.signals import pre_save

from auth_rls.access.querysets import permitted
from auth_rls.access.writes import (
    Write,
    check_saved,
    denied,
    is_stored,
    plan_add,
    plan_change,
)
from auth_rls.rest.view_info import model_of, serializer_of, written_models
from auth_rls.sql.columns import concrete
from auth_rls.sql.inheritance import ancestors
from auth_rls.subjects.subject import Subject

_current: ContextVar[Guard | None] = ContextVar("auth_rls_rest_guard", default=None)


class Guard:
    """Judges for one subject the rows that one view saves."""

    def __init__(self, view: Any, subject: Subject) -> None:
        self.subject = subject
        self._view = view
        self._model = model_of(view)
        self._guarded: set[type[models.Model]] | None = None
        # By identity. The instances are kept so that no other object gets the same identity.
        self._saved: dict[int, models.Model] = {}
        # Those of them whose stored row was not judged yet.
        self._pending: dict[int, Write] = {}

    def run(self, handler: Callable[[], Any]) -> Any:
        """Run the handler and return its result. Raises PolicyDenied, with nothing written, for a
        row that no policy allows."""
        token = _current.set(self)
        try:
            with transaction.atomic(using=router.db_for_write(self._model)):
                result = handler()
                for key in list(self._pending):
                    self._check_stored(key, gone=True)
                return result
        finally:
            _current.reset(token)

    def concerns(self, model: type[models.Model]) -> bool:
        """Whether the guard judges rows of `model`: the model of the view's queryset, those of its
        serializer and of the writable serializers nested in it, and in multi-table inheritance
        every model that shares a row with one of these."""
        if self._guarded is None:
            self._guarded = {self._model, *written_models(serializer_of(self._view))}
        return any(
            model is each or model in ancestors(each) or each in ancestors(model)
            for each in self._guarded
        )

    def judge(self, instance: models.Model) -> None:
        """Judge the instance before it is saved. Raises PolicyDenied."""
        model = concrete(type(instance))
        adding = instance._state.adding
        write = (plan_add if adding else plan_change)(instance, self.subject)
        if write is None or write.verdict is False:
            words = "add this {}" if adding else "change this {}"
            if write is not None and not adding:
                words = "change the {} to that"
            raise denied(model, "add" if adding else "change", f"No policy lets you {words}")
        self._saved[id(instance)] = instance
        # The first of several saves in the same view decides whether it was added.
        self._pending.setdefault(id(instance), write)

    def _check_stored(self, key: int, *, gone: bool = False) -> None:
        """Judge the stored row of an instance. `gone`: it may have been deleted since."""
        instance, write = self._saved[key], self._pending.pop(key)
        if gone and not is_stored(instance):
            return
        check_saved(instance, self.subject, write.actions)

    def judging(self, serializer: Any) -> Any:
        """The serializer, changed so that the rows which its `create` and `update` return are
        judged."""
        create, update = serializer.create, serializer.update

        def judged_create(validated_data: Any) -> Any:
            return self._looked_at(create(validated_data), {})

        def judged_update(instance: Any, validated_data: Any) -> Any:
            before = self._before(instance)
            return self._looked_at(update(instance, validated_data), before)

        serializer.create, serializer.update = judged_create, judged_update
        return serializer

    def _before(self, instance: Any) -> dict[Any, bool]:
        """Whether the subject may change each of the instances, by model and key."""
        rows = [one for one in _instances(instance) if self.concerns(concrete(type(one)))]
        found: dict[Any, bool] = {}
        for model in {concrete(type(one)) for one in rows}:
            keys = [one.pk for one in rows if concrete(type(one)) is model]
            using = router.db_for_write(model)
            stored: models.QuerySet[Any] = models.QuerySet(model, using=using).filter(pk__in=keys)
            allowed = set(permitted(stored, self.subject, "change").values_list("pk", flat=True))
            found.update({(model, key): key in allowed for key in keys})
        return found

    def _looked_at(self, result: Any, before: dict[Any, bool]) -> Any:
        for instance in _instances(result):
            model = concrete(type(instance))
            if id(instance) in self._pending:
                self._check_stored(id(instance))
            if id(instance) in self._saved or not self.concerns(model):
                continue
            may_change = before.get((model, instance.pk))
            if may_change is False:
                raise denied(model, "change", "No policy lets you change this {}")
            action = "add" if may_change is None else "change"
            tables = dict.fromkeys((model, *ancestors(model)), action)
            check_saved(instance, self.subject, tables)
        return result


def _instances(result: Any) -> Iterable[Any]:
    if isinstance(result, models.Model):
        return [result]
    if isinstance(result, list | tuple | models.QuerySet):
        return [one for one in result if isinstance(one, models.Model)]
    return []


def _before_save(sender: Any, instance: models.Model, raw: bool = False, **kwargs: Any) -> None:
    guard = _current.get()
    if guard is not None and not raw and guard.concerns(concrete(sender)):
        guard.judge(instance)


pre_save.connect(_before_save, weak=False, dispatch_uid="auth_rls.rest.guard")
