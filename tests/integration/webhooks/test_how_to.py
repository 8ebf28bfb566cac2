"""The code of docs/how-to/webhooks.md, as it stands there."""

from __future__ import annotations

import os
import types
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.test import RequestFactory

from realtime.webhooks.signing import signed
from tests.support.pages import DOCS, blocks
from tests.support.webhook_secrets import secret_of

SECRET = secret_of(b"k" * 32)
BODY = b'{"type":"INSERT","table":"shop_order","schema":"public","record":{"id":7}}'


class Received:
    """The receiver's own model, whose keys are unique."""

    seen: set[str] = set()

    class objects:
        @staticmethod
        def create(id: str) -> None:
            if id in Received.seen:
                raise IntegrityError
            Received.seen.add(id)


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(os.environ, "ORDERS_SECRET", SECRET)
    (block,) = [b for b in blocks(DOCS / "how-to" / "webhooks.md", "python") if "verify" in b.text]
    module = types.ModuleType("receiver")
    vars(module)["Received"] = Received
    Received.seen.clear()
    exec(compile(block.text, str(block), "exec"), vars(module))
    return vars(module)["orders"]


def status(view: Any, headers: dict[str, str], body: bytes = BODY) -> int:
    request = RequestFactory().post(
        "/orders", body, content_type="application/json", headers=headers
    )
    return int(view(request).status_code)


def test_the_receiver_takes_what_is_signed_once_and_refuses_the_rest(view: Any) -> None:
    now = datetime.now(UTC)
    headers = signed("msg_1", now, BODY, [SECRET])
    assert status(view, headers) == 204
    assert status(view, headers) == 200
    assert status(view, signed("msg_2", now, BODY, [secret_of(b"x" * 32)])) == 401
    assert status(view, signed("msg_3", now - timedelta(hours=1), BODY, [SECRET])) == 401
    assert status(view, signed("msg_4", now, BODY, [SECRET]), BODY.replace(b"7", b"8")) == 401
    assert status(view, {}) == 401
    assert status(view, {**headers, "webhook-signature": "nonsense"}) == 401
    assert status(view, headers, b"\xff") == 401
    assert Received.seen == {"msg_1"}
