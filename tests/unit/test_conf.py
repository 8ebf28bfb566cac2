"""The REALTIME setting: what is kept of the log."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime.conf import build


@pytest.mark.parametrize(
    "given", [{"hours": 72}, {"gigabytes": 0.5}, {"days": 1, "hours": 2, "gigabytes": 20}]
)
def test_the_log_is_kept_by_age_by_size_or_by_both(given: Any) -> None:
    assert given == build({"RETENTION": given}).RETENTION


@pytest.mark.parametrize(
    "given", [{}, {"gigabytes": 0}, {"gigabytes": "20"}, {"megabytes": 5}, 20, {"hours": -1}]
)
def test_what_is_neither_is_refused_with_an_example(given: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"RETENTION.*'gigabytes': 20"):
        build({"RETENTION": given})
