from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models

from realtime import publish


class Person(AbstractBaseUser):
    name = models.CharField(max_length=50, unique=True)

    USERNAME_FIELD = "name"
    objects = BaseUserManager()


@publish
class Ticket(models.Model):
    owner = models.ForeignKey(Person, models.CASCADE)
    title = models.CharField(max_length=100)
