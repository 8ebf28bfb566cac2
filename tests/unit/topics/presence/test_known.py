"""Whatever messages are lost, doubled or reordered, those known to be present are those in the
table, and nobody is told of them twice."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from realtime.topics.presence.changes import Gone, Key, PresenceChanges, Present
from realtime.topics.presence.known import KnownPresence, Table

ROOM: Key = ("room", False)
HALL: Key = ("hall", False)


def present(id_: str, version: int = 1, key: Key = ROOM) -> Present:
    return Present(*key, id_, version, id_, b"{}")


def changes(number: int, *rows: Present | Gone, before: int | None = None) -> PresenceChanges:
    return PresenceChanges(
        "p",
        number - 1 if before is None else before,
        number,
        [row for row in rows if isinstance(row, Present)],
        [row for row in rows if isinstance(row, Gone)],
    )


def table(number: int | None, *rows: Present, process: str = "p") -> Table:
    return Table({process: number}, [(process, row) for row in rows])


def loaded(number: int | None, *rows: Present) -> KnownPresence:
    known = KnownPresence("here")
    known.take(table(number, *rows), [ROOM])
    known.topics[ROOM].diff()
    return known


def names(known: KnownPresence, key: Key = ROOM) -> set[str]:
    """Whom a channel that comes now is told."""
    known.topics[key].diff()
    return set(json.loads(known.topics[key].state()))


def test_a_message_that_follows_is_applied() -> None:
    known = loaded(3, present("ann"))
    assert known.hear(changes(4, present("bob"))) == {ROOM}
    assert known.hear(changes(5, Gone(*ROOM, "ann", 1))) == {ROOM}
    assert names(known) == {"bob"}
    assert not known.unread


def test_a_message_that_came_before_is_skipped() -> None:
    known = loaded(3, present("bob"))
    known.hear(changes(3, present("ann")))
    assert names(known) == {"bob"}
    assert not known.unread


def test_after_a_gap_the_process_is_read_again() -> None:
    known = loaded(3, present("ann"))
    assert known.hear(changes(5, present("cleo"))) == set()
    assert known.unread == {"p"}
    known.take(table(6, present("bob"), present("cleo")), [], ["p"])
    assert names(known) == {"bob", "cleo"}
    assert not known.unread
    known.hear(changes(7, present("dan")))
    assert names(known) == {"bob", "cleo", "dan"}


def test_a_process_of_which_nothing_is_known_is_read_unless_it_has_just_begun() -> None:
    known = loaded(1)
    fresh = PresenceChanges("new", 0, 1, [present("ann")], [])
    assert known.hear(fresh) == {ROOM}
    known.hear(PresenceChanges("old", 7, 8, [present("bob")], []))
    assert known.unread == {"old"}


def test_all_members_of_a_process_replace_the_others_whatever_was_missed() -> None:
    known = loaded(1, present("ann"))
    whole = PresenceChanges("p", 8, 9, [present("bob")], [], whole=True)
    assert known.hear(whole) == {ROOM}
    assert names(known) == {"bob"}
    assert not known.unread


def test_the_members_of_a_process_that_has_ended_leave() -> None:
    known = loaded(1, present("ann"))
    assert known.take(table(1, process="other"), []) == {ROOM}
    assert names(known) == set()


def test_the_members_of_a_process_whose_number_is_lost_stay() -> None:
    known = loaded(4, present("ann"))
    known.take(table(None), [], ["p"])
    assert names(known) == {"ann"}
    known.take(table(2), [], ["p"])
    assert names(known) == {"ann"}


def test_a_number_that_is_ahead_at_two_looks_is_a_message_that_was_lost() -> None:
    known = loaded(1)
    known.look(table(2), at_once=False)
    assert not known.unread
    # It was on its way.
    known.hear(changes(2))
    known.look(table(3), at_once=False)
    assert not known.unread
    known.look(table(3), at_once=False)
    assert known.unread == {"p"}


def test_where_no_messages_come_one_look_is_enough() -> None:
    known = loaded(1)
    known.look(table(2), at_once=True)
    assert known.unread == {"p"}


def test_a_topic_that_is_read_after_a_write_skips_its_message() -> None:
    known = loaded(1)
    known.take(table(3, present("ann", 3, HALL)), [HALL])
    # Its removal from a former membership, and both are known already in the hall.
    known.hear(changes(2, Gone(*HALL, "ann", 1), present("bob")))
    known.hear(changes(3, present("ann", 3, HALL), present("cleo")))
    assert names(known, HALL) == {"ann"}
    assert names(known) == {"bob", "cleo"}
    known.hear(changes(4, Gone(*HALL, "ann", 3)))
    assert names(known, HALL) == set()


def test_nothing_is_kept_while_no_topic_is_loaded() -> None:
    known = loaded(1, present("ann"))
    known.drop(ROOM)
    assert known.hear(changes(9)) == set()
    assert not known.unread
    known.take(table(9, present("bob")), [ROOM])
    known.hear(changes(10, present("cleo")))
    assert names(known) == {"bob", "cleo"}


def test_the_own_changes_of_a_process_are_never_missed() -> None:
    known = KnownPresence("p")
    known.take(table(1), [ROOM])
    # The number before it was given to a write that failed.
    known.hear(changes(3, present("ann")))
    known.look(table(5), at_once=True)
    assert names(known) == {"ann"}
    assert not known.unread


# --- any history ----------------------------------------------------------------------------------


class Listener:
    """Merges a state and diffs as clients do: by reference."""

    def __init__(self, known: KnownPresence, key: Key) -> None:
        self.state = known.topics[key]
        self.refs = {
            (name, meta["phx_ref"])
            for name, member in json.loads(self.state.state()).items()
            for meta in member["metas"]
        }

    def hear(self, diff: Any) -> None:
        for name, member in diff["joins"].items():
            for meta in member["metas"]:
                assert (name, meta["phx_ref"]) not in self.refs
                self.refs.add((name, meta["phx_ref"]))
        for name, member in diff["leaves"].items():
            for meta in member["metas"]:
                self.refs.remove((name, meta["phx_ref"]))


class World:
    """Processes that write a table, a bus that does what it likes, and one process that listens."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.rows: dict[str, dict[str, Present]] = {}
        self.lost: set[str] = set()
        self.versions = 0
        # How many processes were there before, in each of two places.
        self.generations = [0, 0]
        self.flight: list[PresenceChanges] = []
        self.known = KnownPresence("here")
        self.listeners: list[Listener] = []
        self.snapshot: tuple[Table, list[Key], set[str]] | None = None

    def table(self) -> Table:
        numbers = {p: None if p in self.lost else n for p, n in self.numbers.items()}
        rows = [
            (process, row)
            for process, found in self.rows.items()
            if process not in self.lost
            for row in found.values()
        ]
        return Table(numbers, rows)

    def process(self, which: int) -> str:
        name = f"{'pq'[which % 2]}{self.generations[which % 2]}"
        self.numbers.setdefault(name, 0)
        self.rows.setdefault(name, {})
        return name

    def write(self, which: int, member: int) -> None:
        process = self.process(which)
        if process in self.lost:
            self.anew()
        before = self.numbers[process]
        self.numbers[process] += 1
        self.versions += 1
        key = (ROOM, HALL)[member % 2]
        id_ = f"{process}-{member}"
        held = self.rows[process].pop(id_, None)
        put, gone = [], []
        if held is not None and member % 3 == 0:
            gone = [Gone(*key, id_, held.version)]
        else:
            put = [Present(*key, id_, self.versions, "k", b"{}")]
            self.rows[process][id_] = put[0]
        self.flight.append(PresenceChanges(process, before, before + 1, put, gone))

    def lose(self) -> None:
        self.lost = set(self.numbers)

    def anew(self) -> None:
        for process in sorted(self.lost):
            self.numbers[process] += 1
            rows = list(self.rows[process].values())
            number = self.numbers[process]
            message = PresenceChanges(process, number - 1, number, rows, [], whole=True)
            self.flight.append(message)
        self.lost = set()

    def end(self, which: int) -> None:
        process = self.process(which)
        del self.numbers[process], self.rows[process]
        self.lost.discard(process)
        self.generations[which % 2] += 1

    def begin_read(self, keys: list[Key]) -> None:
        if self.snapshot is None:
            self.snapshot = self.table(), keys, set(self.known.unread)

    def end_read(self) -> None:
        if self.snapshot is not None:
            read, self.snapshot = self.snapshot, None
            self.known.take(*read)

    def deliver(self, which: int, keep: bool) -> None:
        if self.flight and self.snapshot is None:
            place = which % len(self.flight)
            message = self.flight[place] if keep else self.flight.pop(place)
            self.known.hear(message)

    def tell(self) -> None:
        for state in self.known.topics.values():
            diff = state.diff()
            for listener in self.listeners:
                if listener.state is state and diff is not None:
                    listener.hear(json.loads(diff))

    def listen(self, key: Key) -> None:
        if self.snapshot is None:
            if key not in self.known.topics:
                self.known.take(self.table(), [key])
                self.known.topics[key].diff()
            self.listeners.append(Listener(self.known, key))

    def drop(self, key: Key) -> None:
        self.known.drop(key)
        self.listeners = [one for one in self.listeners if one.state in self.known.topics.values()]

    def look(self) -> None:
        if self.snapshot is None:
            table = self.table()
            self.known.take(table, [], set(self.known.unread))
            self.known.look(table, at_once=False)

    def step(self, what: str, which: int, member: int) -> None:
        key = (ROOM, HALL)[which % 2]
        match what:
            case "write":
                self.write(which, member)
            case "deliver" | "doubled":
                self.deliver(which, keep=what == "doubled")
            case "dropped":
                del self.flight[which : which + 1]
            case "begin":
                self.begin_read([key] if key in self.known.topics else [])
            case "end":
                self.end_read()
            case "look":
                self.look()
            case "tell":
                self.tell()
            case "listen":
                self.listen(key)
            case "drop":
                self.drop(key)
            case "lose":
                self.lose()
            case "anew":
                self.anew()
            case "died":
                self.end(which)


_number = st.integers(0, 11)
_steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("write", "write", "write", "deliver", "deliver", "doubled", "dropped"),
                *("begin", "end", "look", "tell", "listen", "drop", "lose", "anew", "died"),
            ]
        ),
        _number,
        _number,
    ),
    max_size=60,
)


@given(_steps)
def test_after_any_history_a_few_looks_bring_everybody_to_the_table(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World()
    for what, which, member in steps:
        world.step(what, which, member)
    world.end_read()
    world.anew()
    # What is still on its way never comes.
    for _ in range(4):
        world.look()
    world.tell()
    truth = {
        key: {(row.key, f"{row.id}.{row.version}") for _, row in world.table().rows
              if row.topic_key == key}
        for key in (ROOM, HALL)
    }  # fmt: skip
    for key in world.known.topics:
        assert Listener(world.known, key).refs == truth[key]
    for listener in world.listeners:
        (key,) = [key for key, state in world.known.topics.items() if state is listener.state]
        assert listener.refs == truth[key]
