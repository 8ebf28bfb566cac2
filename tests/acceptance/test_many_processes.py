"""Several servers and tailers on one PostgreSQL and one Redis: one service, to its clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake, InvalidStatus

from tests.acceptance.support.base_databases import BaseDatabase
from tests.acceptance.support.deployment import Deployment, Program, deployed
from tests.acceptance.support.final_checks import check_follower, check_log, until_numbered
from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.resuming_client import TABLE, Follower
from tests.acceptance.support.server import PATIENCE, SERVICE_KEY, Server
from tests.acceptance.support.worlds import create_usual_policies
from tests.support.ports import free_port
from tests.support.redis import Redis
from tests.support.tokens import token
from tests.support.waiting import auntil

LAYERS = ("core", "pubsub")
KINDS = ("daphne", "uvicorn", "fanout")


@pytest.fixture
def deploy(base: BaseDatabase, redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """`deploy("daphne", "uvicorn", layer="core")`: two servers and a tailer."""
    made: list[Deployment] = []

    def make(*kinds: str, layer: str = "pubsub", tailers: int = 1) -> Deployment:
        made.append(Deployment(tmp_path, base.database(), redis, layer))
        create_usual_policies(made[-1].orm)
        made[-1].start(*kinds, tailers=tailers)
        return made[-1]

    yield make
    for deployment in made:
        with deployed(deployment):
            pass


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_change_reaches_the_clients_of_every_server(deploy: Any, layer: str) -> None:
    world = deploy("daphne", "uvicorn", layer=layer)
    me, other = world.orm.user("me"), world.orm.user("other")
    peers = [await RawClient.open(server) for server in world.servers]
    try:
        for peer in peers:
            await peer.join("mine", TABLE, token=token(me))
            await peer.system("mine")
        for number in range(20):
            world.orm.note(owner=(me, other)[number % 2], title=str(number))
        for peer in peers:
            await peer.until_row(title="18")
            heard = [frame.data["record"]["title"] for frame in peer.changes()]
            assert heard == [str(number) for number in range(0, 20, 2)]
    finally:
        for peer in peers:
            await peer.close()


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_broadcast_passes_from_one_server_to_the_other(deploy: Any, layer: str) -> None:
    world = deploy("daphne", "uvicorn", layer=layer)
    async with (
        await RawClient.open(world.servers[0]) as one,
        await RawClient.open(world.servers[1]) as two,
    ):
        refs = [await peer.join("room") for peer in (one, two)]
        for number in range(10):
            body = {"type": "broadcast", "event": "say", "payload": {"n": number}}
            await one.send("realtime:room", "broadcast", body, ref=str(number), join_ref=refs[0])
        await two.until(lambda f: f.event == "broadcast" and f.payload["payload"]["n"] == 9)
        said = [f.payload["payload"]["n"] for f in two.frames if f.event == "broadcast"]
        assert said == list(range(10))
        assert not any(frame.event == "broadcast" for frame in one.frames)


async def test_a_policy_switched_off_silences_every_server(deploy: Any) -> None:
    world = deploy("daphne", "uvicorn")
    me = world.orm.user("me")
    peers = [await RawClient.open(server) for server in world.servers]
    service = await RawClient.open(world.servers[1], key=SERVICE_KEY)
    try:
        for peer in (*peers, service):
            await peer.join("mine", TABLE, token=token(me) if peer is not service else None)
            await peer.system("mine")
        world.orm.change_policy("own notes", enabled=False)
        world.orm.note(owner=me, title="unseen")
        world.orm.change_policy("own notes", enabled=True)
        world.orm.note(owner=me, title="seen")
        for peer in peers:
            await peer.until_row(title="seen")
            assert [frame.data["record"]["title"] for frame in peer.changes()] == ["seen"]
        await service.until_row(title="unseen")
    finally:
        for peer in (*peers, service):
            await peer.close()


# --- a graceful stop ----------------------------------------------------------------------------


async def until_ended(server: Server) -> None:
    await auntil(lambda: not server.running, "the end of the process", patience=PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stopping_server_tells_its_clients_and_closes_them_with_1012(
    deploy: Any, kind: str
) -> None:
    world = deploy(kind)
    (server,) = world.servers
    peers = [await RawClient.open(server) for _ in range(5)]
    for peer in peers[1:]:
        await peer.join("mine", TABLE)
    await asyncio.to_thread(server.stop)
    for peer in peers:
        assert await peer.until_closed() == 1012
    assert not [frame for frame in peers[0].frames if frame.event == "system"]
    for peer in peers[1:]:
        last = peer.frames[-1]
        assert last.event == "system"
        assert last.payload == {
            "status": "ok",
            "extension": "system",
            "message": "Server requested disconnect",
            "channel": "mine",
        }
    assert "Traceback" not in server.log
    for peer in peers:
        await peer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stopping_server_takes_nobody_in(deploy: Any, kind: str) -> None:
    world = deploy(kind)
    (server,) = world.servers
    peers = [await RawClient.open(server) for _ in range(150)]
    os.kill(server.pid, signal.SIGTERM)
    first = [asyncio.create_task(peer.until_closed()) for peer in peers]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(InvalidHandshake) as refused:
        await RawClient.open(server)
    assert isinstance(refused.value, InvalidStatus)
    if kind == "uvicorn":
        # Daphne can only say 403.
        assert refused.value.response.status_code == 503
        assert b"restarting" in (refused.value.response.body or b"")
    # Those that were still there have a working server until it is their turn.
    assert set(await asyncio.gather(*first)) == {1012}
    for peer in peers:
        await peer.close()
    await until_ended(server)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rolling_restart_is_one_stream_for_clients(deploy: Any, kind: str) -> None:
    world = deploy(kind, kind)
    me = world.orm.user("me")
    followers = [
        Follower(f"client-{n}", world.servers, token=token(me), first=n % 2) for n in range(6)
    ]
    try:
        for follower in followers:
            await follower.start()
        world.write([me])
        for server in world.servers:
            for follower in followers:
                await follower.until_more(20)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
        for follower in followers:
            await follower.until_more(20)
        await asyncio.to_thread(world.finish_writing)
        await until_numbered(world)
        entries = check_log(world.orm)
        for follower in followers:
            await check_follower(
                follower, entries, lambda row: row["owner_id"] == me or row["is_public"]
            )
            assert set(follower.closes) == {1012}
    finally:
        for follower in followers:
            await follower.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_in_a_hurry_need_not_wait(deploy: Any, kind: str) -> None:
    world = deploy(kind)
    (server,) = world.servers
    peers = [await RawClient.open(server) for _ in range(20)]
    # What Ctrl-C sends; the server's own way to end, as if we were not there.
    os.kill(server.pid, signal.SIGINT)
    await until_ended(server)
    assert "stopping" not in server.log
    for peer in peers:
        await peer.until_closed()
        await peer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_signal_does_not_wait_for_the_first(deploy: Any, kind: str) -> None:
    world = deploy(kind)
    (server,) = world.servers
    peers = [await RawClient.open(server) for _ in range(150)]
    os.kill(server.pid, signal.SIGTERM)
    closing = [asyncio.create_task(peer.until_closed()) for peer in peers]
    await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
    os.kill(server.pid, signal.SIGTERM)
    await until_ended(server)
    told = sum(task.result() == 1012 for task in closing if task.done())
    if kind == "daphne":
        # Its own way to end has no close frame.
        assert told < len(peers)
    await asyncio.gather(*closing)
    for peer in peers:
        await peer.close()


@pytest.mark.parametrize("command", ["runserver", "workers"])
async def test_other_ways_to_serve_end_when_they_are_told_to(
    deploy: Any, command: str, tmp_path: Path
) -> None:
    world = deploy()
    port = free_port()
    application = "realtime_project.asgi:application"
    uvicorn = ["-m", "uvicorn", "--port", str(port), "--workers", "2", application]
    commands = {
        "runserver": ["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
        "workers": [*uvicorn, "--log-level", "warning"],
    }
    program = Program("served", commands[command], world.env, tmp_path)

    class Place:
        """Where a peer finds it."""

        @staticmethod
        def address(path: str, query: str = "") -> str:
            return f"ws://127.0.0.1:{port}{path}?{query}"

    async def try_() -> RawClient | None:
        with contextlib.suppress(OSError):
            return await RawClient.open(Place())  # type: ignore[arg-type]
        return None

    async def open_() -> RawClient:
        found: RawClient = await auntil(try_, "an answer", patience=PATIENCE, every=0.05)
        return found

    program.start()
    try:
        peers = [await open_() for _ in range(4)]
        for peer in peers:
            await peer.join("mine", TABLE)
        await asyncio.to_thread(program.stop)
        for peer in peers:
            assert await peer.until_closed() == 1012
            assert peer.frames[-1].payload["message"] == "Server requested disconnect"
            await peer.close()
    finally:
        program.kill()
