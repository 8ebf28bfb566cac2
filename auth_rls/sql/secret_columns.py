"""Which columns of a model hold secrets, such as passwords, tokens and keys. They are published
only if they are named.

Decided by the field's class, its model and its name. A count, a point in time or a boolean is no
secret, whatever its name: `token_count`, `password_set_at`, `has_secret`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from django.db import models

from auth_rls.predicates.kinds import Kind
from auth_rls.sql.columns import UnsupportedColumn, column_of


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that make a name a secret's.
_SECRETS = _set(
    "apikey authtoken bearer contrasena cookie cookies credential credentials cvc cvv dsn "
    "encrypted hmac hotp jwt kennwort keypair mnemonic otp passcode passphrase passwd password "
    "passwords passwort privatekey privkey psk pw pwd secret secretkey secrets senha sessionid "
    "sessionkey token tokens totp"
)
# Pairs of neighbouring words: `api_key`, `backup_codes`, `security_answer`.
_HOLDERS = _set(
    "access activation api auth authentication authorization aws backup client code confirm "
    "confirmation csrf decryption device encryption fa factor gpg hashed hmac invitation invite "
    "key license login magic master mfa oauth otp pass pgp private recovery refresh reset rsa "
    "secret security seed session share shared signing sms ssh ssl sso stripe tls unlock "
    "validation verification verify webhook"
)
_HELD = _set("code codes digest hash hashes key keys nonce pem phrase pin salt seed verifier")
# Held by some of them alone: see `_PAIRS`.
_HELD_ELSEWHERE = _set("answer answers header link word")
# Holders whose numbered codes are names of a kind: `device_code`, an integer.
_THINGS = _set("client code device key license session share shared stripe webhook")
_ANSWERS = ("answer", "answers")
_LINKS = _set(
    "access activation auth authentication authorization confirm confirmation invitation invite "
    "login magic master oauth private recovery refresh reset sso unlock validation verification "
    "verify webhook"
)
_PAIRS = frozenset(
    {
        ("basic", "auth"),
        ("card", "number"),
        ("cc", "number"),
        ("connection", "string"),
        ("database", "url"),
        ("session", "id"),
        ("auth", "header"),
        ("authentication", "header"),
        ("authorization", "header"),
        *((whose, "word") for whose in ("master", "pass", "security")),
        *(
            (whose, what)
            for whose in ("auth", "recovery", "reset", "security")
            for what in _ANSWERS
        ),
        *((whose, "link") for whose in _LINKS),
        *((whose, "pass") for whose in ("admin", "db", "ftp", "root", "smtp", "user", "wifi")),
    }
)
# Pairs whose words say something harmless together.
_HARMLESS_PAIRS = frozenset({("key", "code")})
# A name that ends so tells of a secret's rules, its maker, a moment or a number.
_ABOUT = _set("at by count policy")
# What such a word ends with where it is written without a space: `csrftoken`, `newpassword`.
_ENDINGS = ("passwd", "password", "passphrase", "secret", "token")
_GLUED = ("access", "api", "auth", "client", "pass", "private", "pw", "pwd", "secret", "signing")
# A name that is a secret only in a model with a telling name: `key` of `Token`.
_MODELS = _set(
    "apikey apitoken authenticator credential credentials grant hotp invitation otp passkey "
    "secret token totp"
)
_BARE = _set("code content data digest hash hashed key keys payload raw value")
# Secrets where they are the whole name.
_WHOLE = _set("authorization hash pass pin salt")
_WHOLE_PAIRS = frozenset({("session", "data")})
# Codes that serve as credentials, by the last word of the name.
_NUMBERS = _set("cvc cvv otp passcode pin totp")
# Classes of fields that encrypt or hash what they hold, by any part of their name.
_CLASSES = re.compile(r"password|secret|encrypt|credential|token", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_NO_SECRETS = frozenset(
    {Kind.BOOL, Kind.FLOAT, Kind.DECIMAL, Kind.DATE, Kind.DATETIME, Kind.TIME, Kind.INTERVAL}
)


def is_secret(field: models.Field[Any, Any]) -> bool:
    """Whether the column holds a secret. A foreign key does if the column that it repeats does, a
    generated column if one that it is computed from does."""
    while field.remote_field is not None:
        target = getattr(field, "target_field", None)
        if target is None or target is field:
            return False
        field = target
    return _by_owner(field) or _by_class(field) or _by_name(field) or _by_source(field)


def _by_owner(field: models.Field[Any, Any]) -> bool:
    """Whether it is one of Django's own: a password's hash, a session's key or data."""
    # Models are declared before the app registry lets these be imported.
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.sessions.base_session import AbstractBaseSession

    if issubclass(field.model, AbstractBaseUser) and field.name == "password":
        return True
    session = issubclass(field.model, AbstractBaseSession)
    return session and field.name in ("session_key", "session_data")


