"""What the acceptance run does in the database of a host.

A `host.py` beside it says what its host does otherwise. Run as a program it answers one JSON line,
`[name, argument...]`, with another until its input ends.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from typing import Any

import django

django.setup()

from django.apps import apps  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.auth.models import Permission  # noqa: E402
from django.core.management import call_command  # noqa: E402
from programs import end  # noqa: E402

from auth_rls.models import Policy  # noqa: E402


class Host:
    """One host. Its table is that of the model `desk.Ticket`, unless it says another."""

    model = "desk.Ticket"
    using: Any = {"owner": "$user.id"}

    def __init__(self) -> None:
        self.tickets = apps.get_model(self.model)

    def prepare(self) -> None:
        """Migrations made and run, and no complaint of the checks."""
        call_command("makemigrations", "desk", verbosity=0)
        call_command("migrate", verbosity=0)
        call_command("check", databases=["default"], fail_level="ERROR", stdout=io.StringIO())
        call_command("realtime_triggers", "check", stdout=io.StringIO())

    def table(self) -> str:
        return self.tickets._meta.db_table

    def user(self, name: str) -> str:
        """Make a user; returns the key, as a token names it."""
        return str(get_user_model().objects.create_user(username=name).pk)

    def policy(self) -> None:
        """Everybody sees the tickets that they own."""
        self.allow(self.tickets, self.using)

    def allow(self, model: Any, using: Any) -> None:
        label = model._meta
        permission = Permission.objects.get(
            codename=f"view_{label.model_name}", content_type__app_label=label.app_label
        )
        Policy.objects.create(
            name=f"own {label.model_name}", permission=permission, using=using, audience="anyone"
        )

    def ticket(self, owner: str, title: str) -> Any:
        return self.tickets.objects.create(owner_id=owner, title=title).pk

    def rename(self, old: str, new: str) -> None:
        self.tickets.objects.filter(title=old).update(title=new)

    def leave(self, key: str) -> bool:
        """Take this user's permissions away; False where users have none."""
        return False

    def deactivate(self, key: str) -> bool:
        """Deactivate this user; False where the user model knows no such thing."""
        model = get_user_model()
        if not any(field.name == "is_active" for field in model._meta.fields):
            return False
        model.objects.filter(pk=key).update(is_active=False)
        return True

    def own(self) -> None:
        """What is of this host alone and must hold in the end. Raises AssertionError."""


def main() -> None:
    # What is started here can be killed as one group.
    os.setsid()
    try:
        answer_all()
    finally:
        end()


def answer_all() -> None:
    try:
        from host import host
    except ImportError:
        host = Host()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"answer": getattr(host, name)(*arguments)}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    sys.modules["commands"] = sys.modules["__main__"]
    main()
