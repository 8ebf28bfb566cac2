"""Who is present in a topic: what is known, and what listeners are told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.topics.presence.state import PresenceMeta, PresenceState, clean_meta


def entry(id_: str, version: int = 1, key: str = "", **meta: Any) -> PresenceMeta:
    return PresenceMeta(id_, version, key or id_, json.dumps(meta).encode())


def told(payload: bytes | None) -> Any:
    assert payload is not None
    return json.loads(payload)


def test_a_member_that_comes_is_told_once_and_is_in_the_state_then() -> None:
    room = PresenceState()
    room.put(entry("a", key="ann", n=1))
    assert room.state() == b"{}"
    joins = {"ann": {"metas": [{"phx_ref": "a.1", "n": 1}]}}
    assert told(room.diff()) == {"joins": joins, "leaves": {}}
    assert room.diff() is None
    assert told(room.state()) == joins


def test_a_change_is_a_new_meta_joining_and_the_old_one_leaving() -> None:
    room = PresenceState()
    room.put(entry("a", n=1))
    room.diff()
    room.put(entry("a", 2, n=2))
    assert told(room.diff()) == {
        "joins": {"a": {"metas": [{"phx_ref": "a.2", "phx_ref_prev": "a.1", "n": 2}]}},
        "leaves": {"a": {"metas": [{"phx_ref": "a.1", "n": 1}]}},
    }


def test_several_members_share_a_key_and_leave_one_by_one() -> None:
    room = PresenceState()
    room.put(entry("a", key="ann", on="laptop"))
    room.put(entry("b", key="ann", on="phone"))
    assert [meta["on"] for meta in told(room.diff())["joins"]["ann"]["metas"]] == [
        "laptop",
        "phone",
    ]
    room.remove("a")
    leaves = told(room.diff())["leaves"]["ann"]["metas"]
    assert [meta["on"] for meta in leaves] == ["laptop"]
    assert [meta["on"] for meta in told(room.state())["ann"]["metas"]] == ["phone"]


def test_many_changes_between_two_diffs_are_one() -> None:
    room = PresenceState()
    room.put(entry("a", 1))
    room.diff()
    room.put(entry("a", 2))
    room.put(entry("a", 3, n=3))
    room.put(entry("b"))
    room.remove("b")
    assert told(room.diff()) == {
        "joins": {"a": {"metas": [{"phx_ref": "a.3", "phx_ref_prev": "a.1", "n": 3}]}},
        "leaves": {"a": {"metas": [{"phx_ref": "a.1"}]}},
    }


def test_what_is_older_than_what_is_known_is_passed_over() -> None:
    room = PresenceState()
    room.replace([entry("a", 3)])
    room.diff()
    for version in (1, 2, 3):
        room.put(entry("a", version))
    room.remove("b")
    assert room.diff() is None


def test_reading_anew_tells_what_was_missed() -> None:
    room = PresenceState()
    room.replace([entry("a"), entry("b")])
    room.diff()
    room.replace([entry("b", 2), entry("c")])
    diff = told(room.diff())
    assert (set(diff["joins"]), set(diff["leaves"])) == ({"b", "c"}, {"a", "b"})


def test_the_servers_names_in_a_meta_are_the_servers() -> None:
    assert clean_meta(b'{"phx_ref":1,"a":{"phx_ref":2},"phx_ref_prev":3}') == (
        b'{"a":{"phx_ref":2}}'
    )


@pytest.mark.parametrize("text", [b"[]", b"null", b'"x"', b"{", b'{"a":}', b"\xff"])
def test_a_meta_is_a_json_object(text: bytes) -> None:
    with pytest.raises(ValueError, match="a presence is a JSON object"):
        clean_meta(text)


class Listener:
    """Merges a state and diffs as clients do: by reference."""

    def __init__(self, state: bytes) -> None:
        self.refs = {
            (key, meta["phx_ref"])
            for key, member in json.loads(state).items()
            for meta in member["metas"]
        }

    def hear(self, diff: bytes | None) -> None:
        for key, member in (json.loads(diff)["joins"] if diff else {}).items():
            for meta in member["metas"]:
                assert (key, meta["phx_ref"]) not in self.refs
                self.refs.add((key, meta["phx_ref"]))
        for key, member in (json.loads(diff)["leaves"] if diff else {}).items():
            for meta in member["metas"]:
                self.refs.remove((key, meta["phx_ref"]))


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.sampled_from("xy")),
        st.tuples(st.just("remove"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("tell"), st.just(""), st.just("")),
        st.tuples(st.just("listen"), st.just(""), st.just("")),
    )
)


@given(_steps)
def test_every_listener_ends_with_the_truth_whenever_it_began(
    steps: list[tuple[str, str, str]],
) -> None:
    room = PresenceState()
    truth: dict[str, PresenceMeta] = {}
    versions = dict.fromkeys("abcd", 0)
    listeners = [Listener(room.state())]
    for what, id_, key in steps:
        if what == "put":
            versions[id_] += 1
            # A member keeps its key for as long as it is there.
            key = truth[id_].key if id_ in truth else key
            truth[id_] = entry(id_, versions[id_], key)
            room.put(truth[id_])
        elif what == "remove":
            truth.pop(id_, None)
            room.remove(id_)
        elif what == "listen":
            listeners.append(Listener(room.state()))
        else:
            diff = room.diff()
            for listener in listeners:
                listener.hear(diff)
    diff = room.diff()
    for listener in listeners:
        listener.hear(diff)
        assert listener.refs == {(member.key, member.ref) for member in truth.values()}
