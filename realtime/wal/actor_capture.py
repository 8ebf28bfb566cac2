"""Hands the actor to the capture triggers, with each write and in the writer's own transaction.

Each vendor has its own way. A write never fails because of the actor: an actor that cannot be read
is not recorded.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from realtime.conf import settings
from realtime.wal import actor as authorship
from realtime.wal.actor import UserName
from realtime.wal.vendor import Query, supports, vendor_of

logger = logging.getLogger(__name__)

_VERB = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*([A-Z]+)", re.IGNORECASE | re.DOTALL)
WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH", "TRUNCATE"})
# Statements that may end a transaction, so no transaction is made for them.
CALLS = frozenset({"CALL", "DO"})

Execute = Callable[[Any, Any, bool, Any], Any]


class ActorWrapper(ABC):
    """A wrapper around every statement of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection: Any = connection
        self._asking = False
        #: The users who wrote in the present transaction.
        self.users: set[str] = set()
        #: Those of them for whom `on_user` is not called any more.
        self.recorded: set[str] = set()
        #: Called before a user writes. Forgotten when the transaction ends.
        self.on_user: Callable[[str], None] | None = None

    @abstractmethod
    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run the statement, with the actor available to its triggers."""

    @abstractmethod
    def connected(self) -> None:
        """Called when the connection has been made."""

    @abstractmethod
    def transaction_id(self) -> Query:
        """SQL for what entries of the present transaction have as `txid`."""

    def actor(self) -> str | None:
        """The actor; None if there is none, or if reading it fails, which is logged."""
        if self._asking:
            return None  # Reading the actor wrote something itself.
        self._asking = True
        try:
            name = authorship.current()
        except Exception:
            logger.exception("who writes cannot be told", extra={"action": "actor_unknown"})
            return None
        finally:
            self._asking = False
        if isinstance(name, UserName):
            self.users.add(name)
        return name

    def begin(self) -> None:
        """The next statement may begin a transaction."""
        if self.users or self.on_user is not None:
            self.users.clear()
            self.recorded.clear()
            self.on_user = None

    def announce(self, actor: str | None) -> None:
        """This actor is about to write."""
        if self.on_user is not None and isinstance(actor, UserName) and actor not in self.recorded:
            self.on_user(actor)


def verb_of(sql: Any) -> str:
    """The first word of a statement, in capitals; empty where there is none."""
    found = _VERB.match(sql) if isinstance(sql, str) else None
    return found[1].upper() if found else ""


def connect(sender: AppConfig) -> None:
    """Wrap every connection to the captured database that is made from here on."""
    connection_created.connect(_connected, dispatch_uid="realtime.wal.actors")


def _connected(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if connection.alias != settings.DATABASE or not supports(connection):
        return
    wrapper = _find(connection)
    if wrapper is None:
        wrapper = vendor_of(connection).actor_wrapper(connection)
        # In front, because execute_wrapper() removes its own wrapper from the end.
        connection.execute_wrappers.insert(0, wrapper)
    wrapper.connected()


def wrapper_of(connection: BaseDatabaseWrapper) -> ActorWrapper:
    """The wrapper of a connection to the captured database. Raises RuntimeError for another one."""
    found = _find(connection)
    if found is None:
        raise RuntimeError(f"the connection {connection.alias!r} hands no actor to the triggers")
    return found


def _find(connection: BaseDatabaseWrapper) -> ActorWrapper | None:
    return next((one for one in connection.execute_wrappers if isinstance(one, ActorWrapper)), None)
