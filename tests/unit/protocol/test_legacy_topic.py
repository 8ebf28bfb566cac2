"""What a topic that names a table asks for."""

from __future__ import annotations

import pytest

from realtime.protocol.legacy_topic import binding_of, is_legacy


@pytest.mark.parametrize(
    "name, item",
    [
        ("*", {"schema": "*"}),
        ("public", {"schema": "public"}),
        ("public:t", {"schema": "public", "table": "t"}),
        ("public:t:", {"schema": "public", "table": "t", "filter": ""}),
        (
            "public:t:at=gt.2024-01-01T00:00:00Z",
            {"schema": "public", "table": "t", "filter": "at=gt.2024-01-01T00:00:00Z"},
        ),
        ("public:", {}),
        ("public::id=eq.1", {}),
        ("*:", {}),
        ("sales:t", {"schema": "sales", "table": "t"}),
        ("room", None),
        ("room:t", None),
        ("Public:t", None),
        (":t", None),
        (":", None),
    ],
)
def test_a_name_is_read_part_by_part(name: str, item: dict[str, str] | None) -> None:
    assert binding_of(name, {"public", "sales"}) == item


def test_a_client_that_sends_a_config_is_not_of_old() -> None:
    assert is_legacy({}) and is_legacy({"user_token": "T"})
    assert not is_legacy({"config": {}}) and not is_legacy({"config": None})
