"""Secrets and signatures by the Standard Webhooks scheme.

Pure. The signature itself is the library's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

PREFIX = "whsec_"
LEAST_BYTES = 24
MOST_BYTES = 64


class BadSecret(ValueError):
    """The text is no secret; the message says why and does not contain it."""


def check_secret(secret: str) -> None:
    """Raises BadSecret for a text that is no secret of the scheme."""
    if not secret.startswith(PREFIX):
        raise BadSecret(f"A secret begins with {PREFIX}.")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(f"Behind {PREFIX} a secret is base64, padded with '='.") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise BadSecret(
            f"A secret has {LEAST_BYTES} to {MOST_BYTES} bytes in base64, not {len(key)}."
        )


def signed(delivery_id: str, at: datetime, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The three headers of a request that is made at `at`, with a signature by each secret.

    Raises BadSecret.
    """
    text = body.decode()
    signatures = []
    for secret in secrets:
        check_secret(secret)
        signatures.append(Signer(secret).sign(delivery_id, at.astimezone(UTC), text))
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
