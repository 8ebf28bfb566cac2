from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import models

from realtime import publish


class PrefixedKey(models.BigAutoField):
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else f"usr_{value}"

    def to_python(self, value: Any) -> Any:
        return value if value is None or str(value).startswith("usr_") else f"usr_{int(value)}"

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(str(value).removeprefix("usr_") if value else value)


class Person(AbstractUser):
    id = PrefixedKey(primary_key=True)


@publish
class Ticket(models.Model):
    owner = models.ForeignKey(Person, models.CASCADE)
    title = models.CharField(max_length=100)
