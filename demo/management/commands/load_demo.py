"""Puts the demo's accounts, policies and rows into the database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from auth_rls.models import Policy
from demo import seed
from demo.models import STEP, Membership, Message, Task, Team


class Command(BaseCommand):
    help = (
        "Loads the demo: three accounts, their teams, tasks, messages and policies. What is there "
        "already is left as it is, so it can be run again at any time; --reset starts over."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--reset",
            action="store_true",
            help="delete the demo's rows, restore its policies and passwords, load afresh",
        )
        parser.add_argument(
            "--insecure",
            action="store_true",
            help="make accounts with a public password although DEBUG is off",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG and not options["insecure"]:
            raise CommandError(
                "The demo's accounts have a public password, one of them a superuser. "
                "DEBUG is off; pass --insecure if you mean it."
            )
        with transaction.atomic():
            reset = options["reset"]
            if reset:
                for model in (Message, Task, Membership, Team):
                    model.objects.all().delete()
            people = _people(reset)
            _policies(reset)
            rows = 0 if Team.objects.exists() else _rows(people)
        if options["verbosity"] > 1:
            self.stdout.write(f"Demo loaded: {len(people)} people, {rows} new rows.")
        if options["verbosity"] > 0:
            self.stdout.write(_logins())


def _logins() -> str:
    """Who can sign in, one a line: username, password, what they are."""
    lines = [(person.username, person.note) for person in seed.PEOPLE if person.signs_in]
    lines.append((seed.ADMIN, "Superuser: sees every row, may do all in the admin."))
    return "\n".join(f"  {name:<7}{seed.PASSWORD:<7}{note}" for name, note in lines)


def _people(reset: bool) -> dict[str, Any]:
    """Every person of the demo and the superuser, by username."""
    everyone = _group(seed.GROUP, seed.GROUP_PERMISSIONS)
    editors = _group(seed.EDITORS, seed.EDITORS_PERMISSIONS)
    users = get_user_model().objects
    found = {}
    for person in (*seed.PEOPLE, *seed.COLLEAGUES):
        user, created = users.get_or_create(
            username=person.username,
            defaults={
                "first_name": person.first_name,
                "last_name": person.last_name,
                "is_staff": person.edits_policies,
            },
        )
        if created or reset:
            user.set_password(seed.PASSWORD if person.signs_in else None)
            user.save(update_fields=["password"])
            user.groups.add(everyone, *([editors] if person.edits_policies else []))
        found[person.username] = user
    admin, created = users.get_or_create(
        username=seed.ADMIN, defaults={"is_staff": True, "is_superuser": True}
    )
    if created or reset:
        admin.set_password(seed.PASSWORD)
        admin.save(update_fields=["password"])
    found[seed.ADMIN] = admin
    return found


def _group(name: str, permissions: Iterable[str]) -> Group:
    group, created = Group.objects.get_or_create(name=name)
    if created:
        group.permissions.set([_permission(permission) for permission in permissions])
    return group


def _permission(name: str) -> Permission:
    app_label, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app_label, codename=codename)


def _policies(reset: bool) -> None:
    for written in seed.POLICIES:
        policy = Policy.objects.filter(name=written.name).first()
        if policy is not None and not reset:
            continue
        policy = policy or Policy(name=written.name)
        policy.permission = _permission(written.permission)
        policy.audience = written.audience
        policy.using = written.using
        policy.with_check = written.with_check
        policy.mode = Policy.Mode.PERMISSIVE
        policy.enabled = True
        policy.full_clean()
        policy.save()


def _rows(people: dict[str, Any]) -> int:
    teams = {name: Team.objects.create(name=name) for name in seed.TEAMS}
    memberships = [
        Membership(user=people[person.username], team=teams[team], role=role)
        for person in (*seed.PEOPLE, *seed.COLLEAGUES)
        for team, role in person.roles.items()
    ]
    tasks = [
        Task(
            team=teams[task.team],
            title=task.title,
            status=task.status,
            position=STEP * place,
            owner=people[task.owner],
            assignee=people[task.assignee] if task.assignee else None,
            is_public=task.is_public,
        )
        for place, task in enumerate(seed.TASKS, start=1)
    ]
    now = timezone.now()
    messages = [
        Message(
            author=people[message.author],
            team=teams[message.team] if message.team else None,
            body=message.body,
            is_public=message.team is None,
            created_at=now - timedelta(minutes=message.minutes_ago),
        )
        for message in seed.MESSAGES
    ]
    Membership.objects.bulk_create(memberships)
    Task.objects.bulk_create(tasks)
    Message.objects.bulk_create(messages)
    return len(teams) + len(memberships) + len(tasks) + len(messages)
