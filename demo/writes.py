"""What the page may do: small JSON views, each asking the policies before it writes.

Owns the writing side. A row that policies hide does not exist (404); one that may be seen and
not touched is refused (403). Only what is asked for is written: a move is one UPDATE.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from auth_rls.querysets import permitted, visible
from auth_rls.subject import Subject
from demo.models import Membership, Message, Task

STEP = 1024.0
_M = TypeVar("_M", bound=models.Model)


class Refused(Exception):
    """What the client is told instead of a result, and under which HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def json_view(view: Callable[..., dict[str, Any]]) -> Callable[..., JsonResponse]:
    """A POST view for people who are signed in, from a JSON object to a JSON object.

    All it writes is one transaction. CSRF protection is the middleware's, as everywhere.
    """

    @require_POST
    @functools.wraps(view)
    def wrapped(request: HttpRequest, **kwargs: Any) -> JsonResponse:
        try:
            if not request.user.is_authenticated:
                raise Refused(401, "Sign in first.")
            with transaction.atomic():
                return JsonResponse(view(request.user, _body(request), **kwargs))
        except Refused as refusal:
            return JsonResponse({"error": refusal.message}, status=refusal.status)

    return wrapped


@json_view
def add_task(user: AbstractUser, body: dict[str, Any]) -> dict[str, Any]:
    """Adds a task at the end of "To do": `{team_id, title, is_public}`."""
    task = Task(
        owner=user,
        team_id=_integer(body, "team_id"),
        title=_text(body, "title"),
        is_public=_boolean(body, "is_public"),
        status=Task.Status.TODO,
    )
    last = Task.objects.filter(status=task.status).aggregate(last=models.Max("position"))["last"]
    task.position = STEP if last is None else last + STEP
    return _added(user, task)


@json_view
def edit_task(user: AbstractUser, body: dict[str, Any], pk: int) -> dict[str, Any]:
    """Changes what is given of `{title, is_public, assignee_id}`."""
    task = _obtain(Task, user, "change", pk)
    if "title" in body:
        task.title = _text(body, "title")
    if "is_public" in body:
        task.is_public = _boolean(body, "is_public")
    if "assignee_id" in body:
        task.assignee_id = None if body["assignee_id"] is None else _integer(body, "assignee_id")
        colleagues = Membership.objects.filter(team_id=task.team_id, user_id=task.assignee_id)
        if task.assignee_id is not None and not colleagues.exists():
            raise Refused(400, "Only members of the team can take the task.")
    return _changed(user, task)


@json_view
def move_task(user: AbstractUser, body: dict[str, Any], pk: int) -> dict[str, Any]:
    """Puts the task into column `status`, between the tasks `after` and `before` (ids or null)."""
    task = _obtain(Task, user, "change", pk)
    if body.get("status") not in Task.Status.values:
        raise Refused(400, f"“status” must be one of {', '.join(Task.Status.values)}.")
    task.status = body["status"]
    # Neighbours are looked up among the rows that the user sees: an id is no way to learn more.
    column = visible(Task.objects.exclude(pk=pk), Subject.from_user(user))
    column = column.filter(status=task.status)
    positions = dict(column.values_list("pk", "position"))
    upper = _position(positions, body.get("after"))
    lower = _position(positions, body.get("before"))
    if upper is not None and lower is not None:
        task.position = (upper + lower) / 2
    elif upper is not None:
        task.position = upper + STEP
    elif lower is not None:
        task.position = lower - STEP
    else:
        task.position = max(positions.values(), default=0.0) + STEP
    return _changed(user, task)


@json_view
def delete_task(user: AbstractUser, body: dict[str, Any], pk: int) -> dict[str, Any]:
    _obtain(Task, user, "delete", pk).delete()
    return {"id": pk}


@json_view
def add_message(user: AbstractUser, body: dict[str, Any]) -> dict[str, Any]:
    """Says `{body}` to the team `team_id`, or to everyone signed in when that is null."""
    team_id = None if body.get("team_id") is None else _integer(body, "team_id")
    text = _text(body, "body")
    return _added(user, Message(author=user, team_id=team_id, body=text, is_public=team_id is None))


def _position(positions: dict[int, float], pk: object) -> float | None:
    return positions.get(pk) if isinstance(pk, int) else None


def _obtain(model: type[_M], user: AbstractUser, action: str, pk: int) -> _M:
    """The row, if `user` may do `action` to it."""
    subject = Subject.from_user(user)
    row = permitted(model._default_manager.all(), subject, action).filter(pk=pk).first()
    if row is None:
        if visible(model._default_manager.filter(pk=pk), subject).exists():
            raise Refused(403, f"No policy lets you {action} this {model._meta.verbose_name}.")
        raise Refused(404, f"There is no such {model._meta.verbose_name}.")
    return row


def _added(user: AbstractUser, row: models.Model) -> dict[str, Any]:
    options = row._meta
    _clean(row)
    if not user.has_perm(f"{options.app_label}.add_{options.model_name}", row):
        raise Refused(403, f"No policy lets you add this {options.verbose_name}.")
    row.save(force_insert=True)
    return {"id": row.pk}


def _changed(user: AbstractUser, row: models.Model) -> dict[str, Any]:
    """Saves, and asks again about the row as it now stands: a change must not carry a row to
    where its author could not have changed it. A refusal rolls the transaction back."""
    options = row._meta
    _clean(row)
    row.save(force_update=True)
    if not user.has_perm(f"{options.app_label}.change_{options.model_name}", row):
        raise Refused(403, f"No policy lets you change the {options.verbose_name} to that.")
    return {"id": row.pk}


def _clean(row: models.Model) -> None:
    try:
        row.clean_fields()
    except ValidationError as error:
        raise Refused(400, " ".join(error.messages)) from error


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "Send a JSON object.")
    return body


def _integer(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(400, f"“{name}” must be a whole number.")
    return value


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Refused(400, f"“{name}” must be true or false.")
    return value


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused(400, f"“{name}” must not be empty.")
    return value.strip()
