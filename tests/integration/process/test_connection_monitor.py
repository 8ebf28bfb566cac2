"""Sockets end with the session, the user or the token that they came with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client as Browser
from django.utils import timezone

from auth_rls import Subject, disconnect, token_denylist
from auth_rls.subjects import denylist, sessions
from realtime.process import token_list
from realtime.process.hub import hub
from realtime.protocol.errors import CloseCode
from realtime.util.hook_threads import THREADS, in_hook_thread
from tests.support.socket_client import Client, closed, db
from tests.support.tokens import token
from tests.support.waiting import auntil

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

ORIGIN = (b"origin", b"http://localhost")
GONE = CloseCode.TOKEN_REFUSED


@pytest.fixture
async def watch_rarely(closing_hub: None) -> None:
    """Sessions and tokens are looked at by joins alone."""
    hub().connection_monitor.period_seconds = 3_600.0


async def user(name: str = "ada", **fields: Any) -> User:
    return await db(User.objects.create_user, name, password="old", **fields)


async def logged_in(someone: User) -> Browser:
    browser = Browser(SERVER_NAME="localhost")
    await db(browser.force_login, someone, "django.contrib.auth.backends.ModelBackend")
    return browser


def cookie(browser: Browser) -> list[tuple[bytes, bytes]]:
    return [ORIGIN, (b"cookie", f"sessionid={browser.cookies['sessionid'].value}".encode())]


def set_password(someone: User) -> None:
    someone.refresh_from_db()
    someone.set_password("another")
    someone.save()


ENDS: dict[str, Callable[[Browser, User], Any]] = {
    "logout": lambda browser, someone: browser.logout(),
    "flush": lambda browser, someone: browser.session.flush(),
    "deleted": lambda browser, someone: Session.objects.all().delete(),
    "expired": lambda browser, someone: Session.objects.update(
        expire_date=timezone.now() - timedelta(seconds=1)
    ),
    "password": lambda browser, someone: set_password(someone),
    "password in bulk": lambda browser, someone: User.objects.update(password="!"),
    "deactivated": lambda browser, someone: User.objects.update(is_active=False),
    "user deleted": lambda browser, someone: User.objects.all().delete(),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("joined", [True, False], ids=["with a channel", "without a channel"])
async def test_a_session_that_ends_ends_its_sockets(how: str, joined: bool) -> None:
    ada = await user()
    browser = await logged_in(ada)
    client = await Client(headers=cookie(browser)).connect()
    if joined:
        await client.listen()
    await db(ENDS[how], browser, ada)
    assert await closed(client) == GONE


@pytest.mark.parametrize("how", ENDS)
async def test_a_session_that_has_ended_joins_nothing_more(how: str, watch_rarely: None) -> None:
    ada = await user()
    browser = await logged_in(ada)
    client = await Client(headers=cookie(browser)).connect()
    await db(ENDS[how], browser, ada)
    await client.push("realtime:room", "phx_join", {"config": {}})
    assert await client.receive() == GONE


ENGINES = [
    (engine, how)
    for engine in ("signed_cookies", "cached_db", "cache", "file")
    for how in ("logout", "password", "deactivated")
    # Django itself takes such a cookie until it expires.
    if (engine, how) != ("signed_cookies", "logout")
]


@pytest.mark.parametrize(("engine", "how"), ENGINES)
async def test_sockets_end_with_sessions_of_every_engine(
    settings: Any, tmp_path: Any, engine: str, how: str
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    ada = await user()
    browser = await logged_in(ada)
    client = await Client(headers=cookie(browser)).connect()
    await db(ENDS[how], browser, ada)
    assert await closed(client) == GONE


async def test_other_sessions_of_the_process_stay() -> None:
    ada, bob = await user("ada"), await user("bob")
    hers, his = await logged_in(ada), await logged_in(bob)
    first = await Client(headers=cookie(hers)).connect()
    second = await Client(headers=cookie(his)).connect()
    third = await Client(headers=cookie(await logged_in(ada))).connect()
    await db(hers.logout)
    assert await closed(first) == GONE
    for client in (second, third):
        assert (await client.join())["status"] == "ok"
        await client.close()


async def test_a_session_that_goes_on_keeps_its_sockets() -> None:
    ada = await user()
    browser = await logged_in(ada)
    client = await Client(headers=cookie(browser)).connect()
    later = timezone.now() + timedelta(days=30)
    await db(Session.objects.update, expire_date=later)
    await db(User.objects.update, last_login=timezone.now(), email="new@example.com")
    marker = await Client(headers=cookie(await logged_in(await user("bob")))).connect()
    await db(User.objects.filter(username="bob").delete)
    assert await closed(marker) == GONE  # by now all have been looked at
    assert (await client.join())["status"] == "ok"
    await client.close()


@pytest.mark.parametrize("how", ["deactivated", "user deleted"])
async def test_a_token_without_a_channel_ends_with_its_user(how: str) -> None:
    ada = await user()
    client = await Client(token=token(ada.pk)).connect()
    await db(ENDS[how], None, ada)
    assert await closed(client) == GONE


async def test_a_disconnected_user_loses_all_sockets_and_may_come_back() -> None:
    ada, bob = await user("ada"), await user("bob")
    by_session = await Client(headers=cookie(await logged_in(ada))).connect()
    by_token = await Client(token=token(ada.pk)).connect()
    by_channel = await Client(apikey="").connect()
    assert (await by_channel.join(access_token=token(ada.pk)))["status"] == "ok"
    other = await Client(token=token(bob.pk)).connect()
    await other.listen()
    await db(disconnect, ada)
    for client in (by_session, by_token, by_channel):
        assert await closed(client) == GONE
    assert (await other.join("realtime:other"))["status"] == "ok"
    back = await Client(token=token(ada.pk)).connect()
    assert (await back.join())["status"] == "ok"
    for client in (other, back):
        await client.close()


async def test_a_subject_without_a_django_user_can_be_disconnected() -> None:
    client = await Client(token=token("auth0|7")).connect()
    await client.listen()
    subject = await db(Subject.from_token, token("auth0|7"))
    await db(disconnect, subject)
    assert await closed(client) == GONE


async def test_a_rolled_back_transaction_disconnects_nobody() -> None:
    ada = await user()
    client = await Client(token=token(ada.pk)).connect()
    await client.listen()

    def changes_its_mind() -> None:
        with transaction.atomic():
            disconnect(ada)
            transaction.set_rollback(True)

    await db(changes_its_mind)
    marker = await Client(token=token("marker")).connect()
    await marker.listen()
    await db(disconnect, await db(Subject.from_token, token("marker")))
    assert await closed(marker) == GONE
    assert (await client.join("realtime:other"))["status"] == "ok"
    await client.close()


@pytest.mark.django_db
def test_nobody_in_particular_cannot_be_disconnected() -> None:
    for nobody in (Subject.anonymous(), Subject.service()):
        with pytest.raises(ValueError, match="user id"):
            disconnect(nobody)
    with pytest.raises(TypeError):
        disconnect("ada")


@pytest.mark.django_db
def test_a_user_who_was_just_deactivated_can_be_disconnected() -> None:
    gone = get_user_model().objects.create_user("gone", is_active=False)
    disconnect(gone)


@pytest.fixture
def denied() -> Iterator[set[str]]:
    """Token ids that the project's list refuses."""
    listed: set[str] = set()

    @token_denylist
    def check(tokens: Sequence[Mapping[str, Any]]) -> list[bool]:
        if "broken" in listed:
            raise OSError
        return [each.get("jti") in listed for each in tokens]

    yield listed
    denylist.forget(check)


