"""Who is present in one topic, as one process knows it and as its listeners have been told.

Pure. Entries come from the log and from the table, each possibly more than once: versions say which
is the newer. Telling is apart from knowing, so that many changes become one `presence_diff`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# An object with a member of such a name cannot be kept in a plain object of JavaScript, which
# clients do; "ids" makes the official client take a state for a row change.
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
# The server's own names in a meta.
_REF, _PREVIOUS = "phx_ref", "phx_ref_prev"


class PresenceMeta(msgspec.Struct, frozen=True):
    """One member at one version. `meta` is a JSON object as text, without names of the server's."""

    id: str
    version: int
    key: str
    meta: bytes

    @property
    def ref(self) -> str:
        """Unique for every version of every member."""
        return f"{self.id}.{self.version}"


def clean_meta(text: bytes) -> bytes:
    """A meta as clients send it, without names of the server's. Raises ValueError when it is not
    a JSON object."""
    try:
        cells = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError("a presence is a JSON object") from error
    for name in (_REF, _PREVIOUS):
        cells.pop(name, None)
    return _encode(cells)


class PresenceState:
    """What is known (`put`, `remove`) and what was told (`state`, `diff`)."""

    def __init__(self) -> None:
        self._now: dict[str, PresenceMeta] = {}
        self._told: dict[str, PresenceMeta] = {}
        self._changed: dict[str, None] = {}
        self._state: bytes | None = None

    def __len__(self) -> int:
        return len(self._now)

    @property
    def changed(self) -> bool:
        """Whether there is anything that has not been told."""
        return bool(self._changed)

    def put(self, entry: PresenceMeta) -> None:
        """A member as it is; what is older than what is known is passed over."""
        known = self._now.get(entry.id)
        if known is not None and known.version >= entry.version:
            return
        self._now[entry.id] = entry
        self._changed[entry.id] = None

    def remove(self, id_: str) -> None:
        """A member is gone."""
        if self._now.pop(id_, None) is not None:
            self._changed[id_] = None

    def replace(self, entries: Iterable[PresenceMeta]) -> None:
        """These are the members, and nobody else is."""
        fresh = {entry.id: entry for entry in entries}
        for id_ in [id_ for id_ in self._now if id_ not in fresh]:
            self.remove(id_)
        for entry in fresh.values():
            if self._now.get(entry.id) != entry:
                self._now[entry.id] = entry
                self._changed[entry.id] = None

    def state(self) -> bytes:
        """The payload of a `presence_state`: what everybody has been told so far."""
        if self._state is None:
            self._state = _listed([(entry, None) for entry in self._told.values()])
        return self._state

    def diff(self) -> bytes | None:
        """The payload of a `presence_diff` that tells what has not been told; None for nothing.

        A change of a meta is a new one joining and the old one leaving.
        """
        joins: list[tuple[PresenceMeta, PresenceMeta | None]] = []
        leaves: list[tuple[PresenceMeta, PresenceMeta | None]] = []
        for id_ in self._changed:
            before, after = self._told.get(id_), self._now.get(id_)
            if before == after:
                continue
            if after is not None:
                joins.append((after, before))
                self._told[id_] = after
            else:
                del self._told[id_]
            if before is not None:
                leaves.append((before, None))
        self._changed.clear()
        if not joins and not leaves:
            return None
        self._state = None
        return b'{"joins":%b,"leaves":%b}' % (_listed(joins), _listed(leaves))


def _listed(entries: list[tuple[PresenceMeta, PresenceMeta | None]]) -> bytes:
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
    rest = entry.meta[1:]
    return head + (rest if rest == b"}" else b"," + rest)
