"""`manage.py explain_rls`: why a row is shown or not, to whom, and by which policy.

Exits with 0 when it is allowed, 1 when it is denied, 2 when the options make no sense.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from auth_rls.explain import askers, questions, report
from auth_rls.explain.errors import ExplainError
from auth_rls.explain.questions import Answer
from auth_rls.explain.text import as_json, lines
from auth_rls.policy.definition import ACTIONS
from auth_rls.sql.failures import first_line
from auth_rls.subjects import tokens

_DENIED = 1
_USAGE = 2


class Command(BaseCommand):
    help = (
        "Says which policies let a row through or not, which clause decided, and what every door "
        "answers."
    )
    # A policy that fails the checks can be explained, too.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", metavar="U", help="the user: a name or a primary key")
        parser.add_argument(
            "--claims", metavar="JSON", help="claims of a token, with a user or alone"
        )
        parser.add_argument("--role", help=f"role of the token: {', '.join(tokens.ROLES)}")
        parser.add_argument("--token", metavar="T", help="a token that names the subject")
        parser.add_argument("--permission", metavar="P", help="the permission: app.view_model")
        parser.add_argument("--pk", metavar="X", help="primary key of the row")
        parser.add_argument("--topic", metavar="NAME", help="the topic, for a permission on topics")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = _answer(options)
        except ExplainError as error:
            raise CommandError(f"--{error.field}: {error.message}", returncode=_USAGE) from None
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=_USAGE) from None
        except DatabaseError as error:
            text = f"The database cannot tell: {first_line(error)}."
            raise CommandError(text, returncode=_USAGE) from None
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(answer), ensure_ascii=False, indent=2))
        else:
            self._print(answer)
        if not answer.allowed:
            raise SystemExit(_DENIED)

    def _print(self, answer: Answer) -> None:
        write, style = self.stdout.write, self.style
        verdict = style.SUCCESS("allowed") if answer.allowed else style.ERROR("denied")
        write(f"{report.heading(answer)}: {verdict}")
        write(answer.explanation.because)
        if answer.doubt:
            write(style.ERROR(answer.doubt))
        if answer.explanation.policies:
            write(f"\n{report.POLICIES}")
        for line in lines(answer.explanation):
            write(line)
        write("\nDoors")
        for door in answer.doors:
            write(f"    {door.door:<10} {report.said(door)}")


def _answer(options: dict[str, Any]) -> Answer:
    who = askers.asker(
        user=options["user"],
        claims=None if options["claims"] is None else askers.claims_from(options["claims"]),
        role=options["role"],
        token=options["token"],
    )
    if options["permission"] is None:
        raise ExplainError("permission", "Say what for, such as app.view_model.")
    return questions.answer(who, questions.question(who, options["permission"], _key(options)))


def _key(options: dict[str, Any]) -> str:
    """A row's key, or a topic's name for a permission on topics."""
    _, action = questions.action_on(options["permission"])
    right, wrong = ("pk", "topic") if action in ACTIONS else ("topic", "pk")
    if options[wrong] is not None:
        raise ExplainError(wrong, f"{options['permission']} takes --{right} instead.")
    if options[right] is None:
        what = "row: its primary key" if right == "pk" else "topic: its name"
        raise ExplainError(right, f"Say which {what}.")
    return str(options[right])


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "allowed": answer.allowed,
        "asker": answer.asker,
        "permission": answer.permission,
        "model": answer.model,
        "pk": answer.pk,
        "row": answer.row,
        "agree": answer.agree,
        "doors": [
            {"door": door.door, "allowed": door.allowed, "note": door.note} for door in answer.doors
        ],
        "explanation": as_json(answer.explanation),
    }
