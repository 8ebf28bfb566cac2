"""Joins: the payload of `phx_join`, read leniently.

A join is never refused for its shape: a field of the wrong type counts as absent, and a binding
that can never deliver carries the text of the `system` message that says so.

Pure: no Django, no I/O. Permissions are not decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec

from auth_rls.predicates.fit import Fit
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, All, Predicate
from realtime.protocol import errors, legacy_topic
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.cursor import Cursor, parse_cursor
from realtime.protocol.filters import (
    MAX_LENGTH,
    FilterError,
    FilterSyntaxError,
    fitted,
    parse_filter,
    read,
    unknown_column,
)
from realtime.util.interned import interned

ANY = "*"
MAX_BINDINGS = 100
"""postgres_changes bindings of one channel."""

LIVE_NEEDS_ALL_EVENTS = (
    "Unable to subscribe to changes with given parameters. A live binding keeps a set of rows "
    'exact by INSERT, UPDATE and DELETE together: it needs event "*".'
)
LIVE_HINT = 'Ask for event "*", or leave out `live`.'
SNAPSHOT_NEEDS_INSERTS = (
    "Unable to subscribe to changes with given parameters. The rows of a snapshot arrive as "
    'INSERT: it needs event "*" or "INSERT".'
)

WAIT_MS = 15_000
LONGEST_WAIT_MS = 20_000
MOST_REPLAYED = 25

_ID_BITS = 27
# Characters of filters that are read with the join. Those of a longer join are read when it is
# planned, which delays only that client.
_READ_AT_ONCE = MAX_LENGTH
# Joins beyond these have bindings of their own.
_SHARED_BINDINGS = 4
_SHARED_COLUMNS = 16
_SHARED_CHARACTERS = 400
# Texts of joins that are read once for all who send the same, and the longest of them, in bytes.
_TEXTS = 64
_TEXT_BYTES = 1_024
_EVENTS = frozenset({"INSERT", "UPDATE", "DELETE"})
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


class BindingError(ValueError):
    """A binding can never deliver. `message` is the text of the `system` message, `hint` an advice,
    if there is one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class SnapshotOption:
    """The rows as they are now are sent first, at most `limit` of them if given."""

    limit: int | None = None


@dataclass(frozen=True, slots=True)
class BroadcastReplay:
    """Stored broadcasts are sent first. `since` is in milliseconds since 1970; None: not valid."""

    since: int | None
    limit: int = MOST_REPLAYED


