"""The tutorial, followed from its first block to its last: in an empty folder, in a new virtual
environment, with the built wheel and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.support.devtools import Browser
from tests.hosts.walk import Walk
from tests.support import node
from tests.support.at_hand import without
from tests.support.pages import DOCS
from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.redis import Redis

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
TUTORIAL = DOCS / "tutorial"


@pytest.fixture(scope="module")
def walk(
    installed: Path,
    browser: Browser,
    postgresql: Postgres,
    redis: Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Walk]:
    first, second, vite = free_port(), free_port(), free_port()
    instead = {
        "redis://127.0.0.1:6379/0": redis.url,
        "8000": str(first),
        "8001": str(second),
        "5173": str(vite),
        "5432": str(postgresql.port),
    }
    with psycopg.connect(postgresql.url, autocommit=True) as link:
        link.execute("CREATE DATABASE helpdesk")
    folder = tmp_path_factory.mktemp("tutorial") / "helpdesk"
    folder.mkdir()
    walk = Walk(folder, wheels=installed.parent / "wheel", browser=browser, instead=instead)
    yield walk
    walk.close()


PAGES = sorted(TUTORIAL.glob("[0-9]-*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tutorial_is_followed_to_the_end_of_the_page(page: Path, walk: Walk) -> None:
    if reason := node.missing():
        without(f"the tutorial is not followed: {reason}")
    # A page goes on where the one before it ended.
    for each in PAGES[: PAGES.index(page) + 1]:
        walk.follow(each)
