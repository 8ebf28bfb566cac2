"""The rows of the demo: teams, who is in them, tasks on a board, and messages.

Owns their columns. Nothing in this file decides who may see or change a row: the policies do, which
`load_demo` puts into the database.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from auth_rls.managers import PolicyManager
from realtime import publish

# The distance of the tasks' positions at first; see Task.position.
STEP = 1024.0


@publish
class Team(models.Model):
    name = models.CharField(max_length=60, unique=True)

    objects = PolicyManager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


@publish
class Membership(models.Model):
    class Role(models.TextChoices):
        MEMBER = "member", "Member"
        LEAD = "lead", "Lead"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)

    objects = PolicyManager()

    class Meta:
        ordering = ["team", "user"]
        constraints = [
            models.UniqueConstraint(fields=["user", "team"], name="demo_membership_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team}"


@publish
class Task(models.Model):
    class Status(models.TextChoices):
        TODO = "todo", "To do"
        DOING = "doing", "Doing"
        DONE = "done", "Done"

    team = models.ForeignKey(Team, models.CASCADE, related_name="tasks")
    title = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.TODO)
    # A task dropped between two others takes the middle of their positions, so that one move is
    # one UPDATE of one row.
    position = models.FloatField(default=0)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="assigned_tasks",
    )
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="owned_tasks")
    is_public = models.BooleanField("public", default=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = PolicyManager()

    class Meta:
        ordering = ["status", "position", "id"]

    def __str__(self) -> str:
        return self.title


@publish
class Message(models.Model):
    team = models.ForeignKey(
        Team, models.CASCADE, null=True, blank=True, related_name="team_messages"
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="demo_messages"
    )
    body = models.CharField(max_length=1000)
    is_public = models.BooleanField("public", default=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = PolicyManager()

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return self.body[:60]
