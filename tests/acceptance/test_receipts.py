"""Receipts over HTTP and WebSocket: the answer to a write and its echo name one transaction."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.raw_client import RawClient
from tests.support.tokens import bearer, token

TASKS = {"event": "*", "schema": "public", "table": "demo_task"}
HEADER = "Rowcast-Transaction"


def patch(demo: DemoServer, pk: int, user: int, **values: Any) -> tuple[int, str | None]:
    """Status and receipt of a write to a task."""
    request = urllib.request.Request(
        f"{demo.url}/api/tasks/{pk}/",
        json.dumps(values).encode(),
        {"content-type": "application/json", **bearer(token(user))},
        method="PATCH",
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers[HEADER]
    except urllib.error.HTTPError as error:
        return error.code, error.headers[HEADER]


async def test_who_wrote_knows_the_echo_in_every_connection_and_after_a_resume(
    demo: DemoServer,
) -> None:
    demo.load()
    ada, ben = (
        demo.ids("SELECT id FROM auth_user WHERE username = ?", name)[0] for name in ("ada", "ben")
    )
    kitchen, *_ = demo.ids(
        "SELECT t.id FROM demo_task AS t JOIN demo_team AS e ON e.id = t.team_id"
        " WHERE e.name = 'Kitchen' AND NOT t.is_public ORDER BY t.id"
    )
    clients = [
        await RawClient.open(demo, key=None, query=f"token={token(one)}") for one in (ada, ada, ben)
    ]
    try:
        for client in clients:
            reply = await client.reply(await client.join("board", TASKS))
        head = reply.payload["response"]
        status, tx = await asyncio.to_thread(patch, demo, kitchen, ada, title="Mine")
        assert (status, bool(tx)) == (200, True)
        seen = [await client.until_row("realtime:board", title="Mine") for client in clients]
        assert [frame.data.get("tx") for frame in seen] == [tx, tx, None]

        status, refused = await asyncio.to_thread(patch, demo, kitchen, ada, status="no such")
        assert (status, refused) == (400, None)

        since = {"since": f"{head['epoch']}:{head['seq']}"}
        for user, expected in ((ada, tx), (ben, None)):
            client = await RawClient.open(demo, key=None, query=f"token={token(user)}")
            clients.append(client)
            await client.join("again", {**TASKS, **since})
            frame = await client.until_row("realtime:again", title="Mine")
            assert frame.data.get("tx") == expected
    finally:
        for client in clients:
            await client.close()
