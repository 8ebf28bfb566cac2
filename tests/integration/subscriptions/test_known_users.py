"""Users are looked up in batches, and known until the log says that they have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ValidationError
from django.db import DataError, connection

from auth_rls import Subject
from auth_rls.access import authority
from auth_rls.models import Policy
from auth_rls.subjects import tokens
from auth_rls.subjects.token_errors import InvalidToken
from realtime.event_log import sequencer
from realtime.event_log.position import Position
from realtime.socket.credentials import Credential, Identified, Kind, identify
from realtime.subscriptions.identity_tables import users_are_followed
from realtime.subscriptions.known_users import KnownUsers
from realtime.subscriptions.request import Request, Revoked
from realtime.wal import triggers
from tests.support.live_sets import MINE
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings, counting
from tests.support.tokens import token
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal")


async def started() -> Server:
    server = Server()
    await server.feed()
    await server.start()
    return server


def made(count: int, **fields: Any) -> list[User]:
    return [User.objects.create_user(f"user {number}", **fields) for number in range(count)]


def allow(users: Sequence[User]) -> None:
    permission = Permission.objects.get(codename="view_note")
    group = Group.objects.create(name="readers")
    group.permissions.add(permission)
    for user in users:
        user.groups.add(group)


async def handshake(server: Server, user: User) -> Subject:
    return await server.subscriptions.users.of_token(tokens.verified(token(user.pk)))


async def join(server: Server, subject: Subject) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    await server.subscriptions.add(subscriber, Request(subject, bindings()))
    return subscriber


async def all_in(server: Server, users: Sequence[User]) -> int:
    """The statements that it takes until all of them have joined."""
    with counting() as statements:
        subjects = await asyncio.gather(*(handshake(server, user) for user in users))
        await asyncio.gather(*(join(server, subject) for subject in subjects))
    return len(statements)


# --- what it costs ------------------------------------------------------------------------------


async def test_the_queries_of_a_rush_do_not_rise_with_its_users(granted: Any) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="permission")
    few, many = (await db(made, 3)), await db(lambda: [*User.objects.all(), *more()])
    await db(allow, many)
    await all_in(await started(), few)
    cost = await all_in(await started(), few)
    assert await all_in(await started(), many) <= cost


def more() -> list[User]:
    return [User.objects.create_user(f"more {number}") for number in range(60)]


async def test_joins_of_known_users_make_no_query(granted: Any) -> None:
    await db(granted, "view_note", using={"owner": "$user.id"}, audience="permission")
    users = await db(made, 5)
    await db(allow, users)
    server = await started()
    await all_in(server, users)
    subjects = await asyncio.gather(*(handshake(server, user) for user in users))
    with counting() as statements:
        for subject in subjects:
            await join(server, subject)
    assert statements == []


async def test_a_known_user_who_connects_is_not_read_again(granted: Any) -> None:
    users = await db(made, 5)
    server = await started()
    first = [await handshake(server, user) for user in users]
    with counting() as statements:
        again = await asyncio.gather(*(handshake(server, user) for user in users))
    assert not any('FROM "auth_user"' in statement for statement in statements)
    assert [one.user for one in again] == [one.user for one in first] == users


async def test_who_names_no_user_costs_no_query_of_its_own() -> None:
    server = await started()
    users = server.subscriptions.users

    async def cost(count: int) -> int:
        with counting() as statements:
            await asyncio.gather(
                *(users.of_token(tokens.verified(token(900_000 + n))) for n in range(count))
            )
        return len(statements)

    assert await cost(50) <= await cost(2) + 2


def browsers(count: int, backend: str = "django.contrib.auth.backends.ModelBackend") -> list[str]:
    """The keys of sessions that so many users have begun."""
    users = User.objects.bulk_create(
        [User(username=f"visitor {number}", password=f"!{number}") for number in range(count)]
    )
    return [_begun(user, backend) for user in users]


def _begun(user: User, backend: str) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = backend
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


async def opened(server: Server, keys: Sequence[str]) -> list[Identified]:
    """What handshakes find that come at once, each with the cookie of a session."""
    return await asyncio.gather(
        *(
            identify(
                Credential(Kind.SESSION, cookies={"sessionid": key}),
                api_keys={},
                allow_anonymous=True,
                users=server.subscriptions.users,
            )
            for key in keys
        )
    )


async def test_two_hundred_handshakes_with_sessions_take_two_queries() -> None:
    keys = await db(browsers, 200)
    server = await started()
    with counting() as statements:
        found = await opened(server, keys)
    assert len(statements) == 2
    names = [one.subject.user.username for one in found]
    assert names == [f"visitor {number}" for number in range(200)]
    assert [one.session.key for one in found if one.session is not None] == keys


async def test_a_session_is_looked_at_by_every_handshake() -> None:
    (key,) = await db(browsers, 1)
    server = await started()
    (found,) = await opened(server, [key])
    assert found.subject.role == "authenticated"
    # The log has neither passwords nor sessions.
    await db(User.objects.update, password="another")
    (found,) = await opened(server, [key])
    assert found.subject.role == "anon"


async def test_a_session_of_a_backend_of_the_project_is_opened_beside_others(settings: Any) -> None:
    own = f"{__name__}.ByName"
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, own]
    keys = await db(browsers, 2)
    keys.append(await db(_begun, await db(User.objects.create, username="guest of ours"), own))
    keys.append(await db(_begun, await db(User.objects.create, username="stranger"), own))
    found = await opened(await started(), keys)
    assert [one.subject.role for one in found] == [*["authenticated"] * 3, "anon"]


class ByName(ModelBackend):
    """A backend of a project, which finds users in a way of its own."""

    def get_user(self, user_id: int) -> User | None:
        return User.objects.filter(pk=user_id, username__endswith="of ours").first()


async def test_a_broken_session_refuses_no_other_that_comes_with_it() -> None:
    keys = await db(browsers, 3)

    def spoil() -> None:
        session = SessionStore(keys[1])
        session[SESSION_KEY] = "no key"
        session.save()

    await db(spoil)
    server = await started()
    answers = await asyncio.gather(
        *(server.subscriptions.users.of_session(key) for key in keys), return_exceptions=True
    )
    assert isinstance(answers[1], ValidationError)
    assert [type(answer) for answer in answers] == [tuple, ValidationError, tuple]


async def test_users_found_by_another_field_are_found_together(settings: Any) -> None:
    settings.AUTH_RLS = {"USER_FIELD": "username"}
    users = await db(made, 30)
    server = await started()
    with counting() as statements:
        subjects = await asyncio.gather(
            *(
                server.subscriptions.users.of_token(tokens.verified(token(user.username)))
                for user in users
            )
        )
    assert [subject.user for subject in subjects] == users
    assert len(statements) <= 2


async def test_only_so_many_are_kept() -> None:
    users = await db(made, 5)
    server = await started()
    known = KnownUsers("default", server.log, most=2)
    known.follow()
    for user in users:
        await known.of_token(tokens.verified(token(user.pk)))
    assert len(known) == 2


async def test_nobody_is_kept_before_the_log_is_followed_nor_after() -> None:
    (user,) = await db(made, 1)
    server = Server()
    await handshake(server, user)
    assert len(server.subscriptions.users) == 0
    await server.start()
    await handshake(server, user)
    assert len(server.subscriptions.users) == 1
    server.rebinding.end()
    assert len(server.subscriptions.users) == 0


@pytest.mark.parametrize("error", [ZeroDivisionError, DataError])
async def test_a_user_with_whom_the_projects_code_cannot_cope_refuses_no_other(
    monkeypatch: Any, error: type[Exception]
) -> None:
    bad, good = await db(made, 2)
    read = authority.users_with

    def choosy(keys: Sequence[Any]) -> dict[Any, Any]:
        if bad.pk in keys:
            raise error
        return read(keys)

    server = await started()
    monkeypatch.setattr(authority, "users_with", choosy)
    one, other = await asyncio.gather(
        handshake(server, bad), handshake(server, good), return_exceptions=True
    )
    assert isinstance(one, error)
    assert isinstance(other, Subject)
    assert other.user == good


async def test_what_decides_on_a_topic_by_a_set_is_read_for_a_known_user_too() -> None:
    def world() -> User:
        user, *_ = made(1)
        team = Team.objects.create(name="team")
        Member.objects.create(user=user, team=team)
        permission = Permission.objects.get(
            codename="receive_broadcast", content_type__app_label="realtime"
        )
        using = {"topic__in": {"select": "name", "from": "zoo.Team", "where": {"id__in": MINE}}}
        Policy.objects.create(
            name="mine", permission=permission, using=using, audience="authenticated"
        )
        return user

    user = await db(world)
    server = await started()
    subject = await handshake(server, user)
    for topic, joins in (("team", True), ("other", False)):
        rights = await server.subscriptions.rights(Request(subject, (), topic))
        assert rights.join is joins


# --- that it is true ----------------------------------------------------------------------------


async def test_a_deactivated_user_is_refused_before_the_log_has_said_so() -> None:
    (user,) = await db(made, 1)
    server = await started()
    await handshake(server, user)
    await db(User.objects.filter(pk=user.pk).update, is_active=False)
    with pytest.raises(InvalidToken):
        await handshake(server, user)


async def test_a_change_by_another_program_takes_effect_with_its_event(granted: Any) -> None:
    (user,) = await db(made, 1)
    server = await started()
    subject = await handshake(server, user)
    await join(server, subject)

    def deactivate() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE auth_user SET is_active = %s WHERE id = %s", [False, user.pk])

    await db(deactivate)
    await server.feed()
    with pytest.raises(Revoked):
        await join(server, subject)


@pytest.mark.parametrize("way", ["group of the user", "permission of the group"])
async def test_a_lost_permission_counts_from_its_event_on(granted: Any, way: str) -> None:
    await db(granted, "view_note", using=True, audience="permission")
    users = await db(made, 1)
    await db(allow, users)
    server = await started()
    subject = await handshake(server, users[0])
    before = await join(server, subject)

    def take_away() -> None:
        if way == "group of the user":
            users[0].groups.clear()
        else:
            Group.objects.get(name="readers").permissions.clear()

    await db(take_away)
    await server.feed()
    after = await join(server, subject)
    await db(lambda: Note.objects.create(title="a secret"))
    await server.feed()
    assert (before.frames, after.frames) == ([], [])


async def test_a_permission_that_is_granted_counts_for_the_next_join(granted: Any) -> None:
    await db(granted, "view_note", using=True, audience="permission")
    users = await db(made, 1)
    server = await started()
    subject = await handshake(server, users[0])
    await join(server, subject)
    await db(allow, users)
    await server.feed()
    later = await join(server, subject)
    await db(lambda: Note.objects.create(title="shown"))
    await server.feed()
    assert later.frames == ["live"]


@pytest.mark.parametrize("followed", ["meanwhile", "later"])
async def test_what_was_read_before_a_change_is_not_kept_behind_it(
    monkeypatch: Any, followed: str
) -> None:
    """The read sees the user as before, and is answered when the change has been applied."""
    (user,) = await db(made, 1)
    server = await started()
    read = authority.users_with
    loop = asyncio.get_running_loop()

    def slow(keys: Sequence[Any]) -> dict[Any, Any]:
        found = read(keys)
        monkeypatch.setattr(authority, "users_with", read)
        User.objects.filter(pk=user.pk).update(is_superuser=True)
        if followed == "meanwhile":
            asyncio.run_coroutine_threadsafe(server.feed(), loop).result(30)
        return found

    monkeypatch.setattr(authority, "users_with", slow)
    await handshake(server, user)
    await server.feed()
    with counting():
        subject = await handshake(server, user)
    assert subject.bypasses_rls


async def test_a_user_who_comes_into_being_is_found() -> None:
    server = await started()
    users = server.subscriptions.users
    (user,) = await db(made, 1)
    await db(user.delete)
    await server.feed()
    nobody = await users.of_token(tokens.verified(token(user.id or 1)))
    assert nobody.user is None
    await db(lambda: User.objects.create(pk=int(nobody.user_id), username="late"))
    assert (await users.of_token(tokens.verified(token(nobody.user_id)))).user is not None


async def test_another_epoch_and_a_resync_leave_nobody_known() -> None:
    (user,) = await db(made, 1)
    server = await started()
    await handshake(server, user)
    await server.rebinding.restart(Position("another", 1))
    assert len(server.subscriptions.users) == 0


async def test_a_table_that_is_emptied_leaves_nobody_known() -> None:
    (user,) = await db(made, 1)
    server = await started()
    await handshake(server, user)
    await db(User.objects.create_user, "other")
    await db(lambda: sequencer.number(connection, 10_000))
    (event,) = await server.reader.from_table(server.log.seq, server.log.seq + 1)
    emptied = msgspec.structs.replace(event, op="TRUNCATE", old=None, new=None)
    server.rebinding.overtake(emptied)
    assert len(server.subscriptions.users) == 0


# --- whom the log does not tell everything about --------------------------------------------------


def test_djangos_own_users_are_followed() -> None:
    assert users_are_followed()


@pytest.mark.parametrize("name", ["is_active", "is_superuser"])
def test_users_whose_state_is_computed_are_not(monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(User, name, property(lambda user: True, lambda user, value: None))
    assert not users_are_followed()


def test_users_whom_a_manager_may_hide_are_not(monkeypatch: Any) -> None:
    manager = type(User._default_manager)
    everybody = manager.get_queryset
    monkeypatch.setattr(manager, "get_queryset", lambda self: everybody(self))
    assert not users_are_followed()


async def test_where_the_log_does_not_tell_everything_nobody_is_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(User, "is_superuser", property(lambda user: True, lambda user, value: None))
    (user,) = await db(User.objects.bulk_create, [User(username="ada")])
    server = await started()
    for _ in range(2):
        with counting() as statements:
            assert (await handshake(server, user)).bypasses_rls
        assert len(statements) == 1
    assert len(server.subscriptions.users) == 0


# --- triggers that are missing --------------------------------------------------------------------


def drop_triggers() -> None:
    triggers.uninstall("default")


async def test_users_are_not_kept_while_their_table_lacks_triggers() -> None:
    (user,) = await db(made, 1)
    server = await started()
    await handshake(server, user)
    await db(drop_triggers)
    await db(User.objects.filter(pk=user.pk).update, is_active=False)
    with pytest.raises(InvalidToken):
        await handshake(server, user)
    assert len(server.subscriptions.users) == 0
    await db(triggers.reconcile)
    with pytest.raises(InvalidToken):
        await handshake(server, user)
    assert len(server.subscriptions.users) == 1
