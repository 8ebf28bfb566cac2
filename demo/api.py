"""The REST API, which the page uses for its writes too: `/api/tasks/`, `messages`, `teams`.

Owns the requests and their validation. Nothing in this file decides who may do what: the policies
do. Columns are named as in the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Max, QuerySet
from rest_framework import mixins, pagination, permissions, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

import realtime
from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyOrderingFilter,
    PolicyPermission,
    PolicyPrimaryKeyRelatedField,
    PolicySearchFilter,
)
from demo.models import STEP, Membership, Message, Task, Team

NOT_A_MEMBER = "Only members of the team can take the task."


@contextmanager
def with_receipt() -> Iterator[None]:
    """A transaction that the page which wrote it knows again, by the header of the answer."""
    with transaction.atomic():
        yield
        realtime.receipt()


class Pages(pagination.LimitOffsetPagination):
    default_limit = 100
    max_limit = 1000


class Guarded(viewsets.GenericViewSet):
    """A view under the policies, for people who are signed in or have a token."""

    permission_classes = [permissions.IsAuthenticated, PolicyPermission]
    filter_backends = [PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter]
    pagination_class = Pages


class ColleagueField(serializers.PrimaryKeyRelatedField):
    """A user, among those whose membership the request's user may see."""

    default_error_messages = {"does_not_exist": NOT_A_MEMBER}

    def get_queryset(self) -> QuerySet[Any]:
        members = Membership.objects.for_subject(self.context["request"])
        return get_user_model()._default_manager.filter(memberships__in=members).distinct()


class TaskSerializer(PolicyModelSerializer):
    team_id = PolicyPrimaryKeyRelatedField(source="team", queryset=Team.objects.all())
    assignee_id = ColleagueField(source="assignee", allow_null=True, required=False)

    class Meta:
        model = Task
        fields = (
            *("id", "team_id", "title", "status", "position", "assignee_id", "owner_id"),
            *("is_public", "updated_at"),
        )
        read_only_fields = ("position", "updated_at")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        team = attrs.get("team", getattr(self.instance, "team", None))
        assignee = attrs.get("assignee", getattr(self.instance, "assignee", None))
        asked = "assignee" in attrs or "team" in attrs
        colleagues = Membership.objects.filter(team=team, user=assignee)
        if asked and assignee is not None and not colleagues.exists():
            raise serializers.ValidationError({"assignee_id": NOT_A_MEMBER})
        return attrs

    def update(self, instance: Task, validated_data: dict[str, Any]) -> Task:
        # Only the columns of the request, so that a concurrent change of another column is kept.
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save(update_fields=[*validated_data, "updated_at"])
        return instance


class MoveSerializer(serializers.Serializer):
    """Into column `status`, between the tasks `after` and `before`, or to its end."""

    status = serializers.ChoiceField(Task.Status.choices)
    after = serializers.IntegerField(allow_null=True, required=False)
    before = serializers.IntegerField(allow_null=True, required=False)


class Tasks(viewsets.ModelViewSet, Guarded):
    queryset = Task.objects.order_by("id")
    serializer_class = TaskSerializer
    search_fields = ["title"]

    def perform_create(self, serializer: Any) -> None:
        """Create the task as the request's user's, at the end of its column."""
        status = serializer.validated_data.get("status", Task.Status.TODO)
        last = Task.objects.filter(status=status).aggregate(last=Max("position"))["last"]
        position = STEP if last is None else last + STEP
        with with_receipt():
            serializer.save(owner=self.request.user, position=position)

    def perform_update(self, serializer: Any) -> None:
        with with_receipt():
            serializer.save()

    def perform_destroy(self, instance: Task) -> None:
        with with_receipt():
            instance.delete()

    @action(detail=True, methods=["post"], serializer_class=MoveSerializer)
    def move(self, request: Request, pk: str) -> Response:
        """Puts the task between two others. One move is one UPDATE of one row."""
        task = self.get_object()
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        place = asked.validated_data
        # Neighbours are looked up among the rows that the user sees, so that ids reveal nothing
        # more.
        column = Task.objects.exclude(pk=task.pk).filter(status=place["status"])
        positions = dict(column.for_subject(request).values_list("pk", "position"))
        task.status = place["status"]
        task.position = _between(positions, place.get("after"), place.get("before"))
        with with_receipt():
            task.save(update_fields=["status", "position", "updated_at"])
        return Response(TaskSerializer(task, context=self.get_serializer_context()).data)


class MessageSerializer(PolicyModelSerializer):
    """To the team `team_id`, or to everyone signed in when that is null."""

    team_id = PolicyPrimaryKeyRelatedField(
        source="team", queryset=Team.objects.all(), allow_null=True, required=False
    )

    class Meta:
        model = Message
        fields = ("id", "team_id", "author_id", "body", "is_public", "created_at")
        read_only_fields = ("is_public", "created_at")


class Messages(mixins.CreateModelMixin, mixins.ListModelMixin, mixins.RetrieveModelMixin, Guarded):
    queryset = Message.objects.order_by("id")
    serializer_class = MessageSerializer
    search_fields = ["body"]

    def perform_create(self, serializer: Any) -> None:
        team = serializer.validated_data.get("team")
        serializer.save(author=self.request.user, is_public=team is None)


class TeamSerializer(PolicyModelSerializer):
    class Meta:
        model = Team
        fields = ("id", "name")


class Teams(viewsets.ReadOnlyModelViewSet, Guarded):
    queryset = Team.objects.order_by("id")
    serializer_class = TeamSerializer
    search_fields = ["name"]


def _between(positions: dict[int, float], after: int | None, before: int | None) -> float:
    upper = None if after is None else positions.get(after)
    lower = None if before is None else positions.get(before)
    if upper is not None and lower is not None:
        return (upper + lower) / 2
    if upper is not None:
        return upper + STEP
    if lower is not None:
        return lower - STEP
    return max(positions.values(), default=0.0) + STEP


router = DefaultRouter()
router.register("tasks", Tasks)
router.register("messages", Messages)
router.register("teams", Teams)
