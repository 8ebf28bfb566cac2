"""`manage.py mint_token`: prints a JSON Web Token that this project's settings accept."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from auth_rls import conf
from auth_rls.subjects import tokens
from auth_rls.subjects.minting import claims_for

_TTL: Final = re.compile(r"(?:[0-9]{1,9}[smhd])+")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 100 * 365 * 86_400


class Command(BaseCommand):
    help = "Print a JSON Web Token signed with this project's key."
    # The command reads settings only: it needs no database, and no check to pass.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--sub",
            metavar="ID",
            help="the user whom the token stands for: the primary key, or the field USER_FIELD",
        )
        parser.add_argument(
            "--role", default="authenticated", help=f"one of {', '.join(tokens.ROLES)}"
        )
        parser.add_argument(
            "--claim",
            action="append",
            default=[],
            metavar="K=V",
            help="a further claim; V is JSON, or text where it is not JSON; may be repeated",
        )
        parser.add_argument("--ttl", default="1h", help="how long it is good: 90s, 30m, 1h, 7d")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            settings = conf.current()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if not settings.secrets:
            raise CommandError(
                f"Tokens are signed elsewhere: JWT_ALGORITHMS ({', '.join(settings.algorithms)}) "
                "leaves this project no shared secret to sign with."
            )
        token = _signed(_claims(options, settings))
        try:
            # A printed token has passed the same check as the tokens of connections.
            tokens.verify(token)
        except tokens.TokenError as error:
            raise CommandError(f"Such a token would be refused: {error.reason}.") from None
        self.stdout.write(token)


def _signed(claims: dict[str, Any]) -> str:
    try:
        return tokens.sign(claims)
    except (tokens.TokenError, ValueError) as error:
        raise CommandError(f"The token cannot be signed: {error}.") from None


def _claims(options: dict[str, Any], settings: conf.AuthSettings) -> dict[str, Any]:
    role, named = options["role"], options["sub"]
    if role not in tokens.ROLES:
        raise CommandError(f"--role must be one of {', '.join(tokens.ROLES)}, not {role!r}.")
    if not named and role == "authenticated":
        raise CommandError("--sub is missing: the user whom the token stands for.")
    user_id_claim = settings.user_id_claims[0]
    claims = claims_for(named, role, _ttl(options["ttl"]))
    options_of = {settings.role_claim: "--role", user_id_claim: "--sub", "exp": "--ttl"}
    for text in options["claim"]:
        name, value = _claim(text)
        if name in options_of:
            raise CommandError(f"--claim {name}=... is given by {options_of[name]} instead.")
        claims[name] = value
    return claims


def _claim(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise CommandError(f"--claim must look like NAME=VALUE, not {text!r}.")
    try:
        return name, json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return name, value


def _refuse(name: str) -> None:
    raise ValueError(name)


def _ttl(text: str) -> int:
    if not _TTL.fullmatch(text):
        raise CommandError(f"--ttl must look like 90s, 30m, 1h or 7d, not {text!r}.")
    parts = re.findall(r"([0-9]+)([smhd])", text)
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST:
        raise CommandError(f"--ttl must be longer than 0s and at most 100 years, not {text!r}.")
    return seconds
