"""Credentials: which one counts, what opaque keys stand for, and what a session is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from auth_rls import Subject
from auth_rls.subjects import tokens
from auth_rls.subjects.sessions import (
    read_together,
    subject_of_session,
    subjects_of_sessions,
    user_of_session,
)
from realtime.protocol.join import token_in
from realtime.socket.credentials import (
    NOTHING,
    Credential,
    Identified,
    Kind,
    MissingCredential,
    UnknownKey,
    from_handshake,
    identify,
    identify_in_band,
)
from realtime.util.database_threads import close_connections
from tests.support.tokens import token

KEYS = {"sb_publishable_x": "anon", "sb_secret_y": "service_role", "plain": "authenticated"}


def found(*headers: tuple[str, str], query: str = "", session: bool = True) -> Credential:
    encoded = [(name.encode(), value.encode("utf-8")) for name, value in headers]
    return from_handshake(encoded, query.encode("latin-1"), session=session)


def test_the_first_of_the_five_wins() -> None:
    everything = [
        ("x-api-key", "third"),
        ("cookie", "sessionid=fifth"),
        ("authorization", "Bearer first"),
    ]
    query = "apikey=fourth&token=second"
    assert found(*everything, query=query).value == "first"
    assert found(*everything[:2], query=query).value == "second"
    assert found(*everything[:2], query="apikey=fourth").value == "third"
    assert found(everything[1], query="apikey=fourth").value == "fourth"
    assert found(everything[1]).kind is Kind.SESSION
    assert found() == NOTHING


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Bearer abc", "abc"),
        ("bearer   abc  ", "abc"),
        ("BEARER a b", "a b"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_a_bearer_token_is_read_whatever_its_case(header: str, value: str | None) -> None:
    credential = found(("Authorization", header))
    assert (credential.value or None) == value


def test_empty_values_count_as_absent_and_space_is_stripped() -> None:
    assert found(("x-api-key", "  "), query="token=&apikey=%20key%0A").value == "key"
    assert found(query="token=&token=second").value == "second"
    assert found(query="token") == NOTHING


def test_values_in_the_query_are_decoded_and_odd_bytes_do_no_harm() -> None:
    assert found(query="apikey=a%2Bb").value == "a+b"
    assert found(query="apikey=%FF%00").kind is Kind.TOKEN
    assert found(query="apikey=\xff").kind is Kind.TOKEN
    assert found(("x-api-key", "ключ")).kind is Kind.TOKEN


def test_a_session_counts_only_where_it_may() -> None:
    cookie = ("cookie", "theme=dark; sessionid=abc")
    assert found(cookie).kind is Kind.SESSION
    assert found(cookie, session=False) == NOTHING
    assert found(("cookie", "theme=dark")) == NOTHING
    assert found(("cookie", "sessionid=")) == NOTHING


def test_the_session_cookie_may_have_another_name(settings: Any) -> None:
    settings.SESSION_COOKIE_NAME = "who"
    assert found(("cookie", "sessionid=abc")) == NOTHING
    assert found(("cookie", "a=b"), ("cookie", "who=abc")).kind is Kind.SESSION


def test_a_credential_does_not_show_when_printed() -> None:
    shown = repr(found(("authorization", "Bearer hidden"))) + repr(
        found(("cookie", "sessionid=hidden"))
    )
    assert "hidden" not in shown


def identified(
    credential: Credential, *, allow_anonymous: bool = True, **api_keys: str
) -> Identified:
    return asyncio.run(identify(credential, api_keys=api_keys, allow_anonymous=allow_anonymous))


def whom(value: str, *, allow_anonymous: bool = True) -> Subject:
    credential = Credential(Kind.TOKEN, value)
    return identified(credential, allow_anonymous=allow_anonymous, **KEYS).subject


def test_an_opaque_key_stands_for_its_role() -> None:
    assert whom("sb_publishable_x") == Subject.anonymous()
    assert whom("sb_secret_y") == Subject.service()
    assert whom("plain").role == "authenticated"
    assert whom("plain").user_id is None


@pytest.mark.parametrize("key", ["sb_publishable_", "sb_secret_z", "sb_", "sb_secret_y "])
def test_an_opaque_key_nobody_listed_is_refused_at_the_door(key: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        whom(key)
    assert caught.value.handshake_reason == "The API key provided is not known"


@pytest.mark.parametrize("value", ["garbage", "plain2", "ключ", "\ud800", "\0", "PLAIN"])
def test_any_other_value_must_be_a_token(value: str) -> None:
    with pytest.raises(tokens.MalformedToken):
        whom(value)


def test_nothing_is_anonymous_where_that_is_allowed() -> None:
    assert identified(NOTHING).subject == Subject.anonymous()
    with pytest.raises(MissingCredential) as caught:
        identified(NOTHING, allow_anonymous=False)
    assert caught.value.handshake_reason == "API key is missing"


def test_a_key_of_role_anon_is_no_missing_key() -> None:
    assert whom("sb_publishable_x", allow_anonymous=False) == Subject.anonymous()


@pytest.mark.parametrize(
    "value", [None, "", "  ", 7, True, [], {}, "sb_publishable_x", "sb_secret_y", "sb_anything"]
)
def test_what_an_access_token_message_may_hold_and_mean_nothing_by(value: Any) -> None:
    assert token_in({"access_token": value}) is None


def test_any_other_access_token_counts() -> None:
    assert token_in({"access_token": " abc "}) == "abc"
    assert asyncio.run(identify_in_band("plain", api_keys=KEYS)).role == "authenticated"
    with pytest.raises(tokens.MalformedToken):
        asyncio.run(identify_in_band("abc", api_keys=KEYS))


@pytest.fixture
def ada(transactional_db: None) -> Iterator[User]:
    yield User.objects.create_user("ada", password="old")
    asyncio.run(close_connections())


@pytest.fixture
def browser(ada: User) -> Client:
    client = Client()
    client.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    return client


def cookies(browser: Client) -> dict[str, str]:
    return {name: morsel.value for name, morsel in browser.cookies.items()}


def session_user(cookies: dict[str, str]) -> Any:
    """The user of a session, who is the same whether it is read alone or with others."""
    key = cookies.get("sessionid", "")
    if read_together(key):
        assert subjects_of_sessions([key]) == {key: subject_of_session(key)}
    return user_of_session(key)


def test_a_token_of_a_handshake_stands_for_its_user(ada: User) -> None:
    assert whom(token(ada.pk)).user == ada


def test_a_session_stands_for_its_user(ada: User, browser: Client) -> None:
    header = "; ".join(f"{name}={value}" for name, value in cookies(browser).items())
    credential = found(("cookie", header))
    whose = identified(credential, allow_anonymous=False)
    assert whose.subject == Subject.from_user(ada)
    assert whose.session is not None and whose.session.user_key == ada.pk
    assert session_user(cookies(browser)) == ada


@pytest.mark.parametrize("engine", ["signed_cookies", "cached_db", "cache"])
def test_every_session_engine_serves(settings: Any, ada: User, engine: str) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    client = Client()
    client.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    assert session_user(cookies(client)) == ada


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "x", "unknown-but-long-enough-to-be-one", "a\0b" * 12, "ключ"])
def test_a_session_there_is_not_is_nobodys(key: str) -> None:
    assert session_user({"sessionid": key}) is None
    assert session_user({}) is None


def test_a_session_without_a_user_is_anonymous_or_refused(browser: Client) -> None:
    Session.objects.all().delete()
    credential = Credential(Kind.SESSION, cookies=cookies(browser))
    assert identified(credential) == Identified(Subject.anonymous())
    with pytest.raises(MissingCredential):
        identified(credential, allow_anonymous=False)


def test_an_inactive_user_has_no_session(ada: User, browser: Client) -> None:
    User.objects.update(is_active=False)
    assert session_user(cookies(browser)) is None


def test_a_changed_password_ends_the_session(ada: User, browser: Client) -> None:
    ada.set_password("new")
    ada.save()
    assert session_user(cookies(browser)) is None


def test_a_session_whose_backend_is_no_longer_used_is_nobodys(
    settings: Any, browser: Client
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["auth_rls.backends.PolicyBackend"]
    assert session_user(cookies(browser)) is None


def test_a_session_that_an_older_secret_key_signed_stays_the_browsers(
    settings: Any, ada: User, browser: Client
) -> None:
    """Django gives such a session a new name, which only a response could tell the browser."""
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the-new-secret-key-which-is-long-enough"
    before = list(Session.objects.values_list("session_key", "session_data"))
    assert session_user(cookies(browser)) == ada
    assert list(Session.objects.values_list("session_key", "session_data")) == before


def test_reading_a_session_writes_nothing(
    ada: User, browser: Client, django_assert_num_queries: Any
) -> None:
    ada.set_password("new")
    ada.save()
    key = cookies(browser)["sessionid"]
    with django_assert_num_queries(4) as queries:
        user_of_session(key)
        subjects_of_sessions([key])
    assert all(query["sql"].startswith("SELECT") for query in queries.captured_queries)
    assert Session.objects.count() == 1
