"""Patterns: what they match, what they cost, and what is left of them without RE2."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.patterns import MAX_PROGRAM, fold, like, regex

WITHOUT_RE2 = """
import sys
sys.modules["re2"] = None
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.patterns import like, regex
from realtime.protocol.filters import FilterError, parse_filter
assert like("a_c%")("abcd") is True and like("A%", ignore_case=True)("abc") is True
parse_filter("title=like.a%,title=not.ilike.%_b", {"title": Kind.TEXT})
try:
    parse_filter("title=match.a", {"title": Kind.TEXT})
except FilterError as error:
    print(error.exception)
"""


def reference(pattern: str) -> re.Pattern[str]:
    """LIKE as Python's regular expressions say it."""
    pieces = []
    characters = iter(pattern)
    for char in characters:
        if char == "\\":
            pieces.append(re.escape(next(characters, "\\")))
        else:
            pieces.append({"%": ".*", "_": "."}.get(char) or re.escape(char))
    return re.compile("".join(pieces), re.DOTALL)


@given(st.text("ab_%\\", max_size=12), st.text("abc", max_size=40))
def test_like_is_what_its_definition_says(pattern: str, text: str) -> None:
    assert like(pattern)(text) is bool(reference(pattern).fullmatch(text))


@given(
    st.lists(st.text("ab_", min_size=1, max_size=8), min_size=1, max_size=3).map("%".join),
    st.text("ab", min_size=300, max_size=600),
)
def test_like_is_that_on_long_texts_too(pattern: str, text: str) -> None:
    assert like(f"%{pattern}%")(text) is bool(reference(f"%{pattern}%").fullmatch(text))


@given(st.text(st.characters(), max_size=20))
def test_folding_touches_ascii_letters_alone(text: str) -> None:
    folded = "".join(chr(ord(char) + 32) if "A" <= char <= "Z" else char for char in text)
    assert fold(text) == folded


@pytest.mark.parametrize(
    "pattern",
    ["[ab].{900}x", r"\pL{205}", r"\pL{5}", "x{900}y{900}", "(a?){900}", "(?i)" + "é" * 990],
)
def test_a_program_that_is_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="invalid regular expression: pattern too large"):
        regex(pattern)
    assert MAX_PROGRAM < 2_000


def test_steps_grow_with_the_text_and_the_program() -> None:
    small, large = regex("(error|warn)"), regex("[ab].{90}x")
    assert small.steps("x" * 1_000) < large.steps("x" * 1_000) < large.steps("x" * 2_000)
    assert large.steps("é" * 1_000) == large.steps("x" * 2_000)
    assert like("%plain%").steps("x" * 1_000) < like("%a_b%").steps("x" * 1_000)


def test_a_plain_text_costs_what_a_search_costs_whatever_operator_names_it() -> None:
    assert regex("urgent").steps("x" * 1_600) == like("%urgent%").steps("x" * 1_600)
    assert regex("urgent")("not urgent") is True


def test_a_regular_expression_is_compiled_once_while_it_is_in_use_and_not_kept_after() -> None:
    first = regex("used (by|for) something")
    assert regex("used (by|for) something") is first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_without_re2_like_works_and_match_is_refused_in_words() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RE2], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("ERROR 0A000 (feature_not_supported)")
    assert "use like or ilike" in done.stdout


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("a%", "a\nb", True),
        ("%b%", "abc", True),
        ("a%a", "a", False),
        ("a%b%c", "aXbYc", True),
        ("a%bc%c", "abc", False),
        ("%ab%ab%", "xabab", True),
        ("_", "é", True),
        ("_", "", False),
        ("_", "ab", False),
        ("a_c%", "a\ncd", True),
        (r"100\%", "100%", True),
        (r"100\%", "1000", False),
        (r"\_%", "_a", True),
        (r"\\", "\\", True),
        ("\\", "\\", True),
        (r"a\b", "ab", True),
        ("a.c", "abc", False),
        ("[ab]*", "[ab]*", True),
        ("A%", "abc", False),
        ("%%%", "", True),
    ],
)
def test_like_is_sqls(pattern: str, text: str, expected: bool) -> None:
    assert like(pattern)(text) is expected


def test_ilike_folds_ascii_only() -> None:
    assert like("ÉA%", ignore_case=True)("Éab") is True
    assert like("éa%", ignore_case=True)("Éab") is False


@given(st.text("ab%_\\", max_size=6), st.text("ab", max_size=6))
def test_like_agrees_with_its_definition(pattern: str, text: str) -> None:
    def matches(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "%":
            return any(matches(p[1:], t[i:]) for i in range(len(t) + 1))
        if p[0] == "\\" and len(p) > 1:
            return t[:1] == p[1] and matches(p[2:], t[1:])
        return bool(t) and p[0] in ("_", t[0]) and matches(p[1:], t[1:])

    assert like(pattern)(text) is matches(pattern, text)


def test_a_long_pattern_on_a_long_text_ends() -> None:
    assert like("%a" * 500 + "b")("a" * 20_000) is False
    assert like("%_a" * 200 + "b")("a" * 5_000) is False
    assert regex("(a*)*b")("a" * 20_000) is False


def test_a_regular_expression_searches() -> None:
    assert regex("b.d")("ab\nde") is True
    assert regex("^b")("ab") is False
    assert regex("B", ignore_case=True)("ab") is True


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{1000}{1000}", "*"])
def test_a_pattern_that_re2_refuses_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"invalid regular expression: ."):
        regex(pattern)
