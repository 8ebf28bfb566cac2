"""The `REALTIME` setting as one frozen, validated value, read through `settings`.

Built on first use and again after `override_settings`. The error for an unknown key suggests the
right one; that for a value of a wrong type says what is expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from realtime.client_limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every key of `REALTIME` with its default; durations in seconds."""

    TAILER: str = "auto"
    DATABASE: str = "default"
    CHANNEL_LAYER: str = "default"
    POLL_INTERVAL: float = 0.02
    RING_SIZE: int = 10_000
    RETENTION: Mapping[str, float] = field(default_factory=lambda: {"hours": 72})
    ALLOW_ANONYMOUS: bool = True
    SESSION_AUTH: bool = True
    API_KEYS: Mapping[str, str] = field(default_factory=dict)
    ALLOWED_ORIGINS: tuple[str, ...] | None = None
    PRIVATE_ONLY: bool = False
    WEBHOOK_ALLOW: tuple[str, ...] = ()
    LIMITS: Limits = field(default_factory=Limits)

    @property
    def embedded(self) -> bool:
        """Whether the server process tails the WAL table itself."""
        if self.TAILER != "auto":
            return self.TAILER == "embedded"
        layers = getattr(django_settings, "CHANNEL_LAYERS", {})
        backend = layers.get(self.CHANNEL_LAYER, {}).get("BACKEND", "")
        return backend in ("", "channels.layers.InMemoryChannelLayer")


def _refuse_unknown(given: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known keys: {', '.join(known)}."
            raise ImproperlyConfigured(f"{where} has no key {key!r}.{hint}")


def _limits(given: Any) -> Limits:
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("REALTIME['LIMITS'] must be a dict of limits.")
    _refuse_unknown(given, [f.name for f in fields(Limits)], "REALTIME['LIMITS']")
    for key, value in given.items():
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        if value is not None and not numeric:
            raise ImproperlyConfigured(
                f"REALTIME['LIMITS'][{key!r}] must be a positive number or None, not {value!r}."
            )
    return Limits(**given)


def build(given: Any) -> Settings:
    """The settings of a `REALTIME` dict, with defaults for absent keys.

    Raises ImproperlyConfigured for an unknown key or a value of the wrong type.
    """
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("REALTIME must be a dict.")
    _refuse_unknown(given, [f.name for f in fields(Settings)], "REALTIME")
    values = dict(given)

    def need(key: str, right: bool, what: str) -> None:
        if key in values and not right:
            raise ImproperlyConfigured(f"REALTIME[{key!r}] must be {what}, not {values[key]!r}.")

    def number(key: str) -> bool:
        value = values.get(key)
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0

    tailers = ("auto", "embedded", "external")
    need("TAILER", values.get("TAILER") in tailers, f"one of {', '.join(map(repr, tailers))}")
    for key in ("DATABASE", "CHANNEL_LAYER"):
        need(key, isinstance(values.get(key), str), "an alias (a string)")
    need("POLL_INTERVAL", number("POLL_INTERVAL"), "a positive number of seconds")
    ring = values.get("RING_SIZE")
    need("RING_SIZE", number("RING_SIZE") and isinstance(ring, int), "a positive whole number")
    for key in ("ALLOW_ANONYMOUS", "SESSION_AUTH", "PRIVATE_ONLY"):
        need(key, isinstance(values.get(key), bool), "True or False")
    retention = values.get("RETENTION")
    need(
        "RETENTION",
        isinstance(retention, Mapping)
        and set(retention) <= {"days", "hours", "minutes", "gigabytes"}
        and bool(retention)
        and all(isinstance(v, (int, float)) and v > 0 for v in retention.values()),
        "a dict such as {'hours': 72}, {'gigabytes': 20} or {'hours': 72, 'gigabytes': 20}",
    )
    keys = values.get("API_KEYS")
    roles = ("anon", "authenticated", "service_role")
    need(
        "API_KEYS",
        isinstance(keys, Mapping) and all(role in roles for role in keys.values()),
        f"a dict from key to role ({', '.join(roles)})",
    )
    origins = values.get("ALLOWED_ORIGINS")
    need(
        "ALLOWED_ORIGINS",
        origins is None or (isinstance(origins, (list, tuple)) and all(map(_is_text, origins))),
        "None or a list of origins such as 'https://app.example'",
    )
    if origins is not None:
        values["ALLOWED_ORIGINS"] = tuple(origins)
    allow = values.get("WEBHOOK_ALLOW")
    need(
        "WEBHOOK_ALLOW",
        isinstance(allow, (list, tuple)) and all(map(_is_text, allow)),
        "a list of hosts and networks such as 'hooks.internal' or '10.0.0.0/8'",
    )
    if allow is not None:
        values["WEBHOOK_ALLOW"] = tuple(allow)
    if "LIMITS" in values:
        values["LIMITS"] = _limits(values["LIMITS"])
    return Settings(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_built: Settings | None = None


def current() -> Settings:
    """The settings in force."""
    global _built
    if _built is None:
        _built = build(getattr(django_settings, "REALTIME", {}))
    return _built


def _reset(*, setting: str, **kwargs: Any) -> None:
    global _built
    if setting == "REALTIME":
        _built = None


setting_changed.connect(_reset, dispatch_uid="realtime.conf")


class _Proxy:
    """`from realtime.conf import settings`: attributes of the settings in force."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(current(), name)


settings = _Proxy()
