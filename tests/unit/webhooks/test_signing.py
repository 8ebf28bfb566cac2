"""Signatures by the Standard Webhooks scheme."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from realtime.webhooks.signing import BadSecret, check_secret, signed
from tests.support.webhook_secrets import secret_of

SECRET = secret_of(b"k" * 32)


@given(st.binary(min_size=24, max_size=64), st.text(min_size=1).filter(str.isprintable))
def test_the_library_of_a_receiver_verifies_what_is_signed(key: bytes, word: str) -> None:
    body = f'{{"word":"{word}"}}'.encode()
    headers = signed("msg_1", datetime.now(UTC), body, [secret_of(key)])
    assert set(headers) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    Webhook(secret_of(key)).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(b"x" * 32)).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(body, {**headers, "webhook-id": "msg_2"}, json_parse=False)


def test_the_scheme_is_met_to_the_byte() -> None:
    at = datetime(2026, 11, 30, 12, tzinfo=timezone(timedelta(hours=2)))
    headers = signed("msg_1", at, b'{"a":"\xc3\xa4"}', [secret_of(b"k" * 32)])
    assert headers["webhook-timestamp"] == "1796032800"
    text = b'msg_1.1796032800.{"a":"\xc3\xa4"}'
    expected = base64.b64encode(hmac.digest(b"k" * 32, text, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_former_secret_signs_beside_the_new_one() -> None:
    former = secret_of(b"f" * 32)
    headers = signed("msg_1", datetime.now(UTC), b"{}", [SECRET, former])
    for secret in (SECRET, former):
        Webhook(secret).verify(b"{}", headers)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "begins with whsec_"),
        ("secret", "begins with whsec_"),
        ("whsk_" + "a" * 44, "begins with whsec_"),
        ("whsec_", "bytes"),
        ("whsec_abc", "base64"),
        ("whsec_ä" + "a" * 40, "base64"),
        ("whsec_" + base64.b64encode(b"a" * 23).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"a" * 65).decode(), "24 to 64 bytes"),
        (SECRET + "\n", "base64"),
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(secret: str, said: str) -> None:
    with pytest.raises(BadSecret, match=said) as error:
        check_secret(secret)
    assert len(secret) < 12 or secret not in str(error.value)
    with pytest.raises(BadSecret):
        signed("msg_1", datetime.now(UTC), b"{}", [secret])
