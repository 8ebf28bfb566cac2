"""An outage is one line of the log when it begins and one when it ends."""

from __future__ import annotations

import logging

import pytest

from realtime.util.outage_log import OutageLog


@pytest.fixture
def outage(caplog: pytest.LogCaptureFixture) -> OutageLog:
    caplog.set_level("INFO", logger="outage")
    return OutageLog(
        logging.getLogger("outage"),
        failing="it fails: %s",
        failing_action="it_fails",
        works="it works again",
        works_action="it_works",
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [
        (record.levelname, record.getMessage(), record.action)  # type: ignore[attr-defined]
        for record in caplog.records
    ]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    outage: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    outage.worked()
    for number in range(3):
        outage.failed(OSError(f"error {number}"))
    outage.worked()
    outage.worked()
    assert lines(caplog) == [
        ("WARNING", "it fails: error 0", "it_fails"),
        ("INFO", "it works again", "it_works"),
    ]


def test_the_problem_is_the_last_error_while_the_outage_lasts(outage: OutageLog) -> None:
    assert outage.problem is None
    outage.failed(OSError("first"))
    outage.failed(OSError("last"))
    assert outage.problem == "last"
    outage.worked()
    assert outage.problem is None


def test_an_error_without_a_text_is_named_by_its_type(outage: OutageLog) -> None:
    outage.failed(TimeoutError())
    assert outage.problem == "TimeoutError"
