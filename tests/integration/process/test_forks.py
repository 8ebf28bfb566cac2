"""Processes that are forked from one that was at work, as Celery's workers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realtime.models import WalEntry
from tests.support import python, redis
from tests.support.processes import ROOT, environment
from tests.support.waiting import PATIENCE_SECONDS

# `parent` is done before two processes are forked, one after the other, `child` in each of them,
# and `after` when both have ended well.
_FORKED = """
import asyncio, gc, os, threading
import django

django.setup()
from django.db import connections

import realtime
from auth_rls.keys.remote_key_set import RemoteKeySet
from realtime.process.broadcast_sender import server_sender
from realtime.process.hub import hub
from realtime.util.database_threads import in_database_thread
from tests.zoo.models import Note

{parent}
for number in (1, 2):
    # Django does not renew its connections after a fork; the program that forks has to close them.
    connections.close_all()
    child = os.fork()
    if not child:
        try:
{child}
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
{after}
"""


def run(parent: str, child: str, after: str = "", layer: str = "") -> list[str]:
    """The lines that parent and children print."""
    indented = "\n".join(f"            {line}" for line in child.strip().splitlines())
    program = python.run(
        ["-c", _FORKED.format(parent=parent, child=indented, after=after)],
        cwd=ROOT,
        env={**environment(layer), "ROWCAST_LAYER": "core"},
        timeout=PATIENCE_SECONDS,
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return program.stdout.splitlines()


@pytest.mark.slow
def test_database_threads_work_in_a_child_of_a_process_that_used_them(wal: Any) -> None:
    look = "print(asyncio.run(in_database_thread(Note.objects.count)))"
    assert run(look, look) == ["0", "0", "0"]


@pytest.mark.slow
def test_a_fetch_of_keys_that_the_parent_began_is_begun_anew_in_a_child(wal: Any) -> None:
    parent = """
began, go, parent = threading.Event(), threading.Event(), os.getpid()
def fetch(url):
    if os.getpid() == parent:
        began.set()
        go.wait()
    return b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256",' \\
        b' "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",' \\
        b' "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}'
keys = RemoteKeySet("http://127.0.0.1:1/keys", fetch=fetch)
threading.Thread(target=keys.find, args=("one", "ES256"), daemon=True).start()
began.wait()
"""
    child = 'print(keys.find("one", "ES256") is not None)'
    assert run(parent, child, "go.set()") == ["True", "True"]


@pytest.mark.slow
def test_a_child_of_a_server_is_no_server_itself(wal: Any) -> None:
    parent = """
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
async def serve():
    await hub().ready()
asyncio.run_coroutine_threadsafe(serve(), loop).result()
print(server_sender() is not None)
"""
    after = """
async def end():
    await hub().stop()
asyncio.run_coroutine_threadsafe(end(), loop).result()
"""
    said = run(parent, "print(server_sender() is not None)", after)
    assert said == ["True", "False", "False"]


@pytest.mark.slow
@pytest.mark.skipif(bool(redis.missing()), reason="needs a Redis server")
def test_parent_and_children_broadcast_over_redis_in_turns(wal: Any, tmp_path: Path) -> None:
    parent = 'realtime.broadcast("room", "said", {"n": 0})'
    child = """
realtime.broadcast("room", "said", {"n": number})
gc.collect()
print("sent", number)
"""
    after = 'realtime.broadcast("room", "said", {"n": 9})'
    with redis.running(tmp_path) as server:
        assert run(parent, child, after, server.url) == ["sent 1", "sent 2"]
    # Over the layer, not through the log.
    assert not WalEntry.objects.filter(table_name="realtime_message").exists()
