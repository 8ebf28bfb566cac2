"""Secrets of webhooks with keys that a test chooses."""

from __future__ import annotations

import base64


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode("ascii")
