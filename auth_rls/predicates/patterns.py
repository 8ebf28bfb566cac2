"""Patterns: the text operators, each as a test of a text.

A pattern comes from a client and is matched with every row, so its cost is bounded. The time of
`like` is linear in the text for every pattern. A regular expression takes at most the size of its
program times that of the text, and programs are small. `Pattern.steps` returns the cost of a text
before it is matched. Case is only ignored for the letters of ASCII: both databases can do that, and
they disagree about other letters.

Pure: the standard library, and RE2 where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

try:
    import re2
except ImportError:  # the extra [regex] is not installed
    re2 = None

TextTest = Callable[[str], "bool | None"]

MAX_PROGRAM = 1_500
"""Instructions of one regular expression."""
# Bytes that RE2 may use for one regular expression: its program, and its states while it runs.
_REGEX_MEMORY = 1 << 16
# Bytes of a pattern itself, and of each text, "%" and "_" of a `like`.
_OBJECT = 1_000
_PIECE = 200
# A search for plain text is so much cheaper by the character than an instruction of a program.
_PLAIN = 16
# Instructions that a character is worth where "_" stands between texts in the middle of a pattern.
_WILD = 30
_SYNTAX = frozenset("\\.+*?()|[]{}^$")


class RegexUnavailable(ValueError):
    """Regular expressions are not available, since RE2 is not installed."""


class Pattern:
    """A test of a text, and its cost. The result is None for a text that no database can store."""

    __slots__ = ("__weakref__", "_scale", "program", "test")

    def __init__(self, test: TextTest, program: int, scale: int = 1) -> None:
        self.test = test
        self._scale = scale
        self.program = program
        """Its size in instructions."""

    def __call__(self, text: str) -> bool | None:
        return self.test(text)

    def steps(self, text: str) -> int:
        """The most instructions that the test of this text runs."""
        size = len(text)
        if not text.isascii():
            size = len(text.encode("utf-8", "surrogatepass"))
        return size * self.program // self._scale + 1


# Patterns in use are shared. Only those: what a closed socket asked for is not kept.
_in_use: WeakValueDictionary[tuple[str, str, bool], Pattern] = WeakValueDictionary()


def _shared(
    kind: str, pattern: str, ignore_case: bool, make: Callable[[str, bool], Pattern]
) -> Pattern:
    found = _in_use.get((kind, pattern, ignore_case))
    if found is None:
        found = _in_use[kind, pattern, ignore_case] = make(pattern, ignore_case)
    return found


def fold(text: str) -> str:
    """The text with A-Z as a-z and nothing else changed."""
    if text.isascii():
        return text.lower()
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


# --- like ---------------------------------------------------------------------------------------


def like_parts(pattern: str) -> list[str | None]:
    """The pattern in parts: a literal text (never ""), None for "%", and "" for "_".

    A backslash makes the next character literal; at the end it stands for itself.
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


def like(pattern: str, *, ignore_case: bool = False) -> Pattern:
    """SQL's LIKE: "%" is any text, "_" any one character, backslash escapes."""
    return _shared("like", pattern, ignore_case, _like)


def _like(pattern: str, ignore_case: bool) -> Pattern:
    parts = like_parts(fold(pattern) if ignore_case else pattern)
    segments = _segments(parts)
    test = _simple(parts)
    if test is None:
        test = _exactly(segments[0]) if len(segments) == 1 else _in_order(segments)
    program, scale = 1, _PLAIN
    if ignore_case:
        program, scale = 1, _PLAIN // 4
    searched = [segment.length for segment in segments[1:-1] if len(segment.texts) > 1]
    if searched:
        program, scale = _WILD + max(searched) // 16, 1
    return Pattern(_folded(test) if ignore_case else test, program, scale)


def _folded(test: TextTest) -> TextTest:
    return lambda text: test(fold(text))


def _simple(parts: Sequence[str | None]) -> TextTest | None:
    """The patterns that most clients use, each as one call: a text alone, or with "%" before it,
    after it, or both."""
    match parts:
        case [str(text)] if text:
            return text.__eq__
        case [str(text), None] if text:
            return lambda found: found.startswith(text)
        case [None, str(text)] if text:
            return lambda found: found.endswith(text)
        case [None, str(text), None] if text:
            return lambda found: text in found
    return None


