"""Models of the test run. A changed model needs `makemigrations zoo`: PostgreSQL checks foreign
keys to migrated apps when a table is made, so run_syncdb, which comes first, cannot make these.

`Specimen` has one column of every concrete field type of Django, each nullable, so that a test
can say what it means and no more.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Upper

from realtime import publish


@publish
class Team(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    """Not published: read by `select` in policies."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    team = models.ForeignKey(Team, models.CASCADE)
    role = models.CharField(max_length=20, default="member")

    def __str__(self) -> str:
        return f"{self.user_id} in {self.team_id} as {self.role}"


@publish
class Note(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True)
    team = models.ForeignKey(Team, models.CASCADE, null=True, blank=True)
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True, default="")
    is_public = models.BooleanField(default=False)
    score = models.IntegerField(null=True, blank=True)
    price = models.DecimalField(max_digits=12, decimal_places=2, null=True, blank=True)
    created = models.DateTimeField(null=True, blank=True)
    ref = models.UUIDField(null=True, blank=True)

    def __str__(self) -> str:
        return self.title


@publish
class Specimen(models.Model):
    boolean = models.BooleanField(null=True)
    small = models.SmallIntegerField(null=True)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    positive_small = models.PositiveSmallIntegerField(null=True)
    positive = models.PositiveIntegerField(null=True)
    positive_big = models.PositiveBigIntegerField(null=True)
    real = models.FloatField(null=True)
    decimal = models.DecimalField(max_digits=20, decimal_places=4, null=True)
    char = models.CharField(max_length=200, null=True)
    text = models.TextField(null=True)
    slug = models.SlugField(null=True)
    email = models.EmailField(null=True)
    url = models.URLField(null=True)
    file = models.FileField(null=True)
    file_path = models.FilePathField(path="/", null=True)
    date = models.DateField(null=True)
    time = models.TimeField(null=True)
    moment = models.DateTimeField(null=True)
    duration = models.DurationField(null=True)
    uuid = models.UUIDField(null=True)
    inet = models.GenericIPAddressField(null=True)
    json = models.JSONField(null=True)
    binary = models.BinaryField(null=True)
    renamed = models.IntegerField(null=True, db_column="other_name")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    twin = models.OneToOneField("self", models.SET_NULL, null=True)
    generated = models.GeneratedField(
        expression=Upper("char"), output_field=models.CharField(max_length=200), db_persist=True
    )

    def __str__(self) -> str:
        return f"specimen {self.pk}"


class UpperField(models.CharField):
    """Stores its text in capitals."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return None if value is None else value.upper()


class SealedField(models.CharField):
    """Stores its text backwards, and says so to the database alone."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        stored = super().get_db_prep_save(value, connection)
        return None if stored is None else stored[::-1]

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value[::-1]


@publish
class Place(models.Model):
    """The parent of two levels of multi-table inheritance."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True)
    city = models.CharField(max_length=50, default="")
    code = UpperField(max_length=50, default="")
    sealed = SealedField(max_length=50, default="")

    def __str__(self) -> str:
        return f"place {self.pk}"


class CityPlace(Place):
    class Meta:
        proxy = True


@publish
class Restaurant(Place):
    serves = models.CharField(max_length=50, default="")


@publish
class Diner(Restaurant):
    seats = models.IntegerField(default=0)


@publish
class Seat(models.Model):
    """A row with a composite key."""

    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.IntegerField()
    number = models.IntegerField()
    taken = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"seat {self.number} of hall {self.hall}"
