"""Versions of the official clients, unmodified: each through the same short run, all at once.

What a version is put through is in `client_versions/`, a script for each language. A script asks
for what is to be done in the database, and says which of its checks went well.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.acceptance.support.client_versions import (
    FOLDER,
    LISTEN_ON_CALL,
    OWN_TRANSPORT,
    checks,
    is_legacy,
    javascript,
    python,
    python_folder,
)
from tests.acceptance.support.server import ANON_KEY, PATIENCE
from tests.acceptance.support.worlds import World
from tests.support import node
from tests.support.tokens import token


def missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(f"CLIENT VERSIONS ARE NOT TESTED: {reason}")


class Runs:
    """The people and the rights of each run, and what scripts may ask for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hand = asyncio.Lock()
        world.orm.policy("open rooms", {"topic__startswith": "open "}, "receive_broadcast")
        world.orm.policy("talk", {"topic__startswith": "open "}, "send_broadcast")

    def of(self, version: str, **more: Any) -> dict[str, Any]:
        people = [self._world.orm.user(f"{who} {version}") for who in ("me", "other")]
        me, other = ({"id": pk, "token": token(pk)} for pk in people)
        return {"version": version, "me": me, "other": other, **more}

    async def do(self, deed: str, *values: Any) -> Any:
        orm = self._world.orm
        deeds = {
            "note": lambda owner, title, score: orm.note(owner=owner, title=title, score=score),
            "change": lambda pk, title: orm.change("note", pk, title=title),
            "delete": lambda pk: orm.delete("note", pk),
        }
        async with self._hand:
            return await asyncio.to_thread(deeds[deed], *values)

    async def results(
        self,
        *command: str | Path,
        cwd: Path,
        say: dict[str, Any],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Any]:
        """What a script says of its checks, when it has ended."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=PIPE,
            stdout=PIPE,
            limit=2**24,
        )
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(say).encode() + b"\n")
        found = []
        try:
            async with asyncio.timeout(2 * PATIENCE):
                async for line in process.stdout:
                    told = json.loads(line)
                    if "ask" in told:
                        value = await self.do(told["deed"], *told["values"])
                        answer = {"ask": told["ask"], "value": value}
                        process.stdin.write(json.dumps(answer).encode() + b"\n")
                    else:
                        found.append(told)
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return found


def judge(found: list[dict[str, Any]], expected: dict[str, set[str]]) -> None:
    """Every check of every version was made and went well."""
    assert [told for told in found if "check" not in told] == []
    assert [told for told in found if "error" in told] == []
    made: dict[str, set[str]] = {}
    for told in found:
        made.setdefault(told["version"], set()).add(told["check"])
    assert made == expected


@pytest.fixture(scope="module")
def runs(world: World) -> Runs:
    return Runs(world)


async def test_versions_of_the_javascript_clients_work_as_they_are(
    world: World, runs: Runs
) -> None:
    if reason := node.missing():
        missing(reason)
    if not (FOLDER / "node" / "node_modules").is_dir():
        missing("the packages of Node.js are not there; scripts/test installs them")
    plan, expected = [], {}
    for alias, version in javascript().items():
        name = f"{alias.rpartition('-')[0]} {version}"
        expected[name] = checks(alias)
        more = {
            "alias": alias,
            "legacy": is_legacy(alias),
            "ownTransport": alias in OWN_TRANSPORT,
            "checks": sorted(expected[name]),
        }
        plan.append(runs.of(name, **more))
    say = {
        "url": world.server.origin,
        "address": f"{world.server.origin.replace('http', 'ws')}/realtime/v1",
        "key": ANON_KEY,
        "runs": plan,
    }
    judge(await runs.results("node", "accept.mjs", cwd=FOLDER / "node", say=say), expected)


async def test_versions_of_the_python_client_work_as_they_are(world: World, runs: Runs) -> None:
    interpreter = python_folder() / "bin" / "python"
    if not interpreter.exists():
        missing("the versions of the Python client are not there; scripts/test installs them")
    where = {"url": f"{world.server.origin}/realtime/v1", "key": ANON_KEY}

    async def one(version: str) -> list[dict[str, Any]]:
        more = {
            **where,
            "listensByItself": version not in LISTEN_ON_CALL,
            "checks": sorted(checks(version)),
        }
        return await runs.results(
            interpreter,
            "accept.py",
            cwd=FOLDER / "python",
            say=runs.of(version, **more),
            environment={"PYTHONPATH": str(python_folder() / "versions" / version)},
        )

    found = await asyncio.gather(*map(one, python()))
    expected = {version: checks(version) for version in python()}
    judge([told for each in found for told in each], expected)
