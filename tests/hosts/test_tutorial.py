"""The tutorial, followed from its first block to its last: in an empty folder, in a new virtual
environment, with the built wheel and a browser."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.support.devtools import Browser
from tests.hosts.walk import Walk
from tests.support import node
from tests.support.at_hand import without
from tests.support.pages import DOCS
from tests.support.postgres import Postgres
from tests.support.redis import Redis

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
TUTORIAL = DOCS / "tutorial"


# Other tests ask the system for any free port, and it gives ports above these.
PORTS = range(20_000, 30_000)
# Each worker of a run has its own part of these ports, for at most so many workers.
WORKERS = 50


def free_ports(count: int, worker: str) -> list[int]:
    """Ports that nothing listens at. They are used minutes later, so nobody else may be given them
    meanwhile: not another worker (such as "gw3"), and hardly another run on this machine."""
    number = int(worker.removeprefix("gw")) + 1 if worker.startswith("gw") else 0
    ours = list(PORTS[number % WORKERS :: WORKERS])
    random.shuffle(ours)
    return list(itertools.islice(filter(_is_free, ours), count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def walk(
    installed: Path,
    browser: Browser,
    postgresql: Postgres,
    redis: Redis,
    tmp_path_factory: pytest.TempPathFactory,
    worker_id: str,
) -> Iterator[Walk]:
    first, second, vite = free_ports(3, worker_id)
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
