"""Handlers while workers are killed and paused, and their servers restart: nothing is lost, nothing
is done twice, and the order is kept. `python -m benchmarks.handlers` does the same for longer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.acceptance.support.torture import Torture, run, tortured
from tests.support import postgres, redis
from tests.support.at_hand import without

figures = logging.getLogger("rowcast.figures")

pytestmark = pytest.mark.slow

SECONDS, EVERY, LONGEST_PAUSE = 12.0, 0.5, 2.0
# Of each of the sixteen writers between two transactions.
PAUSE = 0.6
PATIENCE = 120.0


def survive(torture: Torture) -> None:
    run(torture, SECONDS, EVERY, LONGEST_PAUSE, PAUSE)
    torture.settle(PATIENCE)
    figures.info("%s", torture.check())


def test_handlers_do_every_change_once_while_workers_are_killed_and_paused(tmp_path: Path) -> None:
    with tortured(Torture(tmp_path)) as torture:
        survive(torture)


def test_handlers_do_every_change_once_while_workers_and_servers_fail(tmp_path: Path) -> None:
    if reason := postgres.missing():
        without(reason)
    with (
        redis.running_ours(tmp_path) as own_redis,
        postgres.running() as own_postgres,
        tortured(Torture(tmp_path, own_postgres, own_redis)) as torture,
    ):
        survive(torture)
