"""`GET /realtime/metrics`: who may look, and that the figures are those of what happened."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import AsyncClient
from django.test import Client as SyncClient
from django.utils import timezone

from realtime.models import Handler, Webhook, WebhookDelivery
from realtime.ops import handler_status, metrics, status
from realtime.ops.metrics import INSTALLATION, METRICS, PROCESS
from realtime.process.hub import hub
from tests.support.handler_rows import age, dead_letter, handler
from tests.support.log import number_all
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")
SERVICE = {"authorization": "Bearer sb_secret_m"}


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    settings.REALTIME = {"API_KEYS": {"sb_secret_m": "service_role", "sb_publishable_m": "anon"}}


async def scrape(client: AsyncClient | None = None, **headers: str) -> Any:
    return await (client or AsyncClient()).get("/realtime/metrics", headers=headers or None)


async def series() -> dict[str, float]:
    """Every series as text, with its value."""
    response = await scrape(**SERVICE)
    assert response.status_code == 200, response.content
    lines = response.content.decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


async def logged_in(**fields: Any) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(await db(User.objects.create_user, "ada", **fields))
    return client


# --- who may look ---------------------------------------------------------------------------------


async def test_nobody_in_particular_may_not_look_and_is_told_who_may() -> None:
    response = await scrape()
    assert response.status_code == 401
    assert response.json() == {
        "error": "This needs a staff session, or a token of role service_role"
    }
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        ("sb_publishable_m", 403),
        ("sb_unknown", 401),
        ("no token at all", 401),
        ("", 401),
        ("\x00 üß", 401),
    ],
)
async def test_a_wrong_key_is_refused(shown: str, code: int) -> None:
    response = await scrape(**{"x-api-key": shown})
    assert response.status_code == code
    assert set(response.json()) == {"error"}


async def test_a_user_s_token_is_not_enough_even_a_superuser_s() -> None:
    ada = await db(User.objects.create_superuser, "ada")
    response = await scrape(authorization=f"Bearer {token(ada.pk)}")
    assert response.status_code == 403
    response = await scrape(authorization=f"Bearer {token(ada.pk, ttl=-60)}")
    assert response.status_code == 401


async def test_a_token_or_key_of_the_service_role_may_look() -> None:
    for headers in (
        SERVICE,
        {"x-api-key": "sb_secret_m"},
        {"authorization": f"Bearer {token('prometheus', role='service_role')}"},
    ):
        assert (await scrape(**headers)).status_code == 200


async def test_a_key_is_left_to_this_view_by_the_middleware_that_reads_tokens(
    settings: Any,
) -> None:
    assert "auth_rls.middleware.SubjectMiddleware" in settings.MIDDLEWARE
    assert (await scrape(**SERVICE)).status_code == 200
    assert (await scrape(authorization="Bearer sb_unknown")).status_code == 401


async def test_a_staff_user_s_session_may_look_and_another_s_may_not() -> None:
    assert (await scrape(await logged_in(is_staff=True))).status_code == 200
    await db(User.objects.all().delete)
    assert (await scrape(await logged_in())).status_code == 403


async def test_a_wrong_key_is_not_made_good_by_a_session() -> None:
    client = await logged_in(is_staff=True)
    assert (await scrape(client, **{"x-api-key": "sb_publishable_m"})).status_code == 403


async def test_only_reading_is_allowed_and_nothing_is_kept() -> None:
    response = await AsyncClient().post("/realtime/metrics", headers=SERVICE)
    assert response.status_code == 405
    assert "no-store" in (await scrape(**SERVICE))["Cache-Control"]


async def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "prometheus_client", None)
    response = await scrape(**SERVICE)
    assert response.status_code == 501
    assert "pip install 'django-rowcast[metrics]'" in response.json()["error"]
    assert (await scrape()).status_code == 401


# --- what it says ---------------------------------------------------------------------------------


async def test_every_metric_is_there_and_no_other() -> None:
    response = await scrape(**SERVICE)
    text = response.content.decode()
    assert response["Content-Type"].startswith("text/plain; version=")
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    wanted = {metric.name: metric.kind for metric in METRICS}
    if "realtime_log_bytes" not in types:
        assert (await db(status.read, "default")).stored.bytes is None
        types["realtime_log_bytes"] = "gauge"
    assert types == wanted


async def test_the_figures_are_those_of_what_happened(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    first, second = await Client().connect(), await Client().connect()
    for client in (first, second):
        await client.listen(snapshot=True)
        await client.until(lambda f: f[3] == "system" and "count" in f[4])
    before = await series()
    await db(Note.objects.create, title="seen", is_public=True)
    await db(Note.objects.create, title="unseen")
    for client in (first, second):
        assert (await client.change())["record"]["title"] == "seen"
    await auntil(lambda: hub().counters.events >= before["realtime_events_total"] + 2)
    ref = await first.push("realtime:room", "no such event", {})
    await first.reply(ref)
    after = await series()

    def rise(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert after["realtime_connections"] == 2
    assert after["realtime_channels"] == after["realtime_subscriptions"] == 2
    assert after["realtime_predicates"] == after["realtime_topics"] == 1
    assert rise("realtime_events_total") == 2
    assert rise("realtime_events_matched_total") == 1
    assert rise("realtime_deliveries_total") == 2
    assert rise("realtime_frames_sent_total") == 3
    assert rise("realtime_sent_bytes_total") > 300
    assert rise("realtime_frames_received_total") == 1
    assert rise("realtime_batch_entries_sum") == 2
    assert after["realtime_joins_total"] == after["realtime_accepted_total"] == 2
    assert after["realtime_snapshots_total"] == 2
    assert after["realtime_head_seq"] == after["realtime_position_seq"] == hub().position.seq
    assert after["realtime_database_up"] == after["realtime_layer_up"] == 1
    await first.close()
    await second.close()


async def test_handlers_are_told_by_name() -> None:
    await db(Note.objects.bulk_create, [Note(title="a"), Note(title="b")])
    await db(number_all)
    await db(handler, "invoices", seq=2, handled=7, failures=2)
    await db(handler, 'the "search"', stopped="failed", attempts=5)
    await db(dead_letter, "invoices", 1)
    await db(age, 60)
    found = await series()

    def of(metric: str) -> list[float]:
        names = "invoices", r"the \"search\""
        return [found[f'realtime_{metric}{{handler="{name}"}}'] for name in names]

    assert of("handler_up") == [1, 0]
    assert of("handler_lag_events") == [0, 2]
    assert of("handler_attempts") == [0, 5]
    assert of("handler_changes_total") == [7, 0]
    assert of("handler_failures_total") == [2, 0]
    assert of("dead_letters") == [1, 0]
    young, old = of("handler_lag_seconds")
    assert young == 0 and 60 <= old < 120
    assert found['realtime_handlers{state="running"}'] == 1
    assert found['realtime_handlers{state="stopped"}'] == 1
    assert found['realtime_dead_letter_age_seconds{handler="invoices"}'] < 60
    assert 'realtime_dead_letter_age_seconds{handler="the \\"search\\""}' not in found


def webhook(name: str, pending: int = 0, **fields: Any) -> Webhook:
    made = Webhook.objects.create(
        name=name, url="https://example.com/", tables=["zoo_note"], **fields
    )
    for number in range(pending):
        WebhookDelivery.objects.create(
            webhook=made,
            delivery_id=f"{name} {number}",
            table="zoo_note",
            event="INSERT",
            body="{}",
        )
    return made


async def test_webhooks_are_told_by_name_with_what_they_have_yet_to_send() -> None:
    await db(webhook, "crm", 2)
    await db(webhook, "failing", 1, failures=3)
    await db(webhook, "off", enabled=False)
    await db(webhook, "disabled", enabled=False, disabled_reason="It answered 410.")
    hour_ago = timezone.now() - timedelta(hours=1)
    await db(WebhookDelivery.objects.filter(webhook__name="failing").update, created_at=hour_ago)
    found = await series()

    def of(metric: str) -> list[float]:
        names = "crm", "failing", "off", "disabled"
        return [found[f'realtime_webhook_{metric}{{webhook="{name}"}}'] for name in names]

    assert of("up") == [1, 0, 1, 0]
    assert of("failures") == [0, 3, 0, 0]
    assert of("pending") == [2, 1, 0, 0]
    young, old, *others = of("lag_seconds")
    assert young < 3_000 < 3_600 <= old and others == [0, 0]


async def test_no_more_than_a_bounded_number_of_handlers_is_told() -> None:
    names = [f"h{number:04}" for number in range(handler_status.MOST + 5)]
    await db(Handler.objects.bulk_create, [Handler(name=n, epoch="", seq=0) for n in names])
    found = [name for name in await series() if name.startswith("realtime_handler_up{")]
    assert len(found) == handler_status.MOST


async def test_refusals_are_counted_by_limit_and_credentials_by_where(settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "LIMITS": {"channels_per_connection": 1}}
    client = await Client().connect()
    await client.join("realtime:a")
    assert (await client.join("realtime:b"))["status"] == "error"
    assert await Client(token="bad").refusal() == 4401
    assert (await client.join("realtime:a", access_token="bad"))["status"] == "error"
    await client.raw.send_to(text_data="nonsense")
    await client.until(lambda frame: frame[3] == "system")
    found = await series()
    name = 'realtime_limits_hit_total{limit="channels_per_connection",scope="connection"}'
    assert found[name] == 1
    assert found['realtime_auth_failures_total{at="handshake"}'] == 1
    assert found['realtime_auth_failures_total{at="channel"}'] == 1
    assert found['realtime_notes_total{action="bad_frame"}'] == 1
    await client.close()


async def test_the_event_loop_s_delay_is_noticed() -> None:
    client = await Client().connect()
    await client.join("realtime:a")
    # What a blocking call in a view does, for longer than the monitor's quarter of a second.
    time.sleep(0.4)

    # Timers before this one may have been counted already, on time.
    async def noticed() -> bool:
        return (await series())["realtime_loop_delay_max_seconds"] > 0.1

    await auntil(noticed, "a delay that is told")
    found = await series()
    assert found['realtime_loop_delay_seconds_bucket{le="+Inf"}'] >= 1
    await client.close()


async def test_without_a_database_the_process_still_tells_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def down(*args: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(status, "read", down)
    found = await series()
    assert found["realtime_database_up"] == 0
    assert found["realtime_connections"] == 0
    assert not any(metric.name in found for metric in INSTALLATION[1:])


async def test_a_process_of_a_wsgi_server_tells_of_the_installation_alone() -> None:
    def ask() -> Any:
        return SyncClient().get("/realtime/metrics", headers=SERVICE)

    text = (await db(ask)).content.decode()
    assert "realtime_head_seq 0.0" in text
    assert not any(f"TYPE {metric.name} " in text for metric in PROCESS)
