"""The write guard around a view's handler: policies judge each row that the handler saves.

Rows are judged at the signal that every `save()` sends. Where a serializer saves in bulk, which
sends no signal, the rows it returns are judged before the transaction ends. A handler runs in one
transaction, so that a refusal leaves no row behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from django.db import models, router, transaction
from django.db.models.signals import pre_save

from auth_rls.access.querysets import permitted
from auth_rls.access.writes import check_add, check_change, check_saved, denied
from auth_rls.rest.view_info import model_of, serializer_of, written_models
from auth_rls.sql.columns import concrete
from auth_rls.subjects.subject import Subject

_current: ContextVar[Guard | None] = ContextVar("auth_rls_rest_guard", default=None)


class Guard:
    """Judges for one subject the rows that one view saves."""

    def __init__(self, view: Any, subject: Subject) -> None:
        self.subject = subject
        self._view = view
        self._model = model_of(view)
        self._nested: frozenset[type[models.Model]] | None = None
        # By identity. The instances are kept so that no other object gets the same identity.
        self._judged: dict[int, models.Model] = {}

    def run(self, handler: Callable[[], Any]) -> Any:
        """Runs the handler and returns its result. Raises PolicyDenied, with nothing written, for
        a row that no policy allows."""
        token = _current.set(self)
        try:
            with transaction.atomic(using=router.db_for_write(self._model)):
                return handler()
        finally:
            _current.reset(token)

    def concerns(self, model: type[models.Model]) -> bool:
        """Whether the guard judges rows of `model`: the model of the view's queryset, and those
        of its serializer and of the writable serializers nested in it."""
        if model is self._model:
            return True
        if self._nested is None:
            self._nested = written_models(serializer_of(self._view))
        return model in self._nested

    def judge(self, instance: models.Model) -> None:
        check = check_add if instance._state.adding else check_change
        check(instance, self.subject)
        self._judged[id(instance)] = instance

    def watch(self, serializer: Any) -> Any:
        """The serializer, with the rows that its `create` and `update` return judged."""
        create, update = serializer.create, serializer.update

        def watched_create(validated_data: Any) -> Any:
            return self._looked_at(create(validated_data), {})

        def watched_update(instance: Any, validated_data: Any) -> Any:
            before = self._before(instance)
            return self._looked_at(update(instance, validated_data), before)

        serializer.create, serializer.update = watched_create, watched_update
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
            if id(instance) in self._judged or not self.concerns(model):
                continue
            may_change = before.get((model, instance.pk))
            if may_change is False:
                raise denied(model, "change", "No policy lets you change this {}")
            check_saved(instance, self.subject, "add" if may_change is None else "change")
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
