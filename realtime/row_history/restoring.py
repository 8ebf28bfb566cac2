"""The difference of two states of a row, and the way back to an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, models, transaction

from auth_rls.access.querysets import visible
from auth_rls.access.snapshot import permission_name
from auth_rls.access.writes import check_add, check_change
from auth_rls.sql.columns import columns_of, concrete
from auth_rls.subjects.resolve import subject_of
from realtime import conf
from realtime.row_history.errors import CannotRevert
from realtime.row_history.past import as_of
from realtime.subscriptions.change import Change
from realtime.wal.actor import actor

State = models.Model | Change | Mapping[str, Any] | None


def diff(before: Any, after: Any = None) -> dict[str, tuple[Any, Any]]:
    """What differs between two states of a row: by column, the value before and the value after.

    A state is an instance, such as one of `realtime.as_of`; a `Change`, which stands for the row
    after it; a dict of columns; or None for no row. Compared are the columns that both have, and of
    no row and a row all. `diff(change)` is what this one change did.

    Instances give Python values and changes JSON values, so compare like with like. Raises
    TypeError for anything else.
    """
    if after is None and isinstance(before, Change):
        return _difference(before.old, before.new)
    return _difference(_row(before), _row(after))


def _row(state: State) -> Mapping[str, Any] | None:
    if state is None or isinstance(state, Mapping):
        return state
    if isinstance(state, Change):
        return state.new
    if isinstance(state, models.Model):
        missing = state.get_deferred_fields()
        return {
            name: getattr(state, column.attname)
            for name, column in columns_of(type(state)).items()
            if column.attname not in missing
        }
    raise TypeError(
        f"expected an instance, a Change, a dict or None, not {type(state).__name__} {state!r}"
    )


def _difference(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    if before is None or after is None:
        one = before or after or {}
        return {name: (value, None) if before else (None, value) for name, value in one.items()}
    return {
        name: (before[name], after[name])
        for name in before
        if name in after and before[name] != after[name]
    }


def revert(instance: models.Model, to: Any, *, user: Any = None) -> models.Model:
    """Put a row back as it was, and return it as saved.

    `to` is a seq or a datetime: the row gets the values that it had there, or is added again if it
    has been deleted since. With a `Change` only this change is undone: the columns that it changed
    get back the values from before it, and later changes of other columns stay.

    Asked for a `user`, or a `Subject`, the row and its past must be visible to them, they must hold
    the Django permission to change or to add, and policies must allow the write. Without one it is
    the service role, as trusted code asks. Columns that are not published stay as they are. All is
    one transaction, and the user is its actor. The instance's `save` runs, and so do signals.

    Raises CannotRevert where the row did not exist then, its key was another one, a value cannot be
    stored any more (it is not unique now, what it refers to is gone, a constraint refuses it) or,
    for a row to be added again, a column is not known; `HistoryLost` as `realtime.as_of` does;
    PermissionDenied. Nothing is changed then. A row that is hidden from the user is answered as one
    that is not there.
    """
    model: Any = concrete(type(instance))
    alias = conf.current().DATABASE
    with transaction.atomic(using=alias):
        # Locked before it is compared, so that no change in between is lost.
        rows: models.QuerySet[Any] = models.QuerySet(model, using=alias).filter(pk=instance.pk)
        present = rows.select_for_update().first()
        if user is not None and present is not None and not visible(rows, user).exists():
            # What is answered must not tell it from a row that is not there.
            present = None
        then, fields = _then(instance, present, to, user)
        if present is None:
            saved = _whole(model, then)
            _ask(saved, "add", user)
        else:
            fields = [field for field in fields if _differs(field, present, then)]
            saved = present
            for field in fields:
                setattr(saved, field.attname, getattr(then, field.attname))
            _ask(saved, "change", user)
        _validate(saved, fields)
        try:
            with transaction.atomic(using=alias), _acting(user):
                if present is None:
                    saved.save(using=alias, force_insert=True)
                elif fields:
                    saved.save(using=alias, update_fields=[field.name for field in fields])
        except IntegrityError:
            raise CannotRevert(
                "the database refuses it: a value is not unique, refers to a row that is gone, or "
                "breaks a constraint"
            ) from None
        return saved


def _then(
    instance: models.Model, present: models.Model | None, to: Any, user: Any
) -> tuple[Any, list[Any]]:
    """The row as it was, and the fields that are to be as there."""
    at = to
    if isinstance(to, Change):
        if to.model is not concrete(type(instance)) or to.pk != instance.pk:
            raise CannotRevert("the change is one of another row, or of an earlier key")
        if to.type not in ("UPDATE", "DELETE"):
            raise CannotRevert(f"an {to.type} is not undone; delete the row yourself")
        if (to.type == "DELETE") is not (present is None):
            raise CannotRevert(
                "the row has been deleted since, or you may not see it"
                if present is None
                else "the row is there again"
            )
        at = to.seq - 1
    then = as_of(instance if present is None else present, at, subject=user)
    if then is None:
        raise CannotRevert("the row did not exist there, or you may not see it as it was")
    if then.pk != instance.pk:
        raise CannotRevert(f"its key was {then.pk!r} there, and a key is not put back")
    missing = then.get_deferred_fields()
    fields = [
        field
        for field in type(then)._meta.concrete_fields
        if field.attname not in missing
        and not field.primary_key
        and not isinstance(field, models.GeneratedField)
        and (not isinstance(to, Change) or to.type == "DELETE" or field.column in to.changed)
    ]
    return then, fields


def _whole(model: Any, then: Any) -> Any:
    """A new instance of a row that was deleted. Raises CannotRevert."""
    missing = then.get_deferred_fields()
    own = [
        field
        for field in model._meta.concrete_fields
        if not isinstance(field, models.GeneratedField)
    ]
    unknown = sorted(field.column for field in own if field.attname in missing)
    if unknown:
        raise CannotRevert(
            f"the row would be added without {', '.join(unknown)}, which is not published or was "
            "not captured ever since"
        )
    return model(**{field.attname: getattr(then, field.attname) for field in own})


def _differs(field: Any, present: Any, then: Any) -> bool:
    return bool(getattr(present, field.attname) != getattr(then, field.attname))


def _ask(instance: models.Model, action: str, user: Any) -> None:
    """Raise PermissionDenied unless the permission is held and policies allow the write."""
    if user is None:
        return
    subject = subject_of(user)
    if subject is None or not subject.bypasses_rls:
        name = permission_name(type(instance), action)
        holder = None if subject is None else subject.user
        if holder is None or not holder.has_perm(name):
            raise PermissionDenied(f"You do not hold the permission {name}.")
    (check_add if action == "add" else check_change)(instance, user)


def _validate(instance: models.Model, fields: list[Any]) -> None:
    """Raise CannotRevert where the values can no longer be stored."""
    kept = {field.name for field in instance._meta.concrete_fields} - {f.name for f in fields}
    adding = instance._state.adding
    exclude = set() if adding else kept
    try:
        for field in fields:
            if field.remote_field is not None and getattr(instance, field.attname) is not None:
                field.validate(getattr(instance, field.attname), instance)
        instance.validate_unique(exclude=exclude)
        instance.validate_constraints(exclude=exclude)
    except ValidationError as error:
        raise CannotRevert(" ".join(error.messages)) from None


@contextmanager
def _acting(user: Any) -> Iterator[None]:
    subject = None if user is None else subject_of(user)
    if subject is None or subject.user is None:
        yield
        return
    with actor(subject.user):
        yield