@dataclass(frozen=True, slots=True)
class _Segment:
    """The part of a pattern between two "%": literal texts at offsets, and "_" between them.
    `length` is the number of characters that it matches."""

    length: int
    texts: tuple[tuple[int, str], ...]

    def at(self, text: str, index: int) -> bool:
        """Whether the segment matches at this index; the text must be long enough."""
        return all(text.startswith(piece, index + offset) for offset, piece in self.texts)

    def find(self, text: str, start: int, end: int) -> int:
        """The first index from `start` to `end` at which the segment matches; -1 for none."""
        if not self.texts:
            return start if end - start >= self.length else -1
        offset, piece = max(self.texts, key=lambda item: len(item[1]))
        last = end - self.length
        # Trying the indices at which the longest literal occurs is fast, unless there are many.
        patience = 16 + (end - start) // (16 * len(self.texts))
        index = start
        while index <= last:
            found = text.find(piece, index + offset, last + offset + len(piece))
            if found < 0:
                return -1
            index = found - offset
            if self.at(text, index):
                return index
            index += 1
            patience -= 1
            if not patience:
                return self._scan(text, index, end)
        return -1

    def _scan(self, text: str, start: int, end: int) -> int:
        """`find` in a time that does not depend on the text: one integer has a bit for each offset
        in the segment that the text may have reached."""
        literal = 0
        masks: dict[str, int] = {}
        for offset, piece in self.texts:
            for index, char in enumerate(piece, start=offset):
                masks[char] = masks.get(char, 0) | 1 << index
                literal |= 1 << index
        wild = ((1 << self.length) - 1) & ~literal
        masks = {char: mask | wild for char, mask in masks.items()}
        reached, whole = 0, 1 << (self.length - 1)
        for index in range(start, end):
            reached = (reached << 1 | 1) & masks.get(text[index], wild)
            if reached & whole:
                return index + 1 - self.length
        return -1


def _segments(parts: Sequence[str | None]) -> list[_Segment]:
    segments: list[_Segment] = []
    length = 0
    texts: list[tuple[int, str]] = []
    for part in (*parts, None):
        if part is None:
            segments.append(_Segment(length, tuple(texts)))
            length, texts = 0, []
        elif part:
            texts.append((length, part))
            length += len(part)
        else:
            length += 1
    if parts and parts[-1] is None:
        segments.append(_Segment(0, ()))
    return segments


def _exactly(segment: _Segment) -> TextTest:
    """The test of a pattern without "%"."""
    return lambda text: len(text) == segment.length and segment.at(text, 0)


def _in_order(segments: Sequence[_Segment]) -> TextTest:
    """The test of a pattern with "%": the first segment matches at the beginning, the last at the
    end, and the others as early as possible."""
    head, *middle, tail = segments
    middle = [segment for segment in middle if segment.length]
    shortest = sum(segment.length for segment in segments)

    def test(text: str) -> bool:
        end = len(text) - tail.length
        if len(text) < shortest or not head.at(text, 0) or not tail.at(text, end):
            return False
        index = head.length
        for segment in middle:
            index = segment.find(text, index, end)
            if index < 0:
                return False
            index += segment.length
        return True

    return test


# --- regular expressions ------------------------------------------------------------------------


def regex(pattern: str, *, ignore_case: bool = False) -> Pattern:
    """A search for an RE2 pattern anywhere in the text; "." takes a newline too.

    Raises ValueError for a pattern that RE2 refuses, back-references and look-around among them,
    and for one whose program is too large; RegexUnavailable where RE2 is not installed.
    """
    if re2 is None:
        raise RegexUnavailable(
            "regular expressions are not available on this server (it lacks google-re2); "
            "use like or ilike"
        )
    return _shared("regex", pattern, ignore_case, _compile)


def _compile(pattern: str, ignore_case: bool) -> Pattern:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.case_sensitive = not ignore_case
    options.max_mem = _REGEX_MEMORY
    try:
        compiled = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise ValueError(f"invalid regular expression: {reason}") from None
    if compiled.programsize > MAX_PROGRAM:
        raise ValueError("invalid regular expression: pattern too large - compile failed")
    if not ignore_case and _SYNTAX.isdisjoint(pattern):
        # A literal text needs no program.
        return Pattern(lambda text: pattern in text, 1, _PLAIN)
    search = compiled.search

    def test(text: str) -> bool | None:
        try:
            return search(text.encode()) is not None
        except UnicodeEncodeError:
            return None  # no database stores such a text

    return Pattern(test, max(compiled.programsize, 1))


# --- languages ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Language:
    """A way to write patterns."""

    make: Callable[[str], Pattern]
    """The pattern of a text; raises as `regex` does."""
    memory: Callable[[str], int]
    """At most how many bytes a pattern takes once it is made, roughly."""
    problem: Callable[[str], str]
    """What is wrong with a text as a pattern, as far as it shows without making it; else ""."""
    program: bool
    """Whether a pattern is a program, which may turn out wrong or too large when it is made."""


def _like_memory(pattern: str) -> int:
    return _OBJECT + 4 * len(pattern) + _PIECE * len(like_parts(pattern))


def _like_problem(pattern: str) -> str:
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        return "it must not end with an escape character"
    return ""


def _regex_memory(pattern: str) -> int:
    return _OBJECT + _REGEX_MEMORY


def _no_problem(pattern: str) -> str:
    return ""


LIKE = Language(like, _like_memory, _like_problem, program=False)
ILIKE = Language(partial(like, ignore_case=True), _like_memory, _like_problem, program=False)
REGEX = Language(regex, _regex_memory, _no_problem, program=True)
IREGEX = Language(partial(regex, ignore_case=True), _regex_memory, _no_problem, program=True)
