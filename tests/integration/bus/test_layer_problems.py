"""A configured channel layer that cannot be made is named, never taken for none."""

from __future__ import annotations

from typing import Any

import pytest
from channels.layers import BaseChannelLayer
from django.test import override_settings

from realtime import checks
from realtime.bus.layers import layer_problem, own_layer
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


async def test_a_server_goes_on_without_a_layer_that_cannot_be_made() -> None:
    with layer("no.such.Layer"):
        assert own_layer("default") is None


@override_settings(REALTIME={"CHANNEL_LAYER": "reddis"})
@pytest.mark.parametrize("layers", [{}, {"redis": {"BACKEND": "a.b"}}])
def test_an_alias_that_no_layer_has_is_named(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        (found,) = checks.check_layer()
    assert found.id == "realtime.W013"
    assert "'reddis' is not configured" in found.msg


def test_no_layer_and_a_layer_that_works_are_no_problem() -> None:
    with override_settings(CHANNEL_LAYERS={}):
        assert layer_problem("default") is None
    with layer("channels.layers.InMemoryChannelLayer"):
        assert layer_problem("default") is None
        assert checks.check_layer() == []
