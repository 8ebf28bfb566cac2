"""A REST interface of notes, with one view for each way to save; and what its tests ask."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import Http404
from django.urls import include, path
from rest_framework import generics, serializers, viewsets
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from auth_rls.rest import (
    PolicyFilterBackend,
    PolicyModelSerializer,
    PolicyPermission,
    SubjectAuthentication,
)
from tests.zoo.models import Note, Team

MINE = {"owner": "$user.id"}


class NoteSerializer(serializers.ModelSerializer):
    class Meta:
        model = Note
        fields = ["id", "title", "owner", "team", "is_public", "score"]


class Guarded:
    queryset = Note.objects.order_by("id")
    serializer_class = NoteSerializer
    filter_backends = [PolicyFilterBackend]
    permission_classes = [PolicyPermission]


class Notes(Guarded, viewsets.ModelViewSet):
    @action(detail=True, methods=["post"])
    def publish(self, request: Any, pk: str) -> Response:
        note = self.get_object()
        note.is_public = True
        note.save()
        return Response(NoteSerializer(note).data)

    @action(detail=False, methods=["delete"])
    def clear(self, request: Any) -> Response:
        self.filter_queryset(self.get_queryset()).delete()
        return Response(status=204)

    @action(detail=False, methods=["post"])
    def many(self, request: Any) -> Response:
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


class Owned(Notes):
    def perform_create(self, serializer: Any) -> None:
        serializer.save(owner=self.request.user)


class Bare(Notes):
    """Without the filter backend: the permission alone decides about objects."""

    filter_backends: list[Any] = []


class Narrowed(Notes):
    """Without the permission: the filter backend alone."""

    permission_classes: list[Any] = []


class Both(Notes):
    permission_classes = [IsAuthenticated & PolicyPermission]


class BulkList(serializers.ListSerializer):
    """What REST framework's documentation proposes for speed: no `save()`, so no signal."""

    def create(self, validated_data: Any) -> Any:
        return Note.objects.bulk_create([Note(**values) for values in validated_data])

    def update(self, instance: Any, validated_data: Any) -> Any:
        notes = []
        for note, values in zip(instance, validated_data, strict=True):
            for name, value in values.items():
                setattr(note, name, value)
            notes.append(note)
        Note.objects.bulk_update(notes, ["title", "owner"])
        return notes


class BulkSerializer(NoteSerializer):
    class Meta(NoteSerializer.Meta):
        list_serializer_class = BulkList


class Bulk(Notes):
    serializer_class = BulkSerializer

    @action(detail=False, methods=["put"])
    def all(self, request: Any) -> Response:
        notes = list(Note.objects.order_by("id"))
        serializer = self.get_serializer(notes, data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)


class PutAsCreate(Notes):
    def update(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().update(request, *args, **kwargs)
        except Http404:
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            serializer.save(pk=kwargs["pk"])
            return Response(serializer.data, status=201)


class Put(Notes):
    """An update that writes past `save()`."""

    class serializer_class(NoteSerializer):
        def update(self, instance: Any, validated_data: Any) -> Any:
            Note.objects.filter(pk=instance.pk).update(**validated_data)
            instance.refresh_from_db()
            return instance


class TeamSerializer(serializers.ModelSerializer):
    class Meta:
        model = Team
        fields = ["id", "name"]


class WithTeam(Notes):
    class serializer_class(NoteSerializer):
        team = TeamSerializer()

        def create(self, validated_data: Any) -> Any:
            team = Team.objects.create(**validated_data.pop("team"))
            return Note.objects.create(team=team, **validated_data)


class Careful(Notes):
    class serializer_class(PolicyModelSerializer):
        class Meta(NoteSerializer.Meta):
            pass


class ByHand(APIView):
    queryset = Note.objects.all()
    permission_classes = [PolicyPermission]

    def post(self, request: Any) -> Response:
        serializer = NoteSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


class Blind(APIView):
    permission_classes = [PolicyPermission]

    def get(self, request: Any) -> Response:
        return Response("shown to anybody")


class Asynchronous(ByHand):
    async def post(self, request: Any) -> Response:  # type: ignore[override]
        return Response("never")


@api_view(["GET"])
@permission_classes([PolicyPermission])
def blind_function(request: Any) -> Response:
    return Response("shown to anybody")


class ByToken(Guarded, generics.ListCreateAPIView):
    authentication_classes = [SubjectAuthentication, SessionAuthentication]


class ByPassword(Guarded, generics.ListCreateAPIView):
    """A view that takes no session."""

    authentication_classes = [BasicAuthentication]


router = SimpleRouter()
for name, viewset in {
    "notes": Notes,
    "owned": Owned,
    "bare": Bare,
    "narrowed": Narrowed,
    "both": Both,
    "bulk": Bulk,
    "put-as-create": PutAsCreate,
    "put": Put,
    "with-team": WithTeam,
    "careful": Careful,
}.items():
    router.register(name, viewset, basename=name)
urlpatterns = [
    path("", include(router.urls)),
    path("by-hand/", ByHand.as_view()),
    path("blind/", Blind.as_view()),
    path("blind-function/", blind_function),
    path("by-token/", ByToken.as_view()),
    path("by-password/", ByPassword.as_view()),
]


def titles(response: Any) -> list[str]:
    assert response.status_code == 200
    return [row["title"] for row in response.json()]


def note(title: str, owner: User | None = None, **fields: Any) -> Note:
    return Note.objects.create(title=title, owner=owner, **fields)


def stored() -> set[str]:
    return set(Note.objects.values_list("title", flat=True))
