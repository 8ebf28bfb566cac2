"""The two frames a change may come in, in both serializers, byte for byte."""

from __future__ import annotations

import pytest

from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.serializer import Version

TOPIC = "realtime:public:t"
DATA = b'{"type":"INSERT"}'


@pytest.mark.parametrize(
    "frame, version, expected",
    [
        (
            ChangeFrame.BINDINGS,
            Version.V1,
            '{"topic":"realtime:public:t","event":"postgres_changes",'
            '"payload":{"ids":[7],"data":{"type":"INSERT"}},"ref":null}',
        ),
        (
            ChangeFrame.BINDINGS,
            Version.V2,
            '[null,null,"realtime:public:t","postgres_changes",'
            '{"ids":[7],"data":{"type":"INSERT"}}]',
        ),
        (
            ChangeFrame.BARE,
            Version.V1,
            '{"topic":"realtime:public:t","event":"INSERT","payload":{"type":"INSERT"},"ref":null}',
        ),
        (
            ChangeFrame.BARE,
            Version.V2,
            '[null,null,"realtime:public:t","INSERT",{"type":"INSERT"}]',
        ),
    ],
)
def test_a_change_is_framed_as_the_client_joined(
    frame: ChangeFrame, version: Version, expected: str
) -> None:
    assert frame.encode(version, TOPIC, "INSERT", (7,), DATA) == expected


def test_a_change_that_is_handed_over_as_a_value_has_no_frame() -> None:
    with pytest.raises(ValueError, match="no frame"):
        ChangeFrame.VALUE.encode(Version.V2, TOPIC, "INSERT", (7,), DATA)
