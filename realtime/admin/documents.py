"""JSON documents and times of the log as people read them.

Pure: no Django models, no database.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

# Characters shown of one value, and of a whole document.
MAX_VALUE = 500
MAX_DOCUMENT = 20_000

_decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
encode = msgspec.json.Encoder(decimal_format="number").encode


def pretty(document: str, max_value: int = MAX_VALUE) -> str:
    """A JSON object over several lines, its numbers digit for digit. Long values are cut, with a
    note of it; a text that is not JSON is returned unchanged."""
    try:
        cells = _decode_cells(document.encode())
        shown = {name: _cut_cell(cell, max_value) for name, cell in cells.items()}
        document = msgspec.json.format(encode(shown), indent=2).decode()
    except (msgspec.DecodeError, RecursionError):
        pass
    return cut(document, MAX_DOCUMENT)


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … {len(text) - limit} more characters"


def _cut_cell(cell: msgspec.Raw, limit: int) -> msgspec.Raw:
    text = bytes(cell).decode()
    if len(text) <= limit:
        return cell
    # A long string is cut inside its quotes; anything else becomes the beginning of its text.
    shown = msgspec.json.decode(text) if text.startswith('"') else text
    return msgspec.Raw(encode(cut(shown, limit)))


def as_text(value: Any, limit: int = MAX_VALUE) -> str:
    """A value of a change as people read it: a text as it is, anything else as JSON; cut."""
    text = value if isinstance(value, str) else encode(value).decode()
    return cut(text, limit)


def changed(old: bytes, new: bytes) -> list[str]:
    """The names of the cells whose JSON differs between two images of a row; empty where one is
    not JSON."""
    try:
        before, after = _decode_cells(old), _decode_cells(new)
    except (msgspec.DecodeError, RecursionError):
        return []
    absent = msgspec.Raw()
    return [name for name, cell in after.items() if bytes(before.get(name, absent)) != bytes(cell)]


def without(document: str, columns: Collection[str]) -> tuple[str, list[str]]:
    """The image of a row with these columns alone, and the names of the others. An image that is
    not JSON has no columns, and nothing of it is left."""
    try:
        cells = _decode_cells(document.encode())
    except (msgspec.DecodeError, RecursionError):
        return "{}", []
    withheld = [name for name in cells if name not in columns]
    if not withheld:
        return document, []
    return encode({name: cells[name] for name in cells if name in columns}).decode(), withheld


def document(text: str, max_value: int = MAX_VALUE) -> SafeString:
    """`pretty` as HTML."""
    return format_html('<pre class="realtime-document">{}</pre>', pretty(text, max_value))


def with_note(shown: SafeString, withheld: Sequence[str]) -> SafeString:
    """What is shown of a row, with the names of the columns that are not, if there are any."""
    if not withheld:
        return shown
    note = _("Not published, and not shown: %(names)s.") % {"names": ", ".join(withheld)}
    return format_html("{}<p>{}</p>", shown, note)


def moment(micros: int | None) -> str:
    """A time in microseconds since 1970, with all of them."""
    if micros is None:
        return "-"
    seconds, rest = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:06d}Z"


def short_moment(micros: int | None) -> Any:
    """The same to the second, with the whole of it as a title."""
    if micros is None:
        return "-"
    whole = moment(micros)
    return format_html(
        '<span title="{}" class="realtime-time">{}</span>', whole, whole.partition(".")[0]
    )
