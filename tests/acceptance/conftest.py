"""Servers, the ORM in their database, and clients.

`server` is shared by the tests of a module and holds the standing policies; `fresh` makes one of a
test's own, to kill, to flood, or to edit policies in.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import node_client
from tests.acceptance.support.base_databases import BaseDatabase, base_database
from tests.acceptance.support.demo_people import Person, Seating
from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.devtools import Browser
from tests.acceptance.support.node_client import Node
from tests.acceptance.support.server import make_database
from tests.acceptance.support.worlds import World, make_world
from tests.support.at_hand import without


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("acceptance")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What goes over the wire is the same whether frames go by ASGI or by the fast path."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "world" in metafunc.fixturenames and module in (
        "test_wire",
        "test_wire_limits",
        "test_resume",
    ):
        metafunc.parametrize("world", ["daphne", "fanout"], indirect=True, scope="module")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("template") / "db.sqlite3")


@pytest.fixture(scope="module")
def world(
    template: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[World]:
    kind = getattr(request, "param", "daphne")
    with make_world(template, tmp_path_factory.mktemp("world"), kind) as made:
        yield made


@pytest.fixture(scope="module")
def uvicorn_world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(template, tmp_path_factory.mktemp("world"), "uvicorn") as made:
        yield made


@pytest.fixture(scope="module")
def fanout_world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(template, tmp_path_factory.mktemp("world"), "fanout") as made:
        yield made


@pytest.fixture
def fresh(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., World]]:
    """`fresh(kind="daphne", realtime={...})` starts a world of this test's own."""
    with contextlib.ExitStack() as stack:

        def make(kind: str = "daphne", realtime: dict[str, Any] | None = None) -> World:
            folder = tmp_path_factory.mktemp("world")
            return stack.enter_context(make_world(template, folder, kind, realtime))

        yield make


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    if reason := node_client.missing():
        without(reason)
    started = await Node.of_the_official_clients()
    try:
        yield started
    finally:
        await started.close()


@pytest.fixture(scope="session")
def base() -> Iterator[BaseDatabase]:
    with base_database() as made:
        yield made


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path_factory.mktemp("demo") / "demo.sqlite3")
    server.start()
    yield server
    server.close()


@pytest.fixture
def at_board(demo: DemoServer, browser: Browser) -> Iterator[Seating]:
    """Seats people at the board, each at a page of their own, live, on fresh rows."""
    demo.load()
    seated = []

    def seat(*usernames: str) -> list[Person]:
        people = [Person(browser.new_page(), demo.url) for _ in usernames]
        seated.extend(people)
        for person, username in zip(people, usernames, strict=True):
            person.sign_in(username)
        return people

    yield seat
    for person in seated:
        person.page.close()
