"""What comes with a handshake: tokens, query strings and headers. A doubt refuses."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_rls.subjects import tokens
from auth_rls.subjects.tokens import ROLES, TokenError
from realtime.protocol.join import token_in
from realtime.protocol.serializer import FrameError, Version, negotiate
from realtime.redaction import RedactCredentials, redact
from realtime.socket import credentials
from realtime.socket.credentials import Kind
from realtime.socket.handshake import query_parameter
from realtime.socket.origin import OriginRule
from tests.fuzz.feed import EXAMPLES, entries, fuzzed, mutated

NOW = 1_700_000_000.0
GENUINE = {entry for entry in entries("tokens") if isinstance(entry, str)}


@fuzzed("tokens")
def test_a_token_has_claims_that_hold_or_is_refused_with_a_text(data: str) -> None:
    try:
        claims = tokens.verify(data, now=NOW)
    except TokenError as error:
        assert error.reason and error.code and error.handshake_reason
        return
    # What is let in was signed with the key: it is one of those that were made with it.
    assert data in GENUINE
    assert claims["role"] in ROLES
    assert claims["exp"] > NOW
    json.dumps(claims)


@fuzzed("tokens")
def test_whatever_a_join_shows_as_token_is_ignored_or_tried(data: str) -> None:
    found = token_in({"access_token": data})
    assert found is None or (found == data.strip() and not found.startswith("sb_"))


@settings(max_examples=EXAMPLES)
@given(
    query=mutated("queries"),
    values=st.lists(
        st.tuples(
            st.sampled_from(
                [b"authorization", b"X-Api-Key", b"cookie", b"origin", b"host", b"forwarded", b""]
            ),
            mutated("headers"),
        ),
        max_size=5,
    ),
    session=st.booleans(),
)
def test_a_handshake_is_read_whatever_its_headers_and_query_hold(
    query: str, values: list[tuple[bytes, str]], session: bool
) -> None:
    raw = query.encode()
    headers = [(name, value.encode()) for name, value in values]
    found = credentials.from_handshake(headers, raw, session=session)
    assert found.kind is not Kind.SESSION or session
    assert bool(found.value) is (found.kind is Kind.TOKEN)
    try:
        assert negotiate(query_parameter(raw, "vsn")) in Version
    except FrameError as error:
        assert "vsn" in str(error)


@settings(max_examples=EXAMPLES)
@given(origins=st.lists(mutated("headers"), max_size=3), hosts=st.lists(mutated("headers")))
def test_an_origin_is_judged_whatever_it_says(origins: list[str], hosts: list[str]) -> None:
    rule = OriginRule(hosts=("localhost", ".app.example"))
    headers = [(b"origin", origin.encode()) for origin in origins]
    headers += [(b"host", host.encode()) for host in hosts]
    logging.disable(logging.WARNING)
    try:
        verdict = rule.judge(headers)
    finally:
        logging.disable(logging.NOTSET)
    assert not (verdict.trusts_session and not verdict.allowed)


@pytest.mark.parametrize("name", ["queries", "headers", "tokens", "frames_v2"])
def test_a_log_line_is_cleaned_whatever_it_holds_and_cleaning_again_changes_nothing(
    name: str,
) -> None:
    @settings(max_examples=EXAMPLES // 2)
    @given(mutated(name))
    def run(data: str | bytes) -> None:
        text = data if isinstance(data, str) else data.decode("latin-1")
        clean = redact(text)
        assert redact(clean) == clean
        record = logging.makeLogRecord({"msg": "%s", "args": (text,), "name": "daphne"})
        assert RedactCredentials().filter(record)
        record.getMessage()

    run()
