"""Webhooks from a write to their receiver, by workers that are processes and may be killed."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from realtime.models import Process, Webhook, WebhookDelivery
from realtime.process.hub import hub
from realtime.util.database_threads import close_connections
from tests.support.log import number_all
from tests.support.processes import managing
from tests.support.receivers import Receiver, receiving, silent
from tests.support.redis import Redis
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.support.webhooks import webhook
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal"), pytest.mark.slow]


@pytest.fixture(autouse=True)
async def tidy(wal: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    allowed = json.dumps({"WEBHOOK_ALLOW": ["127.0.0.1"]})
    monkeypatch.setitem(os.environ, "ROWCAST_REALTIME", allowed)
    await db(Process.objects.all().delete)
    yield
    await close_connections()


def write(*titles: str) -> None:
    for title in titles:
        Note.objects.create(title=title)
    number_all()


async def got(receiver: Receiver, count: int) -> list[str]:
    await auntil(lambda: len(receiver.received) >= count, f"{count} requests", patience=60)
    return [json.loads(request.body)["record"]["title"] for request in receiver.received]


async def test_a_worker_sends_what_was_written_signed_and_in_order(
    redis: Redis, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        hook = await db(webhook, receiver.url)
        await db(write, "a", "b")
        with managing(
            tmp_path, "runworker", "realtime", redis=redis.url, layer="pubsub"
        ) as program:
            await got(receiver, 2)
            await db(write, "c")
            assert await got(receiver, 3) == ["a", "b", "c"]
            delivered = WebhookDelivery.objects.filter(state="delivered")
            await auntil(lambda: db(lambda: delivered.count() == 3), "all are noted")
            program.process.terminate()
            assert await auntil(lambda: program.process.poll() is not None, "the end")
            assert "Traceback" not in program.said and hook.secret not in program.said
        request = receiver.received[0]
        found = Verifier(hook.secret).verify(request.body, request.headers)
        assert found["type"] == "INSERT" and found["table"] == "zoo_note"
        assert len(set(receiver.ids)) == 3


async def test_the_command_that_runs_handlers_sends_too(redis: Redis, tmp_path: Path) -> None:
    async with receiving() as receiver:
        await db(webhook, receiver.url)
        await db(write, "a")
        options = {"redis": redis.url, "layer": "pubsub"}
        with managing(tmp_path, "handlers", "run", **options) as program:
            assert await got(receiver, 1) == ["a"]
            program.process.terminate()
            assert await auntil(lambda: program.process.poll() is not None, "the end")
            assert program.process.returncode == 0 and "Traceback" not in program.said


@pytest.mark.usefixtures("closing_hub")
async def test_an_embedded_server_numbers_reads_and_sends() -> None:
    with override_settings(REALTIME={"WEBHOOK_ALLOW": ["127.0.0.1"], "TAILER": "embedded"}):
        async with receiving() as receiver:
            await db(webhook, receiver.url)
            await hub().ready()
            await db(Note.objects.create, title="a")
            assert await got(receiver, 1) == ["a"]


async def test_what_a_killed_worker_had_is_sent_by_another_one(
    redis: Redis, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    options = {"redis": redis.url, "layer": "pubsub"}
    async with receiving(silent, 200) as receiver:
        await db(webhook, receiver.url)
        await db(write, "a", "b")
        with managing(tmp_path / "one", "runworker", "realtime", **options) as first:
            await got(receiver, 1)
            first.process.kill()
            first.process.wait()
        # The lease, without waiting for it.
        past = timezone.now()
        assert await db(Webhook.objects.exclude(sender="").update, sender_until=past) == 1
        await db(write, "c")
        with managing(tmp_path / "two", "runworker", "realtime", **options):
            assert await got(receiver, 4) == ["a", "a", "b", "c"]
        assert receiver.ids[0] == receiver.ids[1]
