"""A configured channel layer that cannot be made is named, never taken for none."""

from __future__ import annotations

from typing import Any

import pytest
from channels.layers import BaseChannelLayer
from django.test import override_settings

from realtime import checks
from realtime.bus.layers import layer_problem
from realtime.ops.layer_probe import probe


class NeedsMore(BaseChannelLayer):
    def __init__(self, **config: Any) -> None:
        config["TIME_ZONE"]


class Fails(BaseChannelLayer):
    def __init__(self, **config: Any) -> None:
        raise ValueError("no hosts")


def layer(backend: str) -> Any:
    return override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": {}}})


@pytest.mark.parametrize(
    "backend, reason",
    [
        (f"{__name__}.NeedsMore", "KeyError: 'TIME_ZONE'"),
        (f"{__name__}.Fails", "ValueError: no hosts"),
        ("no.such.Layer", "Cannot import BACKEND"),
    ],
)
async def test_a_layer_that_cannot_be_made_is_an_error_and_down(backend: str, reason: str) -> None:
    with layer(backend):
        (found,) = checks.check_layer()
        assert found.id == "realtime.W013"
        assert reason in found.msg
        state = await probe()
        assert state.state == "down"
        assert reason in state.error


def test_no_layer_and_a_layer_that_works_are_no_problem() -> None:
    assert layer_problem("no such alias") is None
    with layer("channels.layers.InMemoryChannelLayer"):
        assert layer_problem("default") is None
        assert checks.check_layer() == []
