"""Patterns: the text operators, each as a function from text to whether it matches.

All take time linear in the text whatever the pattern, since a pattern is another user's input
that runs on every row. Letters fold as ASCII does, the rest stay as they are: both databases can
do exactly that, and no two agree on more.

Pure: the standard library and RE2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import re2

TextTest = Callable[[str], "bool | None"]

_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# Bytes of one compiled pattern. Generous to what has been accepted with a tighter bound.
_REGEX_MEMORY = 1 << 22


def fold(text: str) -> str:
    """The text with A-Z as a-z and nothing else changed."""
    return text.lower() if text.isascii() else text.translate(_FOLD)


def like_parts(pattern: str) -> list[str | None]:
    """The pattern in pieces: a text for itself, "" never; "%" and "_" as None and a lone "".

    A backslash takes the next character literally; at the very end it stands for itself.
    """
    parts: list[str | None] = []
    literal: list[str] = []

    def close() -> None:
        if literal:
            parts.append("".join(literal))
            literal.clear()

    characters = iter(pattern)
    for char in characters:
        if char == "\\":
            literal.append(next(characters, "\\"))
        elif char == "%":
            close()
            if not parts or parts[-1] is not None:
                parts.append(None)
        elif char == "_":
            close()
            parts.append("")
        else:
            literal.append(char)
    close()
    return parts


def like(pattern: str, *, ignore_case: bool = False) -> TextTest:
    """SQL's LIKE: "%" is any text, "_" any one character, backslash escapes."""
    parts = like_parts(fold(pattern) if ignore_case else pattern)
    test = _regex_like(parts) if "" in parts else _plain_like(parts)
    return (lambda text: test(fold(text))) if ignore_case else test


def _plain_like(parts: list[str | None]) -> TextTest:
    """Without "_": the pieces in order, each as early as it can be."""
    if None not in parts:
        whole = "".join(part or "" for part in parts)
        return lambda text: text == whole
    head = parts[0] or ""
    tail = parts[-1] or ""
    middle = [part for part in parts[1:-1] if part is not None]
    shortest = len(head) + len(tail)

    def test(text: str) -> bool:
        if len(text) < shortest or not text.startswith(head) or not text.endswith(tail):
            return False
        position, end = len(head), len(text) - len(tail)
        for piece in middle:
            position = text.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return test


def _regex_like(parts: list[str | None]) -> TextTest:
    pieces = [".*" if part is None else "." if part == "" else re2.escape(part) for part in parts]
    return _search(f"^(?:{''.join(pieces)})$", ignore_case=False)


def regex(pattern: str, *, ignore_case: bool = False) -> TextTest:
    """A search for an RE2 pattern anywhere in the text; "." takes a newline too.

    Raises ValueError for a pattern that RE2 refuses, back-references and look-around among them.
    """
    return _search(pattern, ignore_case=ignore_case)


@lru_cache(maxsize=1024)
def _search(pattern: str, *, ignore_case: bool) -> TextTest:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.case_sensitive = not ignore_case
    options.max_mem = _REGEX_MEMORY
    try:
        search = re2.compile(pattern, options).search
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise ValueError(f"invalid regular expression: {reason}") from None

    def test(text: str) -> bool | None:
        try:
            return search(text) is not None
        except UnicodeEncodeError:
            return None  # no text that a database holds

    return test
