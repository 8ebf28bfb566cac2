"""The rows that the page shows, under the column names that the stream uses too.

Every row is read through `auth_rls.visible()`; no rule about who sees what is in this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import Model

from auth_rls.access.querysets import visible
from auth_rls.subjects.subject import Subject
from demo.models import Membership, Message, Task, Team

MESSAGES_SHOWN = 100


def board(user: AbstractUser) -> dict[str, Any]:
    """Everything the page shows to `user`, read at one moment.

    `people` are the names behind the ids in those rows and no more: a user whom no visible row
    mentions is not listed.
    """
    subject = Subject.from_user(user)
    # One transaction has one database snapshot, so that every row that a row refers to is read too.
    with transaction.atomic():
        teams = _rows(Team, subject)
        memberships = _rows(Membership, subject)
        tasks = _rows(Task, subject)
        messages = _rows(Message, subject, latest=MESSAGES_SHOWN)
        mentioned = {user.pk}
        mentioned.update(row["user_id"] for row in memberships)
        mentioned.update(row["owner_id"] for row in tasks)
        mentioned.update(row["assignee_id"] for row in tasks)
        mentioned.update(row["author_id"] for row in messages)
        people = _people(mentioned - {None})
    return {
        "me": {**_person(user), "bypasses": user.is_superuser, "is_staff": user.is_staff},
        "people": people,
        "demo_team": teams,
        "demo_membership": memberships,
        "demo_task": tasks,
        "demo_message": messages,
    }


def _rows(model: type[Model], subject: Subject, latest: int | None = None) -> list[dict[str, Any]]:
    rows = visible(model._default_manager.all(), subject)
    columns = [field.attname for field in model._meta.concrete_fields]
    if latest is None:
        return list(rows.values(*columns))
    return list(rows.order_by("-pk").values(*columns)[:latest])


def _people(ids: Iterable[int]) -> list[dict[str, Any]]:
    return [_person(user) for user in get_user_model().objects.filter(pk__in=ids).order_by("pk")]


def _person(user: AbstractUser) -> dict[str, Any]:
    return {
        "id": user.pk,
        "username": user.username,
        "name": user.get_full_name() or user.username,
    }
