"""Events: the values that leave the Event Log, and how a WAL entry becomes one.

Pure: the same WAL entry and relation always give the same event (RT-E1), which never changes
once made (RT-E3). Row images are kept as the JSON text that the trigger wrote, so that numbers of
any size reach the wire digit for digit; they are decoded once, when a value is first read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from auth_rls.predicates.kinds import Kind, from_image
from realtime.util.utf8 import repaired
from realtime.wal.entry import Relation, WalRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_values = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class RowImage(Mapping[str, Any]):
    """A row image: a mapping from column to a comparable value, decoded on first use.

    A value that is not of its column's kind (a text in an integer column of SQLite) is left out, so
    that every predicate on it is unknown.
    """

    __slots__ = ("_kinds", "_values", "raw")

    def __init__(self, raw: bytes, kinds: Mapping[str, Kind]) -> None:
        self.raw = raw
        self._kinds = kinds
        self._values: dict[str, Any] | None = None

    def _load(self) -> dict[str, Any]:
        values = {}
        for name, value in _decode_values(self.raw).items():
            kind = self._kinds.get(name)
            if kind is None:
                continue
            try:
                values[name] = from_image(kind, value)
            except ValueError:
                continue
        self._values = values
        return values

    @property
    def decoded(self) -> bool:
        """Whether the image has been decoded yet."""
        return self._values is not None

    def __getitem__(self, name: str) -> Any:
        return (self._load() if self._values is None else self._values)[name]

    def get(self, name: str, default: Any = None) -> Any:
        return (self._load() if self._values is None else self._values).get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._load() if self._values is None else self._values)

    def __len__(self) -> int:
        return len(self._load() if self._values is None else self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowImage) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]

    def text(self, name: str) -> bytes:
        """The JSON text of one value, exactly as captured. Raises KeyError."""
        return bytes(_decode_raw(self.raw)[name])

    def json(self, columns: Collection[str] | None = None) -> bytes:
        """The image as JSON text, each value exactly as captured; only these columns if given."""
        if columns is None:
            return self.raw
        cells = _decode_raw(self.raw)
        return _encode({name: cells[name] for name in columns if name in cells})


def row_of(image: Any, relation: Relation) -> RowImage:
    """The row of an image as a database driver returns it, which may be any bytes."""
    return RowImage(repaired(image), relation.kinds)


class DatabaseEvent(msgspec.Struct, frozen=True):
    """A committed change of a row, with its seq in the log."""

    seq: int
    commit_us: int
    relation: Relation
    op: str
    old: RowImage | None
    new: RowImage | None

    @property
    def size(self) -> int:
        """Bytes of both images."""
        return sum(len(row.raw) for row in (self.old, self.new) if row is not None)

    @property
    def commit_timestamp(self) -> str:
        """ISO 8601 in UTC, always with six digits, so that text order is log order."""
        moment = _EPOCH + timedelta(microseconds=self.commit_us)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_event(entry: WalRow, relation: Relation) -> DatabaseEvent:
    """The pure step from WAL entry to event.

    Raises ValueError when the relation is not the one the entry names.
    """
    if entry.relation_id != relation.id:
        raise ValueError(f"entry {entry.seq} names relation {entry.relation_id}, not {relation.id}")
    kinds = relation.kinds
    return DatabaseEvent(
        seq=entry.seq,
        commit_us=entry.commit_us,
        relation=relation,
        op=entry.op,
        old=None if entry.old is None else RowImage(entry.old, kinds),
        new=None if entry.new is None else RowImage(entry.new, kinds),
    )
