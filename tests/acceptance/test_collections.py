"""Collections of client.js and of rows.js over supabase-js: both are what a query would give.

What they do on a server that the test plays is in `client_js/collection_behaviour.mjs`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.acceptance.support import node_client
from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.kept_collections import Kept, kept_collections
from tests.acceptance.support.line_program import LineProgram
from tests.acceptance.support.worlds import World
from tests.support.at_hand import without
from tests.support.tokens import token

COLUMNS = ["id", "owner_id", "title", "is_public", "score"]
MANY = {"filter": "score=gte.3", "order": "id"}


@pytest.fixture(autouse=True)
def clients() -> None:
    if reason := node_client.missing():
        without(reason)


def test_rows_js_and_the_types_do_what_their_documentation_says() -> None:
    files = sorted(path.name for path in node_client.FOLDER.glob("*.test.mjs"))
    run = subprocess.run(
        ["node", "--test", *files],
        cwd=node_client.FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, f"node --test failed\n{run.stdout}\n{run.stderr}"


async def test_pages_of_both_know_their_own_writes_by_the_receipts_of_a_real_server(
    demo: DemoServer,
) -> None:
    asked = "from demo.models import Membership as M; m = M.objects.get(user__username='ben');"
    ben, team = demo.manage(
        "shell", "-v", "0", "-c", f"{asked} print(m.user_id, m.team_id)"
    ).split()
    told = {"url": demo.url, "key": token(ben), "token": token(ben), "team": int(team)}
    writes = await LineProgram.start(
        "node", "writes.mjs", json.dumps(told), cwd=node_client.FOLDER, stderr=None
    )
    await writes.first(lambda: len(writes.lines) == 2)
    await writes.close()
    for line, by in zip(writes.lines, ("client", "supabase"), strict=True):
        assert line == {
            "by": by,
            "confirmed": [True, True, True],
            "receipts": 3,
            "refused": 404,
            "shown": [f"{by} 1", f"{by} 2", ""],
        }


class Life:
    """What happens to notes, at random: rows, permissions, connections, the server, its log."""

    def __init__(self, world: World, kept: Kept, people: list[int], seed: int) -> None:
        self._world = world
        self._kept = kept
        self._people = people
        self._random = Random(seed)
        self._notes: list[int] = []

    def goes_on(self, steps: int, *, cuts: bool = True) -> None:
        kinds = {
            self._insert: 6,
            self._change: 8,
            self._delete: 4,
            self._switch: 2,
            self._give_another_key: 1,
        }
        if cuts:
            kinds[self._cut] = 1
        for step in self._random.choices(list(kinds), weights=list(kinds.values()), k=steps):
            step()

    def goes_on_without_the_server(self, steps: int, *, prune: bool = False) -> None:
        """With `prune` the log does not reach back to what the clients have."""
        self._world.server.kill()
        self.goes_on(steps, cuts=False)
        if prune:
            self._world.orm.prune()
        self._world.server.start()

    def _cells(self) -> dict[str, Any]:
        return {
            "owner_id": self._random.choice(self._people),
            "is_public": self._random.random() < 0.3,
            "score": self._random.choice([None, *range(7)]),
            "title": f"t{self._random.randrange(1000)}",
        }

    def _insert(self) -> None:
        self._notes.append(self._world.orm.create("Note", **self._cells()))

    def _change(self) -> None:
        if self._notes:
            cells = dict(self._random.sample(sorted(self._cells().items()), 2))
            self._world.orm.change("Note", self._random.choice(self._notes), **cells)

    def _delete(self) -> None:
        if self._notes:
            note = self._notes.pop(self._random.randrange(len(self._notes)))
            self._world.orm.delete("Note", note)

    def _give_another_key(self) -> None:
        if self._notes:
            at = self._random.randrange(len(self._notes))
            key = max(self._notes) + 1000
            self._world.orm.sql("UPDATE zoo_note SET id = %s WHERE id = %s", [key, self._notes[at]])
            self._notes[at] = key

    def _switch(self) -> None:
        name = self._random.choice(["own notes", "public notes"])
        self._world.orm.change_policy(name, enabled=self._random.random() < 0.6)

    def _cut(self) -> None:
        self._kept.say("cut")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "seed"), [("daphne", 13), ("fanout", 31)])
async def test_whatever_happens_both_are_what_a_fresh_query_gives(
    fresh: Callable[..., World], kind: str, seed: int
) -> None:
    world = fresh(kind)
    me, other = world.orm.user("me"), world.orm.user("other")

    def fresh_query() -> Any:
        return world.orm.visible_rows(me, COLUMNS, score__gte=3)

    async with kept_collections(world.server, token(me), "zoo_note", **MANY) as kept:
        life = Life(world, kept, [me, other], seed=seed)
        for _ in range(3):
            life.goes_on(12)
            await kept.until_both_have(fresh_query())
        life.goes_on_without_the_server(8)
        await kept.until_both_have(fresh_query())
        life.goes_on(12)
        life.goes_on_without_the_server(8, prune=True)
        await kept.until_both_have(fresh_query())
        life.goes_on(12)
        await kept.until_both_have(fresh_query())


async def test_a_set_of_the_one_before_is_gone_with_the_token(world: World) -> None:
    me, other = world.orm.user("before"), world.orm.user("after")
    world.orm.note(owner=me, title="mine", score=5)
    world.orm.note(owner=other, title="theirs", score=5)
    async with kept_collections(world.server, token(me), "zoo_note", **MANY) as kept:
        await kept.until_both_have(world.orm.visible_rows(me, COLUMNS, score__gte=3))
        seen = len(kept.batches)
        kept.say(f"token {token(other)}")
        await kept.until_both_have(world.orm.visible_rows(other, COLUMNS, score__gte=3))
        assert all(batch["rows"] for batch in kept.batches[seen:])


async def test_a_set_of_the_one_before_is_never_live_after_another_came_back(
    fresh: Callable[..., World],
) -> None:
    world = fresh()
    me, other = world.orm.user("before"), world.orm.user("after")
    world.orm.note(owner=me, title="mine", score=5)
    world.orm.note(owner=other, title="theirs", score=5)
    async with kept_collections(world.server, token(me), "zoo_note", **MANY) as kept:
        mine = world.orm.visible_rows(me, COLUMNS, score__gte=3)
        await kept.until_both_have(mine)
        world.server.kill()
        await kept.first(lambda: kept.of("client")[-1]["status"] == "errored")
        seen = len(kept.batches)
        kept.say(f"token {token(other)}")
        await kept.first(lambda: kept.answers)
        world.server.start()
        theirs = world.orm.visible_rows(other, COLUMNS, score__gte=3)
        await kept.until_both_have(theirs)
        live = [batch["rows"] for batch in kept.batches[seen:] if batch["status"] == "live"]
        assert all([row["title"] for row in rows] == ["theirs"] for rows in live)


async def test_rows_are_read_again_when_the_log_begins_anew(fresh: Callable[..., World]) -> None:
    world = fresh()
    me = world.orm.user("me")
    world.orm.note(owner=me, title="old", score=5)
    async with kept_collections(world.server, token(me), "zoo_note", **MANY) as kept:
        await kept.until_both_have(world.orm.visible_rows(me, COLUMNS, score__gte=3))
        seen = len(kept.batches)
        world.orm.new_epoch()
        for by in ("client", "supabase"):
            await kept.first(
                lambda by=by: any(
                    batch.get("by") == by and batch["status"] == "catching up"
                    for batch in kept.batches[seen:]
                )
            )
        world.orm.note(owner=me, title="new", score=5)
        await kept.until_both_have(world.orm.visible_rows(me, COLUMNS, score__gte=3))
        assert all(batch["rows"] for batch in kept.batches[seen:])


async def test_a_table_that_is_not_published_is_an_error_with_a_hint(world: World) -> None:
    async with kept_collections(world.server, token(1), "zoo_notes") as kept:
        for by in ("client", "supabase"):
            await kept.first(
                lambda by=by: any(
                    batch["status"] == "errored" and "zoo_note'" in (batch["error"] or "")
                    for batch in kept.of(by)
                )
            )
            assert "live" not in {batch["status"] for batch in kept.of(by)}
