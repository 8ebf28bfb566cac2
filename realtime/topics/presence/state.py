"""Who is present in one topic: the current members, and the members last sent to clients.

Pure. Metas come from messages and from the table, some of them twice; versions say which one is
newer. The two sets are kept apart so that many changes become one `presence_diff`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# Clients keep the keys in a plain JavaScript object, where these names have a meaning already.
# "ids" makes the official client take a state for a row change.
RESERVED_KEYS = frozenset(
    {
        "ids",
        "__proto__",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    }
)

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
# Names in a meta that only the server writes.
_REF, _PREVIOUS, _USER = "phx_ref", "phx_ref_prev", "phx_user_id"


class PresenceMeta(msgspec.Struct, frozen=True):
    """One member at one version. `meta` is a JSON object as text, without the server's names.
    `user_id` is the user of a member of a private topic, or "". `process` is the id of the process
    that the member belongs to."""

    id: str
    version: int
    key: str
    meta: bytes
    user_id: str = ""
    process: str = ""

    @property
    def ref(self) -> str:
        """The `phx_ref`: unique for every version of every member."""
        return f"{self.id}.{self.version}"


def clean_meta(text: bytes) -> bytes:
    """A client's meta without the server's names. Raises ValueError if it is no JSON object."""
    try:
        cells = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError("a presence is a JSON object") from error
    for name in (_REF, _PREVIOUS, _USER):
        cells.pop(name, None)
    return _encode(cells)


class PresenceState:
    """`put` and `remove` change the current members. `diff` returns the changes, which then count
    as sent; `state` returns what was sent."""

    def __init__(self) -> None:
        self._now: dict[str, PresenceMeta] = {}
        self._sent: dict[str, PresenceMeta] = {}
        self._changed: dict[str, None] = {}
        self._state: bytes | None = None

    def __len__(self) -> int:
        return len(self._now)

    @property
    def changed(self) -> bool:
        """Whether there is a change that no diff has covered yet."""
        return bool(self._changed)

    def put(self, entry: PresenceMeta) -> None:
        """Add or update a member. An older version than the current one is ignored."""
        current = self._now.get(entry.id)
        if current is not None and current.version >= entry.version:
            return
        self._now[entry.id] = entry
        self._changed[entry.id] = None

    def remove(self, id_: str, version: int | None = None) -> None:
        """Remove a member; does nothing if it is not there, or has come again with a newer version
        than this one."""
        current = self._now.get(id_)
        if current is None or (version is not None and current.version > version):
            return
        del self._now[id_]
        self._changed[id_] = None

    def replace(self, entries: Iterable[PresenceMeta]) -> None:
        """Make these the only members."""
        self._replace(list(self._now), entries)

    def replace_of(self, process: str, entries: Iterable[PresenceMeta]) -> None:
        """Make these the only members of a process."""
        self._replace([id_ for id_, e in self._now.items() if e.process == process], entries)

    def _replace(self, ids: Iterable[str], entries: Iterable[PresenceMeta]) -> None:
        fresh = {entry.id: entry for entry in entries}
        for id_ in ids:
            if id_ not in fresh:
                self.remove(id_)
        for entry in fresh.values():
            current = self._now.get(entry.id)
            # The text of a meta may be written in another way in the table.
            if current is None or current.version != entry.version:
                self._now[entry.id] = entry
                self._changed[entry.id] = None

    def state(self) -> bytes:
        """The payload of a `presence_state`: the members that were sent."""
        if self._state is None:
            self._state = _metas_by_key([(entry, None) for entry in self._sent.values()])
        return self._state

    def diff(self) -> bytes | None:
        """The payload of a `presence_diff` with all changes since the last one; None without any.

        A changed meta is in both lists: the new one joins, the old one leaves.
        """
        joins: list[tuple[PresenceMeta, PresenceMeta | None]] = []
        leaves: list[tuple[PresenceMeta, PresenceMeta | None]] = []
        for id_ in self._changed:
            before, after = self._sent.get(id_), self._now.get(id_)
            if before == after:
                continue
            if after is not None:
                joins.append((after, before))
                self._sent[id_] = after
            else:
                del self._sent[id_]
            if before is not None:
                leaves.append((before, None))
        self._changed.clear()
        if not joins and not leaves:
            return None
        self._state = None
        return b'{"joins":%b,"leaves":%b}' % (_metas_by_key(joins), _metas_by_key(leaves))


def _metas_by_key(entries: list[tuple[PresenceMeta, PresenceMeta | None]]) -> bytes:
    metas: dict[str, list[bytes]] = {}
    for entry, before in entries:
        metas.setdefault(entry.key, []).append(_meta(entry, before))
    return b"{%b}" % b",".join(
        b'%b:{"metas":[%b]}' % (_encode(key), b",".join(found)) for key, found in metas.items()
    )


def _meta(entry: PresenceMeta, before: PresenceMeta | None) -> bytes:
    head = b'{"phx_ref":%b' % _encode(entry.ref)
    if before is not None:
        head += b',"phx_ref_prev":%b' % _encode(before.ref)
    if entry.user_id:
        head += b',"phx_user_id":%b' % _encode(entry.user_id)
    rest = entry.meta[1:]
    return head + (rest if rest == b"}" else b"," + rest)
