"""Which Django users the user id claims of tokens name, many at once.

Owns reading a name as a value of the setting USER_FIELD, and the queries. Called in database
threads. Whether a token is genuine is decided in `tokens`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.validators import BaseValidator

from auth_rls import conf
from auth_rls.predicates.kinds import Kind, from_text
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import converts, stored_value
from auth_rls.subjects.token_errors import InvalidToken

# How many users that match a user id claim are compared; more can only match by mistake.
_MOST_ALIKE: Final = 10
INACTIVE: Final = "The user of this token is inactive"


def users_named(names: Collection[str]) -> dict[str, Any]:
    """By each name the active Django user whose USER_FIELD it is, None if there is none, or the
    InvalidToken by which a token is refused: of an inactive user, or of a name that several have.

    One query, and a second one if some name no user.
    """
    model = get_user_model()
    field = _user_field()
    values = {name: field_value(field, name) for name in names}
    wanted = [*dict.fromkeys(value for value in values.values() if value is not None)]
    if not wanted:
        return dict.fromkeys(names)
    users = model._default_manager.using(primary(model))
    most = _MOST_ALIKE * len(wanted)
    found = list(users.filter(**_where(field, wanted))[: most + 1])
    if len(found) > most and len(wanted) > 1:
        return {name: users_named([name])[name] for name in names}
    # Some databases compare text without regard to case, so what they find is compared again.
    alike: dict[Any, list[Any]] = {}
    for user in found:
        alike.setdefault(getattr(user, field.attname), []).append(user)
    absent = [value for value in wanted if value not in alike]
    hidden = set(absent) if absent and _exist(field, absent) else set()
    if hidden and len(absent) > 1:
        hidden = {value for value in absent if _exist(field, [value])}
    return {
        name: _chosen(alike.get(value, ()), value in hidden) if value is not None else None
        for name, value in values.items()
    }


def _chosen(alike: Collection[Any], hidden: bool) -> Any:
    if len(alike) > 1:
        return InvalidToken("The user of this token is not unique")
    user = next(iter(alike), None)
    # A default manager may hide users (soft deletion); a hidden user counts as inactive.
    if hidden or (user is not None and not getattr(user, "is_active", False)):
        return InvalidToken(INACTIVE)
    return user


def _exist(field: Any, values: Collection[Any]) -> bool:
    model = get_user_model()
    users = model._base_manager.using(primary(model))
    return bool(users.filter(**_where(field, values)).exists())


def _where(field: Any, values: Collection[Any]) -> dict[str, Any]:
    # Fields of other packages do not know every lookup.
    if len(values) == 1:
        return {field.name: next(iter(values))}
    return {f"{field.name}__in": list(values)}


def _user_field() -> Any:
    model = get_user_model()
    name = conf.current().user_field
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def field_value(field: Any, named: str) -> Any:
    """`named` as a value of a model's field; None if it cannot be one.

    A value has one spelling: "7" is 7, and " 7" and "07" are no value.
    """
    while field.remote_field is not None:
        field = field.target_field
    if "\0" in named:
        return None  # PostgreSQL takes no NUL in text
    try:
        value = field.to_python(named)
        # The column cannot store the value. Other validators only restrict what may be written.
        held = _held(field, value)
        for validator in field.validators:
            if isinstance(validator, BaseValidator):
                validator(held)
    except (ValidationError, ValueError, TypeError, OverflowError):
        return None
    # int() also reads " 7", "0_7" and digits of other scripts.
    if isinstance(value, int) and str(value) != named:
        return None
    # UUID() reads more than policies take for a UUID.
    if isinstance(value, UUID) and _uuid_text(named) != str(value):
        return None
    return value


def _held(field: Any, value: Any) -> Any:
    """The value as the column holds it, where that is known."""
    if not converts(field):
        return value
    try:
        return stored_value(field, value)
    except ValueError:
        return value


def _uuid_text(named: str) -> object:
    try:
        return from_text(Kind.UUID, named)
    except ValueError:
        return None
