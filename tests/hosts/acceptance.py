"""The same short run for every host: publish, migrate, join, change, deny, resume, restart,
revoke."""

from __future__ import annotations

import http.client
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from tests.acceptance.support.raw_client import Frame, RawClient
from tests.hosts.support import Host


async def accept(host: Host) -> None:
    """Raises AssertionError where the host does not get what the documentation says."""
    async with AsyncExitStack() as clients:

        async def connect(sub: str | None = None) -> RawClient:
            return await clients.enter_async_context(await host.connect(sub))

        await _accept(host, connect)


async def _accept(host: Host, connect: Callable[..., Awaitable[RawClient]]) -> None:
    # Publish and migrate: tables, triggers, no complaint of the checks.
    host.prepare()
    host.do("policy")
    table = host.do("table")
    ada, bob = host.do("user", "ada"), host.do("user", "bob")
    host.server.start()
    _look_at_pages(host)

    # Join and change: what is one's own comes, whatever made the change.
    client = await connect(ada)
    stranger = await connect()
    await _join(client, table)
    await _join(stranger, table)
    host.do("ticket", ada, "first")
    await _until(client, "first")
    host.do("rename", "first", "second")
    seen = await _until(client, "second")

    # Deny: what is another's does not.
    host.do("ticket", bob, "hidden")
    host.do("ticket", ada, "third")
    await _until(client, "third")
    assert "hidden" not in _titles(client), client.tail()
    await client.close()

    # Resume: what came meanwhile comes once, and nothing that was there before.
    host.do("rename", "third", "fourth")
    client = await connect(ada)
    await _join(client, table, since=_cursor(seen))
    await _until(client, "fourth")
    assert "first" not in _titles(client)
    assert "hidden" not in _titles(client)
    await client.close()

    # Restart: nothing is lost while no server runs.
    assert _titles(stranger) == [], stranger.tail()
    await stranger.close()
    host.server.stop()
    host.do("rename", "fourth", "fifth")
    host.server.start()
    client = await connect(ada)
    await _join(client, table, since=_cursor(seen))
    await _until(client, "fifth")
    assert "hidden" not in _titles(client)

    # Revoke: who leaves a group sees no more, and who is deactivated is put out.
    if host.do("leave", ada):
        host.do("rename", "fifth", "unseen")
        host.do("rename", "unseen", "fifth")
    if host.do("deactivate", ada):
        await client.until_closed()
    assert "unseen" not in _titles(client), client.tail()
    await client.close()
    host.do("own")


def _look_at_pages(host: Host) -> None:
    """What a host lists in `pages.json`: addresses and the status that they answer with."""
    listed = host.folder / "pages.json"
    pages: dict[str, int] = json.loads(listed.read_text()) if listed.exists() else {}
    for path, status in pages.items():
        connection = http.client.HTTPConnection("127.0.0.1", host.server.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status, (path, answer.status, answer.read(), host.server.log)
        connection.close()


async def _join(client: RawClient, table: str, **asked: Any) -> None:
    await client.join("desk", {"event": "*", "schema": "public", "table": table, **asked})
    frame = await client.system("desk")
    assert frame.payload["status"] == "ok", frame


def _row(frame: Frame) -> dict[str, Any]:
    return frame.data.get("record") or {}


def _titles(client: RawClient) -> list[str]:
    """The titles in every change that came, without what a trigger of the host trims."""
    return [str(_title(_row(frame))).strip() for frame in client.changes("desk")]


def _title(row: dict[str, Any]) -> Any:
    return row.get("title", row.get("order"))


async def _until(client: RawClient, title: str) -> Frame:
    """The change that shows a row with exactly this title."""
    return await client.until(lambda f: f.event == "postgres_changes" and _title(_row(f)) == title)


def _cursor(frame: Frame) -> Any:
    return frame.data["commit_timestamp"]
