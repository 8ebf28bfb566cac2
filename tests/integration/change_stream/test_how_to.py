"""The code of the page about changes in Python runs as it is."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncRequestFactory

from tests.support.pages import DOCS, blocks
from tests.support.socket_client import db
from tests.support.waiting import auntil, until
from tests.zoo.models import Note

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]

PAGE = DOCS / "how-to" / "python-changes.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks of the page define, with a model of this project."""
    models = ModuleType("notes.models")
    models.Note = Note  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "notes", ModuleType("notes"))
    monkeypatch.setitem(sys.modules, "notes.models", models)
    # Strawberry looks for the module of a class.
    module = ModuleType("page_about_changes")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(PAGE, "python"):
        exec(compile(block.text, str(block), "exec"), vars(module))
    yield vars(module)


@pytest.fixture
async def ada(granted: Any) -> User:
    def make() -> User:
        granted("view_note", using={"owner": "$user.id"})
        return User.objects.create_user("ada")

    return await db(make)


async def write(title: str, owner: User, **fields: Any) -> None:
    await db(Note.objects.create, title="of others", **fields)
    await db(Note.objects.create, title=title, owner=owner, **fields)


def following() -> bool:
    return any(thread.name == "rowcast-follower" for thread in threading.enumerate())


async def test_async_code(page: Any, ada: User, capsys: pytest.CaptureFixture[str]) -> None:
    printing = asyncio.create_task(page["print_titles"](ada))
    await auntil(following, "it follows")

    async def printed() -> bool:
        await write("mine", ada, is_public=True)
        return "INSERT" in capsys.readouterr().out

    await auntil(printed, "it prints", every=0.1)
    printing.cancel()
    await asyncio.gather(printing, return_exceptions=True)


def test_other_code(page: Any) -> None:
    class Enough(Exception):
        pass

    found: list[str] = []

    def index(change: Any) -> None:
        found.append(change.new["title"])
        if len(found) == 2:
            raise Enough

    for title in ("a", "b"):
        Note.objects.create(title=title, is_public=True)
    with pytest.raises(Enough):
        page["index_notes"](0, index)
    assert found == ["a", "b"]
    until(lambda: not following(), "nothing is left running")


async def test_a_streaming_response(page: Any, ada: User) -> None:
    async def auser() -> User:
        return ada

    request = AsyncRequestFactory().get("/notes/stream")
    request.auser = auser
    response = await page["note_stream"](request)
    assert response["Content-Type"] == "text/event-stream"
    parts = aiter(response)
    assert await anext(parts) == b": here\n\n"
    coming = asyncio.ensure_future(anext(parts))
    await auntil(following, "it follows")

    async def came() -> bool:
        await write("mine", ada)
        return coming.done()

    await auntil(came, "an event comes", every=0.1)
    id_, data, *_ = (await coming).decode().split("\n")
    assert '"title": "mine"' in data
    await coming_after(page, ada, id_.removeprefix("id: "))


async def coming_after(page: Any, ada: User, last: str) -> None:
    """The browser comes back with the last id that it has."""

    async def auser() -> User:
        return ada

    await write("later", ada)
    request = AsyncRequestFactory().get("/notes/stream", headers={"Last-Event-ID": last})
    request.auser = auser
    parts = aiter(await page["note_stream"](request))
    async with asyncio.timeout(30):
        async for part in parts:
            if b"later" in part:
                return


@pytest.mark.parametrize("library", ["schema", "graphene_schema"])
async def test_a_graphql_subscription(library: str, page: Any, ada: User) -> None:
    context = {"user": ada}
    arguments = {"context_value": context} if library == "schema" else {"context": context}
    results = await page[library].subscribe("subscription { noteTitles }", **arguments)
    coming = asyncio.ensure_future(anext(results))
    await auntil(following, "it follows")

    async def came() -> bool:
        await write("mine", ada)
        return coming.done()

    await auntil(came, "a result comes", every=0.1)
    assert (await coming).data == {"noteTitles": "mine"}
    await results.aclose()
    await auntil(lambda: not following(), "nothing is left running")
