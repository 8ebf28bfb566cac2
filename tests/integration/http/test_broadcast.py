"""`POST /realtime/api/broadcast`: what a sender may cause, and any project around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection, connections
from django.test import AsyncClient, override_settings

from auth_rls.models import Policy
from realtime.http import send_permissions
from realtime.process.hub import close_hub, hub
from realtime.subscriptions.planner import Planner
from tests.support.socket_client import Client, db

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

BATCH = "/realtime/v1/api/broadcast"
SERVICE = {"API_KEYS": {"sb_secret_x": "service_role"}}


def allow(action: str) -> Policy:
    permission = Permission.objects.get(codename=action, content_type__app_label="realtime")
    return Policy.objects.create(
        name=action, permission=permission, audience="anyone", using={"topic": "room"}
    )


def message(**fields: Any) -> dict[str, Any]:
    return {"topic": "room", "event": "e", "payload": 1, **fields}


async def post(messages: list[dict[str, Any]], **headers: str) -> Any:
    body = json.dumps({"messages": messages}).encode()
    return await AsyncClient().post(BATCH, body, content_type="application/json", headers=headers)


@pytest.fixture
async def listener() -> AsyncIterator[Client]:
    client = await Client().connect()
    await client.join("realtime:room")
    yield client
    await client.close()


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Planner]:
    """Every planner that a request has made."""
    made: list[Planner] = []

    class Counted(Planner):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(send_permissions, "Planner", Counted)
    return made


async def test_the_policies_are_read_once_for_all_topics_of_a_request(
    readings: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    rights = Planner.rights

    def counted(planner: Planner, subject: Any, topic: str) -> Any:
        judged.append(topic)
        return rights(planner, subject, topic)

    monkeypatch.setattr(Planner, "rights", counted)
    topics = [f"t{number % 70}" for number in range(500)]
    answer = await post([message(topic=topic, private=True) for topic in topics])
    assert answer.status_code == 202
    assert len(readings) == 1
    assert sorted(judged) == sorted(set(topics))


async def test_requests_at_once_share_a_reading_that_is_not_older_than_they_are(
    readings: list[Planner],
) -> None:
    # The first begins one; those that come while it is read share the next.
    answers = await asyncio.gather(*(post([message(private=True)]) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {202}
    assert len(readings) <= 4


async def test_a_right_counts_for_the_next_request_and_so_does_its_end(listener: Client) -> None:
    single = f"{BATCH}/room/events/e?private=true"

    async def status() -> int:
        answer = await AsyncClient().post(single, b"1", content_type="application/json")
        return answer.status_code

    assert await status() == 403
    policy = await db(allow, "send_broadcast")
    assert await status() == 202
    await db(policy.delete)
    assert await status() == 403


async def test_the_operators_own_key_needs_no_policies(readings: list[Planner]) -> None:
    with override_settings(REALTIME=SERVICE):
        answer = await post([message(private=True)], apikey="sb_secret_x")
    assert answer.status_code == 202
    assert readings == []


async def test_bytes_are_charged_before_they_are_read() -> None:
    limits = {"frame_bytes": 10_000}
    with override_settings(REALTIME={"LIMITS": limits}):
        nonsense = b"{" + b" " * 9_000
        kinds = []
        while 429 not in kinds:
            answer = await AsyncClient().post(BATCH, nonsense, content_type="application/json")
            kinds.append(answer.status_code)
        assert set(kinds) == {400, 429}
        # Far more than anybody needs at once, far less than a server can read.
        assert 20 <= len(kinds) <= 60
        assert hub().counters.limits["posted_bytes/address"] == 1
        assert answer.json() == {"message": "Too many messages per second"}
    await close_hub()


async def test_a_batch_has_a_bound() -> None:
    with override_settings(REALTIME={"LIMITS": {"messages_per_post": 2}}):
        assert (await post([message()] * 2)).status_code == 202
        answer = await post([message()] * 3)
    assert answer.status_code == 422
    assert answer.json() == {"errors": {"messages": ["should have at most 2 item(s)"]}}


async def test_a_batch_arrives_whole_and_in_order(listener: Client) -> None:
    assert (await post([message(payload=n) for n in range(500)])).status_code == 202
    for n in range(500):
        frame = await listener.until(lambda frame: frame[3] == "broadcast")
        assert frame[4]["payload"] == n


@pytest.mark.parametrize("names", ["x" * 1_025 + "/events/e", "t/events/" + "x" * 1_025])
async def test_names_in_the_path_are_bounded(names: str) -> None:
    answer = await AsyncClient().post(f"{BATCH}/{names}", b"1", content_type="application/json")
    assert answer.status_code == 422


async def test_an_event_name_on_a_socket_is_bounded(listener: Client) -> None:
    other = await Client().connect()
    await other.join("realtime:room")
    for event in ("x" * 1_025, "x" * 1_024):
        payload = {"type": "broadcast", "event": event, "payload": {}}
        await other.push("realtime:room", "broadcast", payload, join_ref="1")
    frame = await listener.until(lambda frame: frame[3] == "broadcast")
    assert frame[4]["event"] == "x" * 1_024
    await other.close()


# --- CORS ---------------------------------------------------------------------------------------


async def preflight(asked: str) -> list[str]:
    answer = await AsyncClient().options(
        BATCH, headers={"origin": "https://x.example", "access-control-request-headers": asked}
    )
    assert answer.status_code == 204
    assert "Access-Control-Request-Headers" in answer["Vary"]
    return answer["Access-Control-Allow-Headers"].split(", ")


async def test_a_preflight_is_granted_the_headers_it_asks_for() -> None:
    allowed = await preflight("TraceParent, x-request-id,  x.y~z")
    assert allowed[-3:] == ["traceparent", "x-request-id", "x.y~z"]
    assert "authorization" in allowed


async def test_what_is_no_name_of_a_header_is_not_reflected() -> None:
    asked = "x-good, x bad, <script>, y:z, " + "x" * 200 + ", é, "
    assert (await preflight(asked))[4:] == ["x-good"]
    many = ",".join(f"x-{number}" for number in range(1_000))
    assert len(await preflight(many)) < 60


# --- any project around it ----------------------------------------------------------------------

LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"


def with_middleware(*added: str) -> Any:
    return override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, *added])


async def everything_answers(client: Callable[[], AsyncClient] = AsyncClient) -> None:
    assert (await client().get("/realtime/health")).status_code in (200, 503)
    with override_settings(REALTIME=SERVICE):
        headers = {"authorization": "Bearer sb_secret_x"}
        answer = await client().get("/realtime/metrics", headers=headers)
        assert answer.status_code in (200, 501)
        answer = await client().post(
            f"{BATCH}/room/events/e", b"{}", content_type="application/json", headers=headers
        )
        assert answer.status_code == 202


async def test_a_login_that_is_required_everywhere_is_not_required_here() -> None:
    with with_middleware(LOGIN):
        await everything_answers()


async def test_a_project_may_wrap_requests_in_transactions() -> None:
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        await everything_answers()
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.parametrize(
    "changed", [{"FORCE_SCRIPT_NAME": "/app"}, {"APPEND_SLASH": True}, {"APPEND_SLASH": False}]
)
async def test_paths_are_the_projects_own(changed: dict[str, Any]) -> None:
    with override_settings(**changed):
        await everything_answers()


async def test_where_https_is_required_health_may_be_exempt() -> None:
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert (await AsyncClient().get("/realtime/health")).status_code == 301
        secure = {"x-forwarded-proto": "https"}
        with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
            answer = await AsyncClient().get("/realtime/health", headers=secure)
            assert answer.status_code in (200, 503)
        with override_settings(SECURE_REDIRECT_EXEMPT=[r"^realtime/health$"]):
            assert (await AsyncClient().get("/realtime/health")).status_code in (200, 503)


async def test_a_value_that_the_database_does_not_store_is_the_senders_fault() -> None:
    await db(allow, "send_broadcast")
    nul = f"{BATCH}/room/events/a%00b?private=true&persist=true"
    answer = await AsyncClient().post(nul, b"1", content_type="application/json")
    if connection.vendor == "sqlite":
        assert answer.status_code == 202
    else:
        assert answer.status_code == 422
        assert answer.json() == {"errors": {"message": ["the database refuses a value"]}}
