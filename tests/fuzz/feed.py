"""What the fuzz tests feed: the kept entries, and mutations of them."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("ROWCAST_FUZZ_EXAMPLES", "300"))

F = TypeVar("F", bound=Callable[..., None])

# What parsers trip over, whatever the language.
_PIECES = [
    *(
        "",
        " ",
        "\t",
        "\n",
        "\0",
        "\x7f",
        "\u2028",
        "\ufeff",
        "é",
        "𝟙",
        "\U0010ffff",
        '"',
        "'",
        "\\",
    ),
    *(",", ".", ":", ";", "=", "-", "+", "%", "$", "_", "*", "/", "(", ")", "[", "]", "{", "}"),
    *("null", "true", "false", "NaN", "-Infinity", "0", "-0", "-1", "1e999", "9" * 19, "9" * 400),
    *(
        '{"a":',
        "[[",
        "]]",
        '\\"',
        "\\u0000",
        "\\ud800",
        "\\udc00",
        "()",
        '""',
        "not.",
        "in.(",
        "$$",
    ),
    *("a" * 300, "[" * 70, "{}" * 40),
]


@functools.cache
def entries(name: str) -> tuple[str | bytes, ...]:
    """The kept inputs of one kind."""
    found: list[str | bytes] = []
    for line in (CORPUS / f"{name}.txt").read_text().splitlines():
        if line.startswith("hex:"):
            found.append(bytes.fromhex(line[4:]))
        elif line and not line.startswith("#"):
            found.append(json.loads(line))
    assert found, name
    return tuple(found)


@st.composite
def mutated(draw: Any, name: str) -> str | bytes:
    """An entry, cut, doubled, spliced with another or with what parsers trip over."""
    known = entries(name)
    value = draw(st.sampled_from(known))
    binary = isinstance(value, bytes)
    others = [other for other in known if isinstance(other, bytes) is binary]
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(value)))
        end = draw(st.integers(start, min(len(value), start + 20)))
        deed = draw(st.sampled_from(("cut", "double", "put", "replace", "splice", "random")))
        piece = value[start:end]
        if deed == "cut":
            value = value[:start] + value[end:]
        elif deed == "double":
            value = value[:end] + piece + value[end:]
        elif deed == "splice":
            other = draw(st.sampled_from(others))
            value = value[:start] + other[draw(st.integers(0, len(other))) :]
        else:
            new = _binary(draw, deed) if binary else _text(draw, deed)
            value = value[:start] + new + value[end if deed == "replace" else start :]
    return value


def _text(draw: Any, deed: str) -> str:
    # Whatever comes over a socket as text is Unicode without surrogates.
    return draw(st.text(max_size=5)) if deed == "random" else draw(st.sampled_from(_PIECES))


def _binary(draw: Any, deed: str) -> bytes:
    if deed == "random":
        return draw(st.binary(max_size=5))
    return draw(st.sampled_from(_PIECES)).encode()


def fuzzed(name: str, **more: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """A test of `data`: every kept entry of this kind, then mutations, and plain noise."""

    def decorate(test: F) -> F:
        noise = st.text(max_size=60) | st.binary(max_size=60)
        if all(isinstance(entry, str) for entry in entries(name)):
            noise = st.text(max_size=60)
        made: Any = given(data=mutated(name) | noise, **more)(test)
        if not more:
            for entry in entries(name):
                made = example(data=entry)(made)
        checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
        return settings(max_examples=EXAMPLES, suppress_health_check=checks)(made)

    return decorate


def scrambled(random: Random, known: Sequence[str | bytes]) -> str | bytes:
    """One mutation more, of the kinds above, for a live server: fast, and not to be shrunk."""
    value = random.choice(known)
    for _ in range(random.randint(0, 4)):
        start = random.randint(0, len(value))
        end = min(len(value), start + random.randint(0, 20))
        piece: Any = random.choice(_PIECES)
        other: Any = random.choice(known)
        if isinstance(value, bytes):
            piece = piece.encode()
        if isinstance(other, bytes) is not isinstance(value, bytes):
            other = value
        value = random.choice(
            (
                value[:start] + value[end:],
                value[:end] + value[start:],
                value[:start] + piece + value[end:],
                value[:start] + other[random.randint(0, len(other)) :],
            )
        )
    return value