async def test_a_denied_token_ends_its_sockets_and_opens_no_other(denied: set[str]) -> None:
    bad, good = token("ada", jti="bad"), token("ada", jti="good")
    by_handshake = await Client(token=bad).connect()
    by_channel = await Client().connect()
    assert (await by_channel.join(access_token=bad))["status"] == "ok"
    other = await Client(token=good).connect()
    denied.add("bad")
    assert await closed(by_handshake) == GONE
    assert await closed(by_channel) == GONE
    assert await Client(token=bad).refusal() == GONE
    assert (await other.join(access_token=bad))["response"]["reason"] == (
        "InvalidJWTToken: Token has been revoked"
    )
    assert (await other.join("realtime:other"))["status"] == "ok"
    await other.close()


async def test_a_denied_token_joins_nothing_more(denied: set[str], watch_rarely: None) -> None:
    client = await Client(token=token("ada", jti="bad")).connect()
    denied.add("bad")
    await client.push("realtime:room", "phx_join", {"config": {}})
    assert await client.receive() == GONE


async def test_a_list_that_fails_refuses(denied: set[str]) -> None:
    denied.add("broken")
    assert await Client(token=token("ada")).refusal() == GONE


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A list of tokens that hangs while the event is clear."""
    answers = threading.Event()
    answers.set()

    @token_denylist
    def check(tokens: Sequence[Mapping[str, Any]]) -> list[bool]:
        answers.wait(60)
        return [False] * len(tokens)

    async def hurried(seconds: float, function: Any, *tokens: Any) -> Any:
        # A list that answers may take its time: the machine may be busy.
        allowed = seconds if answers.is_set() else seconds / 25
        return await in_hook_thread(allowed, function, *tokens)

    monkeypatch.setattr(token_list, "in_hook_thread", hurried)
    yield answers
    answers.set()
    denylist.forget(check)


async def test_a_list_that_hangs_refuses_and_ends_sockets_and_delays_nobody_else(
    hanging: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "auth_rls.denylist")
    ada = await user()
    browser = await logged_in(ada)
    by_session = await Client(headers=cookie(browser)).connect()
    by_token = await Client(token=token("bob")).connect()
    by_channel = await Client().connect()
    assert (await by_channel.join(access_token=token("bob")))["status"] == "ok"
    hanging.clear()
    assert await closed(by_token) == GONE
    assert await closed(by_channel) == GONE
    # More of them than there are threads.
    for _ in range(2 * THREADS):
        assert await Client(token=token("bob")).refusal() == GONE
    refused = await (other := await Client().connect()).join(access_token=token("bob"))
    assert refused["response"]["reason"] == "InvalidJWTToken: Token has been revoked"
    await other.close()
    assert (await by_session.join())["status"] == "ok"
    await db(browser.logout)
    assert await closed(by_session) == GONE
    hanging.set()
    await auntil(lambda: "the token denylist works again" in caplog.text)
    await (await Client(token=token("bob")).connect()).close()
    assert caplog.text.count("it has not answered for 5 seconds") == 1


async def test_a_denied_token_ends_its_sockets_while_sessions_cannot_be_read(
    denied: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await user()
    by_session = await Client(headers=cookie(await logged_in(ada))).connect()
    by_token = await Client(token=token("bob", jti="bad")).connect()

    def away(proofs: Any) -> Any:
        raise OSError("the cache is away")

    monkeypatch.setattr(sessions, "ended", away)
    denied.add("bad")
    assert await closed(by_token) == GONE
    await by_session.close()