def _by_class(field: models.Field[Any, Any]) -> bool:
    return any(_CLASSES.search(cls.__name__) for cls in type(field).__mro__)


def _by_name(field: models.Field[Any, Any]) -> bool:
    names = [_words(name) for name in {field.name, field.column}]
    kind = _kind(field)
    if kind in _NO_SECRETS:
        return False
    if kind is Kind.INT:
        return any(words and (words[-1] in _NUMBERS or _is_code(words)) for words in names)
    if kind is Kind.UUID:
        # The key of a model of sessions, such as visits or games; Django's own are texts.
        names = [words[:-1] if words[-2:] == ["session", "id"] else words for words in names]
    return any(_says_secret(words, _words(field.model.__name__)) for words in names)


def _by_source(field: models.Field[Any, Any]) -> bool:
    expression = getattr(field, "expression", None)
    if expression is None:
        return False
    fields = {one.name: one for one in field.model._meta.local_concrete_fields if one is not field}
    return any(name in fields and is_secret(fields[name]) for name in _references(expression))


def _references(expression: Any) -> Iterator[str]:
    parts = expression.flatten() if hasattr(expression, "flatten") else [expression]
    return (part.name for part in parts if isinstance(part, models.F))


def _kind(field: models.Field[Any, Any]) -> Kind | None:
    try:
        return column_of(field).kind
    except UnsupportedColumn:
        return None


def _says_secret(words: list[str], model: list[str]) -> bool:
    if words and words[-1] in _ABOUT:
        return False
    if any(word in _SECRETS or _is_glued(word) for word in words):
        return True
    if any(
        words[n : n + 2] == ["one", "time"] and _held(words[n + 2 :]) for n in range(len(words))
    ):
        return True
    if any(_is_pair(*pair) for pair in itertools.pairwise(words)):
        return True
    if tuple(words) in _WHOLE_PAIRS:
        return True
    if len(words) != 1:
        # The data of a social log-in, which has tokens of other sites.
        return words == ["extra", "data"] and "social" in model
    of_secrets = _MODELS.intersection(model) or {"api", "key"} <= set(model)
    return words[0] in _WHOLE or (bool(of_secrets) and words[0] in _BARE)


def _is_pair(one: str, other: str) -> bool:
    pair = (one, other)
    if pair in _HARMLESS_PAIRS:
        return False
    return pair in _PAIRS or (one in _HOLDERS and other in _HELD)


def _is_glued(word: str) -> bool:
    """Whether several words that say a secret are written as one: `authkey`, `pwhash`."""
    if word.endswith(_ENDINGS):
        return True
    return any(word.startswith(start) and _held([word.removeprefix(start)]) for start in _GLUED)


def _held(words: list[str]) -> bool:
    """Whether the first word, after one that says a secret, says so too."""
    return bool(words) and (words[0] in _HELD or words[0] in _HELD_ELSEWHERE)


def _is_code(words: list[str]) -> bool:
    if len(words) < 2:
        return False
    return (words[-1] == "pin" and words[-2] in _HOLDERS) or (
        words[-1] == "code" and words[-2] in _HOLDERS - _THINGS
    )


def _words(name: str) -> list[str]:
    """The words of a name in snake_case or camelCase, in small letters."""
    return [word.lower() for word in _WORD.findall(name)]
