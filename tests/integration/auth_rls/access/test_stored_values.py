"""What is judged before a write is what will be stored, and what cannot be known before is judged
when it has been stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import F, Value
from django.db.models.signals import post_save, pre_save
from django.test.utils import isolate_apps
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient

from auth_rls import PolicyDenied, check_add, check_change, visible
from auth_rls.rest import PolicyFilterBackend, PolicyModelSerializer, PolicyPermission
from auth_rls.sql.columns import columns_of
from auth_rls.sql.rows import canonical, row_of
from tests.support.policies import policy, user
from tests.zoo.models import Note, Place, Team


class Shown(PolicyModelSerializer):
    class Meta:
        model = Place
        fields = ["id", "city", "code", "sealed"]


class Places(viewsets.ModelViewSet):
    queryset = Place.objects.all()
    serializer_class = Shown
    permission_classes = [PolicyPermission]
    filter_backends = [PolicyFilterBackend]


class AfterSaving(Places):
    """Writes again when the serializer has saved."""

    def perform_create(self, serializer: Any) -> None:
        place = serializer.save()
        place.city = "again"
        place.save()


router = SimpleRouter()
router.register("places", Places)
router.register("again", AfterSaving, basename="again")
urlpatterns = [path("", include(router.urls))]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture
def ada(db: None) -> Any:
    policy(True, on="zoo.view_place")
    return user("ada")


@pytest.fixture
def client(ada: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(ada)
    return client


@contextmanager
def received(signal: Any, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver, sender=Place)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=Place)


def test_a_field_that_converts_is_judged_by_what_it_stores(ada: Any, client: APIClient) -> None:
    policy(with_check={"not": {"code": "ADMIN"}}, on="zoo.add_place")
    policy(True, with_check={"code__startswith": "B"}, on="zoo.change_place")
    check_add(Place(code="other"), ada)
    for code in ("ADMIN", "admin", "aDmin"):
        with pytest.raises(PolicyDenied):
            check_add(Place(code=code), ada)
        assert client.post("/places/", {"code": code}).status_code == 403
    assert not Place.objects.exists()
    place = Place.objects.create(code="A")
    place.code = "bee"
    check_change(place, ada)
    assert client.patch(f"/places/{place.pk}/", {"code": "bee"}).status_code == 200
    assert client.patch(f"/places/{place.pk}/", {"code": "ant"}).status_code == 403
    place.refresh_from_db()
    assert place.code == "BEE"


def test_a_text_with_nul_is_unknown_before_it_is_stored_and_after(ada: Any) -> None:
    """SQLite stores it, and the doors that read compare it with nothing."""
    policy(with_check={"not": {"city": "x"}}, on="zoo.add_place")
    place = Place(city="x\0")
    assert "city" not in row_of(place)
    assert not ada.has_perm("zoo.add_place", place)
    with pytest.raises(PolicyDenied):
        check_add(place, ada)


def test_a_field_that_only_the_database_knows_is_judged_when_it_is_stored(
    ada: Any, client: APIClient
) -> None:
    """Sealed texts are stored backwards, and policies are about what is stored."""
    policy(with_check={"not": {"sealed": "live"}}, on="zoo.add_place")
    assert client.post("/places/", {"sealed": "evil"}).status_code == 403
    assert client.post("/places/", {"sealed": "live"}).status_code == 201
    # Before the write nobody can say.
    with pytest.raises(PolicyDenied):
        check_add(Place(sealed="live"), ada)


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["before", "after"])
def test_receivers_that_run_after_the_guard_get_nothing_by_it(
    client: APIClient, signal: Any
) -> None:
    def move(instance: Place, **kwargs: Any) -> None:
        instance.city = "Rome"
        if signal is post_save:
            Place.objects.filter(pk=instance.pk).update(city="Rome")

    policy(True, with_check={"city": "Oslo"}, on="zoo.change_place")
    policy(with_check={"city": "Oslo"}, on="zoo.add_place")
    place = Place.objects.create(city="Oslo")
    with received(signal, move):
        assert client.post("/places/", {"city": "Oslo"}).status_code == 403
        assert client.patch(f"/places/{place.pk}/", {"city": "Oslo"}).status_code == 403
    assert list(Place.objects.values_list("city", flat=True)) == ["Oslo"]


def test_a_trigger_of_the_database_gets_nothing_by_the_guard(client: APIClient) -> None:
    policy(with_check={"city": "Oslo"}, on="zoo.add_place")
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "CREATE TRIGGER moved AFTER INSERT ON zoo_place BEGIN "
                "UPDATE zoo_place SET city = 'Rome' WHERE id = NEW.id; END"
            )
        else:
            cursor.execute(
                "CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN NEW.city := 'Rome'; RETURN NEW; END $$"
            )
            cursor.execute(
                "CREATE TRIGGER moved BEFORE INSERT ON zoo_place FOR EACH ROW "
                "EXECUTE FUNCTION moved()"
            )
    assert client.post("/places/", {"city": "Oslo"}).status_code == 403
    assert not Place.objects.exists()


def test_a_second_save_in_a_handler_is_judged_as_well(client: APIClient) -> None:
    policy(with_check={"not": {"city": "again"}}, on="zoo.add_place")
    policy(True, with_check={"not": {"city": "again"}}, on="zoo.change_place")
    assert client.post("/again/", {"city": "Oslo"}).status_code == 403
    assert not Place.objects.exists()


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"title": Value("x")}, {"title": "x"}),
        ({"title": "x", "score": F("id")}, {"score__isnull": True}),
        ({"title": "x", "score": F("id")}, {"not": {"score": 1}}),
    ],
    ids=["value", "null", "negated"],
)
def test_an_expression_is_no_value_before_it_is_stored(
    values: dict[str, Any], asked: dict[str, Any]
) -> None:
    ada = user("ada")
    policy(with_check=asked, on="zoo.add_note")
    with pytest.raises(PolicyDenied):
        check_add(Note(**values), ada)


def test_the_key_of_a_new_row_is_not_null() -> None:
    ada = user("ada")
    policy(with_check={"id__isnull": True}, on="zoo.add_note")
    with pytest.raises(PolicyDenied):
        check_add(Note(title="x"), ada)


def test_a_related_object_that_was_saved_late_gives_its_key() -> None:
    ada = user("ada")
    policy(with_check={"team__isnull": True}, on="zoo.add_note")
    team = Team(name="Stage")
    note = Note(title="x", team=team)
    team.save()
    with pytest.raises(PolicyDenied):
        check_add(note, ada)


@isolate_apps("tests.zoo")
def test_what_django_sets_when_it_saves_is_not_known_before() -> None:
    class Stamped(models.Model):
        made = models.DateTimeField(auto_now_add=True)
        moved = models.DateTimeField(auto_now=True)
        default = models.IntegerField(db_default=7)
        picture = models.FileField()

        class Meta:
            app_label = "zoo"

    from django.core.files.base import ContentFile

    new = Stamped(picture=ContentFile(b"", name="a.txt"))
    assert row_of(new) == {}
    names = ["id", "made", "moved", "default", "picture"]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    stored = Stamped.from_db("default", names, [1, moment, moment, 3, "a.txt"])
    assert set(row_of(stored)) == {"id", "made", "default", "picture"}


@isolate_apps("tests.zoo")
def test_an_enum_is_compared_as_it_is_stored() -> None:
    import enum

    class Colour(enum.Enum):
        RED = "r"

    class ColourField(models.CharField):
        def to_python(self, value: Any) -> Any:
            return value if value is None or isinstance(value, Colour) else Colour(value)

        def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
            return self.to_python(value)

        def get_prep_value(self, value: Any) -> Any:
            return None if value is None else self.to_python(value).value

    class Painted(models.Model):
        colour = ColourField(max_length=1, null=True)

        class Meta:
            app_label = "zoo"

    column = columns_of(Painted)["colour"]
    assert canonical(column, Colour.RED) == canonical(column, "r") == "r"
    assert canonical(column, None) is None
    assert "colour" not in row_of(Painted(colour="blue"))


def test_references_to_the_user_go_through_the_fields_conversion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The owner's key is one thing in Python and another in the database."""
    from django.contrib.auth import get_user_model

    ada = user("ada")
    place = Place.objects.create(owner=ada)
    policy({"owner": "$user.id"}, on="zoo.view_restaurant")
    policy(True, on="zoo.view_place", mode="restrictive", name="all")
    key = get_user_model()._meta.pk

    class Prefixed(type(key)):  # type: ignore[misc]
        def to_python(self, value: Any) -> Any:
            return value if value is None or str(value).startswith("u_") else f"u_{value}"

        def get_prep_value(self, value: Any) -> Any:
            return super().get_prep_value(str(value).removeprefix("u_") if value else value)

        def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
            return None if value is None else f"u_{value}"

    policy({"owner": "$user.id"}, on="zoo.view_place")
    monkeypatch.setattr(key, "__class__", Prefixed)
    again = get_user_model().objects.get(username="ada")
    assert again.pk == f"u_{ada.id}"
    assert [row.pk for row in visible(Place.objects.all(), again)] == [place.pk]