@dataclass(frozen=True, slots=True)
class Binding:
    """One entry of `postgres_changes`. `schema` and `table` may be "*"; `event` too.

    `error` is the text for a binding that is wrong for every table; the other fields are then
    without meaning.
    """

    id: int
    event: str = ANY
    schema: str = ANY
    table: str = ANY
    filter: str = ""
    select: tuple[str, ...] | None = None
    since: Cursor | None = None
    snapshot: SnapshotOption | None = None
    live: bool = False
    error: str | None = None
    #: Whether the filter has not been read yet, because the join's filters are long together.
    unread: bool = False
    #: A bound condition beside the filter, given by code and never by a client.
    condition: Predicate = TRUE

    def check(self) -> None:
        """Raises BindingError for a binding that is wrong for every table."""
        if self.error is not None:
            hint = LIVE_HINT if self.error == LIVE_NEEDS_ALL_EVENTS else None
            raise BindingError(self.error, hint)
        if self.unread:
            try:
                read(self.filter)
            except FilterSyntaxError as error:
                raise BindingError(errors.filter_unreadable(error.message)) from None

    def covers(self, schema: str, table: str) -> bool:
        """Whether the binding includes this table."""
        return self.schema in (ANY, schema) and self.table in (ANY, table)

    def predicate(
        self,
        columns: Mapping[str, Kind],
        fits: Mapping[str, Fit] | None = None,
        *,
        compiled: bool = True,
    ) -> Predicate:
        """The filter on a table with these columns; `fits` as in `parse_filter`. With `compiled`
        False its regular expressions are not compiled, for a subscription that can get no row.

        Raises BindingError when the filter or `select` does not fit them, or the binding is wrong
        in itself.
        """
        self.check()
        try:
            predicate = parse_filter(self.filter, columns, fits, compiled=compiled)
            if self.condition != TRUE:
                predicate = All((fitted(self.condition, fits or {}), predicate))
        except FilterError as error:
            raise BindingError(self.failed(error.exception), error.hint) from None
        self._check_select(columns)
        return predicate

    def _check_select(self, columns: Collection[str]) -> None:
        for name in self.select or ():
            if name not in columns:
                text = f"ERROR P0001 (raise_exception) invalid column for select {name}"
                raise BindingError(self.failed(text), unknown_column(name, columns))

    def ended(self, reason: str) -> Binding:
        """The same binding, which delivers nothing any more; `error` says why."""
        return replace(self, error=errors.subscription_ended(self._parameters(), reason))

    def not_published(self) -> str:
        """The text for when no published table is covered."""
        return errors.not_published(self._parameters())

    def failed(self, exception: str) -> str:
        """The text for when the table refuses the binding."""
        return errors.subscribing_failed(self._parameters(), exception)

    def _parameters(self) -> str:
        filters = [(c.column, c.op, c.value, c.negated) for c in read(self.filter)]
        return errors.connect_parameters(self.event, self.schema, self.table, filters, self.select)


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """The configuration of a channel. The defaults are those of a join without `config`.

    `echoes` are the bindings as they were sent, each with its id: the reply repeats them, and
    clients compare it with what they sent. `presence_key` "" lets the server choose one;
    `access_token` None means the connection's.
    `change_frame` is the frame that changes come in.
    With `wait` the reply to a join with bindings depends on them: it is an error when one of them
    can never deliver, or when they are not subscribed within `wait_timeout_ms`.
    """

    broadcast_self: bool = False
    broadcast_ack: bool = False
    replay: BroadcastReplay | None = None
    replication_ready: bool = False
    presence_key: str = ""
    presence_enabled: bool = False
    private: bool = False
    bindings: tuple[Binding, ...] = ()
    echoes: tuple[Mapping[str, Any], ...] = ()
    change_frame: ChangeFrame = ChangeFrame.BINDINGS
    wait: bool = False
    wait_timeout_ms: int = WAIT_MS
    access_token: str | None = None
    _answered: JoinConfig | None = field(default=None, compare=False, repr=False)

    def answered(self) -> JoinConfig:
        """The same configuration without the echoes, which may be large and are needed only for the
        answer. It is one object for all joins that ask for the same, as `bindings` are."""
        if self._answered is not None:
            return self._answered
        answered = replace(self, echoes=())
        own = self.presence_key or self.access_token or self.replay
        return answered if own or not _are_usual(self.bindings) else interned(answered)


def parse_join(payload: Any, named: Mapping[str, Any] | None = None) -> JoinConfig:
    """The configuration in a `phx_join` payload. `named` is the item of `postgres_changes` that the
    topic's name means, for a join without `config`. Never raises."""
    payload = _object(payload)
    legacy = named is not None and legacy_topic.is_legacy(payload)
    config = _object(payload.get("config"))
    broadcast = _object(config.get("broadcast"))
    presence = _object(config.get("presence"))
    options = _object(config.get("postgres_changes_options"))
    sent = _items([named] if legacy else config.get("postgres_changes"))
    bindings = _shared(_bindings(sent))
    return JoinConfig(
        broadcast_self=_flag(broadcast.get("self")),
        broadcast_ack=_flag(broadcast.get("ack")),
        replay=_replay(broadcast.get("replay")),
        replication_ready=_flag(broadcast.get("replication_ready")),
        presence_key=_key(presence.get("key")),
        presence_enabled=_presence_enabled(config.get("presence")),
        private=_flag(config.get("private")),
        bindings=bindings,
        echoes=tuple({**item, "id": one.id} for item, one in zip(sent, bindings, strict=True)),
        change_frame=ChangeFrame.BARE if legacy else ChangeFrame.BINDINGS,
        wait=_flag(options.get("wait")),
        wait_timeout_ms=min(_positive(options.get("timeout")) or WAIT_MS, LONGEST_WAIT_MS),
        access_token=token_in(payload),
    )


