"""Bodies of broadcasts over HTTP: sent, or refused with JSON that says why."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from django.test import AsyncClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.feed import EXAMPLES, entries, scrambled

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")
REFUSALS = {400, 403, 413, 415, 422}
PATHS = (
    "/realtime/api/broadcast",
    "/realtime/v1/api/broadcast",
    "/realtime/api/broadcast/room/events/e",
    "/realtime/api/broadcast/room/events/e?private=true",
    "/realtime/api/broadcast/%00/events/%F0%9F%98%80",
    "/realtime/api/broadcast/realtime%3A/events/ /events/?persist=true",
)
TYPES = ("application/json", "application/octet-stream", "text/plain", "", "application/json; x")


@pytest.fixture(autouse=True)
def without_limits(settings: Any) -> None:
    settings.REALTIME = {"LIMITS": {"broadcasts_per_second": None}}


async def post(path: str, body: str | bytes, kind: str) -> None:
    data = body if isinstance(body, bytes) else body.encode()
    response = await AsyncClient().post(path, data, content_type=kind)
    assert response.status_code in REFUSALS | {202}, (path, kind, data)
    assert response["Access-Control-Allow-Origin"] == "*"
    if response.status_code != 202:
        assert isinstance(json.loads(response.content), dict)


@pytest.mark.parametrize("path", PATHS)
async def test_a_kept_body_is_sent_or_refused_with_a_reason(path: str) -> None:
    for body in entries("bodies"):
        for kind in TYPES:
            await post(path, body, kind)


async def test_a_body_that_is_almost_right_is_sent_or_refused_with_a_reason() -> None:
    known = entries("bodies")
    for seed in range(EXAMPLES):
        random = Random(seed)
        await post(random.choice(PATHS), scrambled(random, known), random.choice(TYPES))


@settings(max_examples=EXAMPLES)
@given(topic=st.text(max_size=30), event=st.text(max_size=30))
def test_an_address_that_names_any_topic_is_answered(topic: str, event: str) -> None:
    from urllib.parse import quote

    from django.urls import Resolver404, resolve

    path = f"/realtime/api/broadcast/{quote(topic)}/events/{quote(event)}"
    try:
        found = resolve(path)
    except Resolver404:
        return
    assert set(found.kwargs) <= {"topic", "event"}
