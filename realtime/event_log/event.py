"""Events: the values that leave the Event Log, and how a WAL entry becomes one.

Pure: the same WAL entry and relation always give the same event (RT-E1), which never changes
once made (RT-E3). The relation says how much of it is shown; the process narrows it to what it
publishes now. Row images are kept as the JSON text that the trigger wrote, so that numbers of any
size reach the wire digit for digit; they are decoded once, when a value is first read.
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
_MISSING: Any = object()


class RowImage(Mapping[str, Any]):
    """A row image: a mapping from column to a comparable value. The text is decoded when a value is
    first read, and a value becomes comparable when it is: most changes are looked up by one column.

    A value that is not of its column's kind (a text in an integer column of SQLite) is left out, so
    that every predicate on it is unknown.
    """

    __slots__ = ("_kinds", "_read", "raw")

    def __init__(self, raw: bytes, kinds: Mapping[str, Kind]) -> None:
        self.raw = raw
        self._kinds = kinds
        # What the text says, and what of it was made comparable: one dict when that is all of it.
        # Images are read in several threads: both are set at once, and neither is ever half of what
        # it stands for.
        self._read: tuple[dict[str, Any], dict[str, Any]] | None = None

    def _find(self, name: str) -> Any:
        """A value that was not read before; _MISSING if there is none."""
        read = self._read
        if read is None:
            read = self._read = _decode_values(self.raw), {}
        decoded, values = read
        if decoded is values:
            return values.get(name, _MISSING)
        kind = self._kinds.get(name)
        if kind is None or name not in decoded:
            return _MISSING
        try:
            value = values[name] = from_image(kind, decoded[name])
        except ValueError:
            return _MISSING
        return value

    def _all(self) -> dict[str, Any]:
        """Every value, in the order of the text."""
        read = self._read
        if read is None:
            read = self._read = _decode_values(self.raw), {}
        decoded, values = read
        if decoded is not values:
            found = {name: self.get(name, _MISSING) for name in decoded}
            values = {name: value for name, value in found.items() if value is not _MISSING}
            self._read = values, values
        return values

    @property
    def decoded(self) -> bool:
        """Whether the text has been decoded yet."""
        return self._read is not None

    def __getitem__(self, name: str) -> Any:
        value = self.get(name, _MISSING)
        if value is _MISSING:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        read = self._read
        if read is not None:
            values = read[1]
            if name in values:
                return values[name]
        value = self._find(name)
        return default if value is _MISSING else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowImage) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]

    def cells(self) -> dict[str, msgspec.Raw]:
        """The JSON text of every value, exactly as captured."""
        return _decode_raw(self.raw)

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
    """A committed change of a row, with its seq in the log. `actor` is the writer by
    `realtime.actor`, and `tx` the receipt that the writer took of the transaction, if that is a
    user: both are shown to no subscriber but the writer."""

    seq: int
    commit_us: int
    relation: Relation
    op: str
    old: RowImage | None
    new: RowImage | None
    actor: str | None = None
    tx: str | None = None

    def tx_of(self, writer: str | None) -> str | None:
        """The receipt as this user may know it, named as `realtime.wal.actor.subject_name` does;
        None for nobody."""
        return self.tx if writer is not None and writer == self.actor else None

    @property
    def names_no_row(self) -> bool:
        """Whether clients cannot be told which rows changed: the table was emptied, or the entry
        has another key than is shown now."""
        return (self.old is None and self.new is None) or not self.relation.key

    @property
    def size(self) -> int:
        """Bytes of both images."""
        old = 0 if self.old is None else len(self.old.raw)
        return old if self.new is None else old + len(self.new.raw)

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
        actor=entry.actor,
        tx=entry.tx,
    )