def read_join(
    payload: Mapping[str, Any], text: bytes, named: Mapping[str, Any] | None = None
) -> JoinConfig:
    """As `parse_join`, for a payload and its JSON text. Equal short configurations are read once:
    when a server restarts, thousands of clients send the same one, each with its own token."""
    if "config" not in payload:
        return parse_join(payload, named)
    config = bytes(_parts(text)["config"])
    if len(config) > _TEXT_BYTES:
        return parse_join(payload, named)
    found, token = _read_once(config), token_in(payload)
    return found if token is None else replace(found, access_token=token, _answered=None)


@lru_cache(maxsize=_TEXTS)
def _read_once(text: bytes) -> JoinConfig:
    found = parse_join({"config": msgspec.json.decode(text)})
    return replace(found, _answered=found.answered())


def token_in(payload: Mapping[str, Any]) -> str | None:
    """The token of a join or an `access_token` event; None for none, which keeps the one in use.

    `user_token` wins over `access_token`. An opaque key (`sb_...`) is not a token: clients send it
    when no user is signed in.
    """
    for name in ("user_token", "access_token"):
        token = payload.get(name)
        if isinstance(token, str) and (token := token.strip()):
            return None if token.startswith("sb_") else token
    return None


def binding_id(*parameters: Any) -> int:
    """A stable id from 0 to 2^27 - 1: equal JSON values give equal ids, in every process."""
    digest = hashlib.blake2b(_encode(parameters), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> (32 - _ID_BITS)


# --- bindings -----------------------------------------------------------------------------------


def _items(value: Any) -> list[dict[str, Any]]:
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    # The first beyond the maximum is kept, to carry the error; more would only cost time.
    return items[: MAX_BINDINGS + 1]


def _bindings(items: list[dict[str, Any]]) -> tuple[Binding, ...]:
    taken: dict[int, bytes] = {}
    found = []
    characters = 0
    for index, item in enumerate(items):
        filter_ = _text(item.get("filter"))
        # One that is too long is refused by its length alone.
        characters += min(len(filter_ or ""), MAX_LENGTH + 1)
        unread = characters > _READ_AT_ONCE and len(filter_ or "") <= MAX_LENGTH
        found.append(_binding(item, index, taken, unread))
    return tuple(found)


def _shared(bindings: tuple[Binding, ...]) -> tuple[Binding, ...]:
    """The bindings as one object for all joins that ask for the same, unless they are large or of
    one client alone."""
    return interned(bindings) if _are_usual(bindings) else bindings


def _are_usual(bindings: tuple[Binding, ...]) -> bool:
    return len(bindings) <= _SHARED_BINDINGS and all(
        binding.since is None
        and not binding.filter
        and binding.error is None
        # Clients choose these names, as long as a frame, and shared values outlive the client.
        and len(binding.schema) + len(binding.table) <= _SHARED_CHARACTERS
        and len(binding.select or ()) <= _SHARED_COLUMNS
        and sum(map(len, binding.select or ())) <= _SHARED_CHARACTERS
        for binding in bindings
    )


def _binding(item: dict[str, Any], index: int, taken: dict[int, bytes], unread: bool) -> Binding:
    event = _event(item)
    schema, table, filter_ = (_text(item.get(key)) for key in ("schema", "table", "filter"))
    select = item.get("select")
    error = _error(item, index, schema, table, filter_, unread)
    if schema is None:
        schema = ANY if table is None else "public"
    rest = [item.get(key) for key in ("select", "since", "snapshot", "live")]
    named = (event, schema, table or ANY, filter_)
    # The id is that of the same binding without a place to begin at: clients that come back, each
    # with its own cursor, get the same frames as those who joined without one.
    wanted = binding_id(*named, rest[0], None, None, rest[3])
    return Binding(
        id=free_id(taken, wanted, _encode((*named, *rest))),
        event=event,
        schema=schema,
        table=table or ANY,
        filter=filter_ or "",
        # Each column once: a name may come as often as a frame has room for it.
        select=tuple(dict.fromkeys(select)) if error is None and select else None,
        since=parse_cursor(item.get("since")),
        snapshot=_snapshot(item.get("snapshot")),
        live=_flag(item.get("live")),
        error=error,
        unread=unread and error is None,
    )


def free_id(taken: dict[int, bytes], wanted: int, text: bytes) -> int:
    """The id `wanted` or the next one that nothing but `text` has; it is `taken` for `text` then.

    So equal bindings of a channel share an id, and different ones never do, even if hashes collide.
    """
    while taken.setdefault(wanted, text) != text:
        wanted = (wanted + 1) % (1 << _ID_BITS)
    return wanted


def _error(
    item: Mapping[str, Any],
    index: int,
    schema: str | None,
    table: str | None,
    filter_: str | None,
    unread: bool,
) -> str | None:
    """The official text for an error of the binding itself, tested in the official order."""
    if index >= MAX_BINDINGS:
        return f"Too many postgres_changes bindings in one channel. Maximum {MAX_BINDINGS}"
    select = item.get("select")
    if select is not None and not (
        isinstance(select, list) and all(isinstance(name, str) for name in select)
    ):
        return errors.SELECT_NOT_A_LIST
    if table is None and (schema is None or filter_ is not None):
        return errors.no_parameters(item)
    try:
        read("" if unread else filter_ or "")
    except FilterSyntaxError as error:
        return errors.filter_unreadable(error.message)
    if select and (schema == ANY or table in (None, ANY)):
        return errors.SELECT_ON_WILDCARD
    event = _event(item)
    if _flag(item.get("live")) and event != ANY:
        return LIVE_NEEDS_ALL_EVENTS
    if _snapshot(item.get("snapshot")) is not None and event not in (ANY, "INSERT"):
        return SNAPSHOT_NEEDS_INSERTS
    return None


def _event(item: Mapping[str, Any]) -> str:
    name = item.get("event")
    return name.upper() if isinstance(name, str) and name.upper() in _EVENTS else ANY


def _snapshot(value: Any) -> SnapshotOption | None:
    if isinstance(value, dict):
        return SnapshotOption(_positive(value.get("limit")))
    return SnapshotOption() if _flag(value) else None


# --- fields -------------------------------------------------------------------------------------


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: Any) -> bool:
    """Some clients send booleans as strings."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _presence_enabled(presence: Any) -> bool:
    """Older clients send presence options without `enabled`, and mean that it is."""
    return isinstance(presence, dict) and _flag(presence.get("enabled", True))


def _whole(value: Any) -> int | None:
    """A whole number, also as a float or as digits; within 64 bits."""
    if isinstance(value, str) and len(value) <= 19 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return None


def _positive(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and number > 0 else None


def _key(value: Any) -> str:
    if isinstance(value, str):
        return value
    # A number or a boolean counts as its JSON text.
    return _encode(value).decode() if isinstance(value, int | float) else ""


def _replay(value: Any) -> BroadcastReplay | None:
    if not isinstance(value, dict):
        return None
    limit = _whole(value.get("limit"))
    return BroadcastReplay(
        since=_whole(value.get("since")),
        limit=MOST_REPLAYED if limit is None else max(1, min(limit, MOST_REPLAYED)),
    )
