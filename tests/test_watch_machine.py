"""The machine that controls a watch: every pair of a state and what may happen in it, and the rules one by one."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from aioetcd2 import (
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EtcdError,
    EventIndexClearedError,
    InvalidResponseError,
    Node,
    Response,
    UnauthorizedError,
)
from aioetcd2._v2 import watch_machine
from aioetcd2._v2.census import Subtree
from aioetcd2._v2.position import Position
from aioetcd2._v2.stream import index_of
from aioetcd2._v2.watch_machine import MOST_SPOILT, State, WatchMachine
from aioetcd2._watching.steps import (
    Answered,
    Ask,
    Cleared,
    Failed,
    Fetch,
    Fetched,
    Happening,
    Heard,
    Look,
    Looked,
    NothingFetched,
    Open,
    Over,
    Patience,
    Pause,
    Read,
    Refused,
    Registered,
    Released,
    Spoilt,
    Woke,
)

ONE = "http://one:1"
LOST = ConnectionLostError(ONE, "it broke")
INVALID = InvalidResponseError(ONE, "no etcd")
UNREACHABLE = ClusterError("GET /a", [ConnectError(ONE, "refused")])
REFUSED = UnauthorizedError(110, "The request requires user authentication", status=401)
CLEARED = EventIndexClearedError(401, "The event in requested index is outdated and cleared", "[9/2]", 2000, 400)

REGISTERING, STREAMING, CATCHING_UP = State.REGISTERING, State.STREAMING, State.CATCHING_UP
DOUBTING, GAP, PAUSING = State.DOUBTING, State.GAP, State.PAUSING

UNCHANGED = Subtree(Node("/a", "v", modified_index=4), True)
CHANGED = Subtree(Node("/a", "w", modified_index=1500), True)
ABSENT = Subtree(None, True)


def event(index: int, key: str = "/a/b") -> Response:
    return Response("set", Node(key, "v", created_index=index, modified_index=index), index=index)


def heard(*indexes: int) -> Heard:
    return Heard([event(index) for index in indexes])


def opened(index: int, since: int | None = None, cluster: str = "c1", **more: bool | int) -> Registered:
    return Registered(index, since, cluster, **more)  # type: ignore[arg-type]


def machine_after(*happenings: Happening, after_index: int | None = 10, resync: bool = False) -> WatchMachine:
    machine = WatchMachine(Position("a", True, after_index), resync)
    for what in happenings:
        machine.happened(what)
    return machine


def taken(machine: WatchMachine) -> list[int | str]:
    """All that is there to be taken: indexes of events, actions of others, names of errors."""
    found: list[int | str] = []
    while machine.position.has_event:
        try:
            response = machine.position.pop()
        except EtcdError as error:
            found.append(type(error).__name__)
        else:
            found.append("resync" if response.action == "resync" else index_of(response))
    return found


def todo(machine: WatchMachine) -> object:
    """What it asks for; a name for mypy, which believes that nothing changes it."""
    return machine.todo


# --- every pair -----------------------------------------------------------------------------------------------------

BEGUN = (opened(10, 10), Released())
"""A watch that was registered once, and is to be registered again."""

WAYS: dict[State, tuple[Happening, ...]] = {
    REGISTERING: BEGUN,
    STREAMING: (*BEGUN, opened(10, 10)),
    CATCHING_UP: (*BEGUN, opened(20, 10), heard(11), opened(20)),
    DOUBTING: (*BEGUN, opened(9, 10)),
    GAP: (*BEGUN, Cleared(CLEARED), opened(2000)),
    PAUSING: (*BEGUN, Failed(UNREACHABLE)),
}
"""How to get to a state."""

HAPPENINGS: dict[type[Happening], Happening] = {
    type(each): each
    for each in (
        opened(20),
        heard(12),
        Over(LOST),
        Fetched(event(12)),
        NothingFetched(),
        Answered(10, 0),
        Looked(2000, CHANGED),
        Failed(UNREACHABLE),
        Cleared(CLEARED),
        Refused(REFUSED),
        Spoilt(INVALID),
        Woke(),
        Released(),
    )
}

NOTHING: tuple[str, ...] = ()
TOLD = ("UnauthorizedError",)

COMES_OF_IT: dict[tuple[State, type[Happening]], tuple[State, tuple[int | str, ...]]] = {
    (REGISTERING, Registered): (CATCHING_UP, NOTHING),
    (REGISTERING, Over): (PAUSING, NOTHING),
    (REGISTERING, Failed): (PAUSING, NOTHING),
    (REGISTERING, Cleared): (GAP, NOTHING),
    (REGISTERING, Refused): (REGISTERING, TOLD),
    (REGISTERING, Released): (REGISTERING, NOTHING),
    (STREAMING, Registered): (CATCHING_UP, NOTHING),
    (STREAMING, Heard): (STREAMING, (12,)),
    (STREAMING, Over): (PAUSING, NOTHING),
    (STREAMING, Cleared): (GAP, NOTHING),
    (STREAMING, Refused): (REGISTERING, TOLD),
    (STREAMING, Spoilt): (PAUSING, NOTHING),
    (STREAMING, Released): (REGISTERING, NOTHING),
    (CATCHING_UP, Registered): (CATCHING_UP, NOTHING),
    (CATCHING_UP, Over): (PAUSING, NOTHING),
    (CATCHING_UP, Fetched): (CATCHING_UP, (12,)),
    (CATCHING_UP, NothingFetched): (REGISTERING, NOTHING),
    (CATCHING_UP, Failed): (PAUSING, NOTHING),
    (CATCHING_UP, Cleared): (GAP, NOTHING),
    (CATCHING_UP, Refused): (REGISTERING, TOLD),
    (CATCHING_UP, Spoilt): (PAUSING, NOTHING),
    (CATCHING_UP, Released): (REGISTERING, NOTHING),
    (DOUBTING, Over): (PAUSING, NOTHING),
    (DOUBTING, Answered): (STREAMING, NOTHING),
    (DOUBTING, Failed): (PAUSING, NOTHING),
    (DOUBTING, Cleared): (PAUSING, NOTHING),
    (DOUBTING, Refused): (DOUBTING, TOLD),
    (DOUBTING, Released): (REGISTERING, NOTHING),
    (GAP, Registered): (GAP, NOTHING),
    (GAP, Heard): (GAP, NOTHING),
    (GAP, Over): (PAUSING, NOTHING),
    (GAP, Looked): (STREAMING, ("EventIndexClearedError",)),
    (GAP, Failed): (PAUSING, NOTHING),
    (GAP, Cleared): (PAUSING, NOTHING),
    (GAP, Refused): (GAP, TOLD),
    (GAP, Spoilt): (PAUSING, NOTHING),
    (GAP, Released): (GAP, NOTHING),
    (PAUSING, Over): (PAUSING, NOTHING),
    (PAUSING, Woke): (REGISTERING, NOTHING),
    (PAUSING, Released): (PAUSING, NOTHING),
}

CANNOT_HAPPEN: dict[State, set[type[Happening]]] = {
    REGISTERING: {Heard, Fetched, NothingFetched, Answered, Looked, Spoilt, Woke},
    STREAMING: {Fetched, NothingFetched, Answered, Looked, Failed, Woke},
    CATCHING_UP: {Heard, Answered, Looked, Woke},
    DOUBTING: {Registered, Heard, Fetched, NothingFetched, Looked, Spoilt, Woke},
    GAP: {Fetched, NothingFetched, Answered, Woke},
    PAUSING: {
        *(Registered, Heard, Fetched, NothingFetched, Answered),
        *(Looked, Failed, Cleared, Refused, Spoilt),
    },
}

MOVES_THE_CURSOR = {(STREAMING, Heard): 12, (CATCHING_UP, Fetched): 12, (GAP, Looked): 2000}
"""All that moves it, once there is one."""


def test_the_pairs_are_all() -> None:
    assert set(HAPPENINGS) == set(get_args(Happening))
    impossible = {(state, what) for state, happenings in CANNOT_HAPPEN.items() for what in happenings}
    assert set(COMES_OF_IT) == set(WatchMachine.TABLE)
    assert set(COMES_OF_IT) | impossible == {(state, what) for state in State for what in HAPPENINGS}
    assert not set(COMES_OF_IT) & impossible


@pytest.mark.parametrize("what", HAPPENINGS, ids=lambda what: what.__name__)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_pair(state: State, what: type[Happening]) -> None:
    machine = machine_after(*WAYS[state])
    assert machine.state is state
    machine.position.pending.clear()
    cursor = machine.position.cursor
    if what in CANNOT_HAPPEN[state]:
        with pytest.raises(KeyError):
            machine.happened(HAPPENINGS[what])
        assert (machine.state, machine.position.cursor, machine.position.has_event) == (state, cursor, False)
        return
    machine.happened(HAPPENINGS[what])
    then, found = COMES_OF_IT[state, what]
    assert machine.position.cursor == MOVES_THE_CURSOR.get((state, what), cursor)
    assert (machine.state, tuple(taken(machine))) == (then, found)


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (REGISTERING, Open(10, 10)),
        (STREAMING, Read(Patience.ENDLESS)),
        (CATCHING_UP, Fetch(11, 20, False)),
        (DOUBTING, Ask()),
        (GAP, Look(False, 2000)),
        (PAUSING, Pause(1, UNREACHABLE)),
    ],
)
def test_what_each_state_asks_for(state: State, wanted: object) -> None:
    machine = machine_after(*WAYS[state])
    assert todo(machine) == wanted
    assert machine.streams is (state is STREAMING)
    assert machine.keeps_stream is (state not in (REGISTERING, PAUSING))


def test_what_is_asked_for_without_a_stream() -> None:
    assert todo(machine_after(*BEGUN, opened(20, 10), heard(11))) == Open(None, 11)
    assert todo(machine_after(*BEGUN, Cleared(CLEARED))) == Open(None, None)
    assert todo(machine_after(after_index=None)) == Open(None, None)


def test_the_docstring_names_what_may_happen() -> None:
    """The table in the docstring of the module has, for each state, exactly what the machine has."""
    assert watch_machine.__doc__ is not None
    edge = "".join(re.findall(r"(?m)^=+ =+ =+$", watch_machine.__doc__)[:1])
    rows = watch_machine.__doc__.split(edge)[2]
    begins = edge.rindex(" ") + 1
    names = "|".join(what.__name__ for what in HAPPENINGS)
    said: dict[str, set[str]] = {}
    state = ""
    for row in rows.strip("\n").splitlines():
        state = row.split(" ")[0] or state
        said.setdefault(state, set()).update(re.findall(rf"\b(?:{names})\b", row[begins:]))
    known: dict[str, set[str]] = {}
    for each, what in WatchMachine.TABLE:
        known.setdefault(each.name.title().replace("_", ""), set()).add(what.__name__)
    assert said == known


# --- the cursor -----------------------------------------------------------------------------------------------------


def test_the_first_registration_is_where_it_begins() -> None:
    machine = machine_after(opened(30), after_index=None)
    assert (machine.state, machine.position.cursor, machine.position.index) == (STREAMING, 30, 30)
    machine.happened(Released())
    machine.happened(opened(40, 30))
    assert machine.position.cursor == 30


def test_a_registration_after_an_index_moves_nothing() -> None:
    machine = machine_after(opened(30, 10))
    assert (machine.state, machine.position.cursor) == (STREAMING, 10)


@pytest.mark.parametrize("lasted", [0.0, 2.0, 3600.0])
@pytest.mark.parametrize("error", [LOST, None])
def test_the_end_of_a_stream_proves_nothing(error: EtcdError | None, lasted: float) -> None:
    machine = machine_after(opened(30, 10), Over(error, lasted))
    assert machine.position.cursor == 10
    if error is not None:
        machine.happened(Woke())
    assert todo(machine) == Open(10, 10)


def test_what_was_heard_already_is_dropped() -> None:
    machine = machine_after(opened(10, 10), heard(11, 12), heard(11, 12, 13))
    assert taken(machine) == [11, 12, 13]


def test_an_event_of_elsewhere_moves_the_cursor_unseen() -> None:
    machine = machine_after(opened(10, 10), Heard([event(11, "/b")]))
    assert (machine.position.cursor, machine.position.index, machine.position.has_event) == (11, 11, False)


# --- history --------------------------------------------------------------------------------------------------------


def test_an_event_of_history_is_taken_and_the_rest_is_fetched() -> None:
    machine = machine_after(opened(20, 10), heard(12))
    assert (machine.state, todo(machine), machine.keeps_stream) == (CATCHING_UP, Open(None, 12), False)
    machine.happened(opened(20))
    for index in (15, 20):
        assert machine.state is CATCHING_UP
        machine.happened(Fetched(event(index)))
    assert machine.state is STREAMING
    machine.happened(heard(21))
    assert taken(machine) == [12, 15, 20, 21]


def test_a_stream_that_begins_at_the_cursor_has_no_history_before_it() -> None:
    machine = machine_after(opened(20, 10), heard(20), opened(20))
    assert machine.state is STREAMING


def test_the_end_of_a_stream_of_one_event_is_no_history() -> None:
    machine = machine_after(opened(20, 10, ends=True), heard(12))
    assert machine.state is STREAMING


def test_where_most_events_are_ours_history_is_fetched_many_at_a_time() -> None:
    machine = machine_after(opened(10, 10), heard(*range(11, 111)))
    assert todo(machine) == Read(Patience.HUSHED)
    machine.happened(Over(None))
    assert (machine.state, todo(machine)) == (CATCHING_UP, Open(None, 110))
    machine.happened(opened(300))
    assert todo(machine) == Fetch(110, 300, True)


def test_half_an_event_is_waited_for_with_less_patience() -> None:
    machine = machine_after(opened(10, 10), Heard([], halfway=True))
    assert todo(machine) == Read(Patience.HALFWAY)
    machine.happened(heard(11))
    assert todo(machine) == Read(Patience.ENDLESS)


# --- doubts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [opened(9, 10), opened(30, 10, doubtful=True)])
@pytest.mark.parametrize("answer", [Answered(9, 0), Answered(30, 1), Answered(9, 1)])
def test_another_life_is_told_once(stream: Registered, answer: Answered) -> None:
    machine = machine_after(*BEGUN, stream)
    assert (machine.state, todo(machine)) == (DOUBTING, Ask())
    machine.happened(answer)
    assert (machine.state, todo(machine)) == (GAP, Open(None, None))
    machine.happened(opened(3, life=1))
    machine.happened(Looked(3, UNCHANGED))  # though it is still there, who knows what was before
    assert (machine.state, machine.position.cursor) == (STREAMING, 3)
    with pytest.raises(EventIndexClearedError) as caught:
        machine.position.pop()
    assert caught.value.index == 3
    assert "the store has begun anew" in caught.value.cause
    machine.happened(Over(LOST))
    machine.happened(Woke())
    machine.happened(opened(4, 3, life=1))
    machine.happened(heard(5))
    assert taken(machine) == [5]


@pytest.mark.parametrize("stream", [opened(9, 10), opened(10, 10, doubtful=True)])
def test_a_member_that_lags_is_listened_to(stream: Registered) -> None:
    machine = machine_after(*BEGUN, stream, Answered(10, 0))
    assert (machine.state, machine.position.cursor) == (STREAMING, 10)
    machine.happened(heard(9, 10, 11))
    assert taken(machine) == [11]


def test_a_doubtful_member_beside_which_history_is_fetched() -> None:
    machine = machine_after(opened(20, 10), heard(12), opened(20, doubtful=True))
    assert machine.state is DOUBTING
    machine.happened(Answered(20, 0))
    assert (machine.state, todo(machine)) == (CATCHING_UP, Fetch(12, 20, False))


def test_an_index_that_the_cluster_never_had() -> None:
    machine = machine_after(opened(7, 5000), after_index=5000)
    assert machine.state is DOUBTING
    machine.happened(Answered(7, 0))
    machine.happened(opened(7))
    machine.happened(Looked(7, ABSENT))
    assert taken(machine) == ["EventIndexClearedError"]
    assert machine.position.cursor == 7


def test_doubts_last_through_failures() -> None:
    machine = machine_after(*BEGUN, opened(9, 10), Failed(UNREACHABLE))
    assert todo(machine) == Pause(1, UNREACHABLE)
    machine.happened(Woke())
    assert (machine.state, todo(machine)) == (DOUBTING, Ask())


@pytest.mark.parametrize("end", [Over(LOST), Released()])
def test_doubts_of_a_stream_that_ended_while_it_paused_begin_anew(end: Happening) -> None:
    machine = machine_after(*BEGUN, opened(9, 10), Failed(UNREACHABLE), end, Woke())
    assert (machine.state, todo(machine)) == (REGISTERING, Open(10, 10))
    machine.happened(opened(9, 10))
    assert machine.state is DOUBTING


def test_another_cluster_is_a_gap_without_a_question() -> None:
    machine = machine_after(*BEGUN, opened(30, 10, cluster="c2"))
    assert (machine.state, machine.keeps_stream) == (GAP, False)
    machine.happened(opened(30, cluster="c2"))
    machine.happened(Looked(30, UNCHANGED))
    with pytest.raises(EventIndexClearedError) as caught:
        machine.position.pop()
    assert (caught.value.cause, caught.value.index) == ("cluster c2", 30)


def test_another_life_that_others_have_found_is_a_gap_without_a_question() -> None:
    machine = machine_after(*BEGUN, opened(30, 10, life=1))
    assert machine.state is GAP
    machine.happened(opened(30, life=1))
    machine.happened(Looked(30, UNCHANGED))
    with pytest.raises(EventIndexClearedError) as caught:
        machine.position.pop()
    assert caught.value.cause == "the store has begun anew"


@pytest.mark.parametrize("names", [("c1", "", "c1"), ("", "c1", "c1"), ("", "", "")])
def test_a_cluster_without_a_name_is_the_same(names: tuple[str, ...]) -> None:
    machine = machine_after()
    for name in names:
        machine.happened(opened(10, 10, cluster=name))
        assert machine.state is STREAMING
        machine.happened(Released())


# --- gaps -----------------------------------------------------------------------------------------------------------


def test_first_the_stream_then_the_look() -> None:
    machine = machine_after(*BEGUN, Cleared(CLEARED))
    assert todo(machine) == Open(None, None)
    machine.happened(opened(2000))
    assert todo(machine) == Look(False, 2000)


def test_what_came_meanwhile_is_delivered_behind_the_look() -> None:
    machine = machine_after(*WAYS[GAP], heard(2001, 2002), heard(2003), heard(2004))
    assert (machine.position.cursor, machine.position.has_event) == (10, False)
    machine.happened(Looked(2002, CHANGED))
    machine.happened(heard(2005))
    assert taken(machine) == ["EventIndexClearedError", 2003, 2004, 2005]
    assert machine.state is STREAMING


def test_a_resync_stands_for_what_is_lost() -> None:
    machine = machine_after(*WAYS[GAP], heard(2001, 2002), resync=True)
    machine.happened(Looked(2001, CHANGED))
    assert machine.position.index == 10
    resync = machine.position.pop()
    assert (resync.action, resync.index, resync.node, machine.position.index) == ("resync", 2001, CHANGED.node, 2001)
    assert taken(machine) == [2002]


def test_where_nothing_has_changed_it_goes_on_unseen() -> None:
    machine = machine_after(*WAYS[GAP], heard(2001, 2002))
    machine.happened(Looked(2001, UNCHANGED))
    assert (machine.state, taken(machine), machine.position.cursor) == (STREAMING, [2002], 2002)


def test_where_the_server_has_said_that_there_is_no_history_the_open_stream_goes_on() -> None:
    machine = machine_after(*WAYS[CATCHING_UP], NothingFetched(sure=True))
    assert (machine.state, machine.keeps_stream, machine.position.cursor) == (STREAMING, True, 11)
    machine.happened(heard(21))
    assert (machine.state, taken(machine), machine.position.cursor) == (STREAMING, [11, 21], 21)


def test_a_count_that_is_the_same_proves_that_nothing_was_deleted() -> None:
    for count, found in ((2, []), (3, ["EventIndexClearedError"])):
        machine = machine_after(*WAYS[GAP])
        machine.position.count(10, Subtree(Node("/a", None, True, (Node("/a/b"),) * (count - 1), 1, 1), True))
        node = Node("/a", None, True, (Node("/a/b", "v", created_index=3, modified_index=3),), 1, 1)
        machine.happened(Looked(2001, Subtree(node, True)))
        assert (taken(machine), machine.position.cursor) == (found, 2001)


def test_lost_events_are_told_with_what_the_server_said() -> None:
    machine = machine_after(*WAYS[GAP], Looked(2001, CHANGED))
    with pytest.raises(EventIndexClearedError) as caught:
        machine.position.pop()
    error = caught.value
    assert (error.cause, error.index, error.status) == ("[9/2]", 2001, 400)
    assert "after_index=2001" in str(error)


def test_the_index_stays_until_the_error_is_taken() -> None:
    machine = machine_after(*WAYS[GAP], heard(2002), Looked(2001, CHANGED))
    assert (machine.position.index, machine.position.cursor) == (10, 2002)
    with pytest.raises(EventIndexClearedError):
        machine.position.raise_error()
    assert machine.position.index == 2001
    machine.position.raise_error()  # an event is no error
    assert taken(machine) == [2002]
    assert machine.position.index == 2002


def test_who_gives_up_with_the_error_untaken_is_where_it_was() -> None:
    machine = machine_after(*WAYS[GAP], Looked(2001, CHANGED))
    machine.position.give_up()
    assert (machine.position.index, machine.position.cursor, machine.position.has_event) == (10, 10, False)


def test_a_look_below_the_stream_is_repeated_with_quorum() -> None:
    machine = machine_after(*WAYS[GAP], heard(2001), Looked(1999, CHANGED))
    assert (machine.state, todo(machine), machine.position.cursor) == (GAP, Look(True, 2000), 10)
    machine.happened(Looked(2000, CHANGED))
    assert taken(machine) == ["EventIndexClearedError", 2001]


def test_a_look_with_quorum_that_lags_is_a_failure() -> None:
    machine = machine_after(*WAYS[GAP], Looked(1999, UNCHANGED), Looked(1999, UNCHANGED))
    assert (machine.state, machine.position.cursor) == (PAUSING, 10)
    machine.happened(Woke())
    assert machine.state is GAP


FAILURES: list[tuple[Happening, ...]] = [
    (Failed(UNREACHABLE), Woke()),
    (Over(LOST), Woke()),
    (Over(None),),
    (Cleared(CLEARED), Woke()),
    (Spoilt(INVALID), Woke()),
    (Released(),),
    (Failed(UNREACHABLE), Released(), Woke()),
    (Failed(UNREACHABLE), Over(LOST), Woke()),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: "-".join(type(what).__name__ for what in each))
@pytest.mark.parametrize(
    ("into", "cause"),
    [
        ((Cleared(CLEARED),), "[9/2]"),
        ((opened(30, 10, cluster="c2"),), "cluster c2"),
        ((opened(9, 10), Answered(9, 1)), "the store has begun anew, and is at index 9"),
    ],
)
def test_a_gap_stays_a_gap(into: tuple[Happening, ...], cause: str, failure: tuple[Happening, ...]) -> None:
    """Neither before the stream is open nor while the look is awaited does a failure end it."""
    cluster, life = ("c2", 0) if cause == "cluster c2" else ("c1", 1 if "anew" in cause else 0)
    stream = opened(2000, cluster=cluster, life=life)
    machine = machine_after(*BEGUN, *into, *failure, stream, *failure)
    assert (machine.state, machine.position.cursor, machine.position.has_event) == (GAP, 10, False)
    if not machine.keeps_stream:
        machine.happened(stream)
    machine.happened(Looked(2000, CHANGED))
    with pytest.raises(EventIndexClearedError) as caught:
        machine.position.pop()
    assert caught.value.cause == cause
    assert not machine.position.has_event


def test_what_a_lost_stream_brought_is_forgotten_with_it() -> None:
    """The look behind the next one tells it."""
    machine = machine_after(*WAYS[GAP], heard(2001), Over(LOST), Woke(), opened(2001), Looked(2001, CHANGED))
    assert taken(machine) == ["EventIndexClearedError"]
    assert machine.position.cursor == 2001


def test_another_cluster_within_a_gap_is_told_whatever_the_look_shows() -> None:
    machine = machine_after(*BEGUN, Cleared(CLEARED), opened(30, cluster="c2"), Looked(30, UNCHANGED))
    with pytest.raises(EventIndexClearedError, match="cluster c2"):
        machine.position.pop()


def test_a_refused_look_is_told_each_time_it_is_asked_for() -> None:
    machine = machine_after(*WAYS[GAP])
    for _ in range(2):
        machine.happened(Refused(REFUSED))
        assert (machine.state, todo(machine)) == (GAP, Look(False, 2000))
        assert taken(machine) == ["UnauthorizedError"]


# --- where headers are held back ------------------------------------------------------------------------------------


def test_a_blind_registration_begins_with_a_look() -> None:
    machine = machine_after(opened(0, cluster="", blind=True), after_index=None)
    assert (machine.state, todo(machine), machine.registered) == (GAP, Look(False, 0), False)
    machine.happened(Looked(31, CHANGED))
    assert (machine.state, machine.position.cursor, machine.registered) == (REGISTERING, 31, True)
    assert not machine.position.has_event
    machine.happened(opened(33, 31, ends=True))
    machine.happened(heard(33))
    assert taken(machine) == [33]


BLIND = opened(0, cluster="", blind=True)


def test_a_blind_registration_asks_where_the_cluster_is() -> None:
    machine = machine_after(BLIND)
    assert (machine.state, todo(machine), machine.registered) == (DOUBTING, Ask(), False)
    machine.happened(Answered(31, 0))
    assert (machine.state, todo(machine), machine.registered) == (REGISTERING, Open(10, 10, True), True)


@pytest.mark.parametrize("after", [Over(None, 60.0), Over(LOST, 60.0), Failed(UNREACHABLE), Released()], ids=repr)
def test_a_poll_that_brought_nothing_leaves_open_where_the_cluster_is(after: Happening) -> None:
    machine = machine_after(BLIND, Answered(31, 0), after)
    if machine.state is PAUSING:
        machine.happened(Woke())
    assert todo(machine) == Open(10, 10, False)


def test_a_poll_that_brought_an_event_has_said_where_the_cluster_is() -> None:
    machine = machine_after(BLIND, Answered(31, 0), opened(33, 10, ends=True), heard(33), Over(None, 1.0))
    assert todo(machine) == Open(33, 33, True)
    assert todo(machine_after(*BEGUN, opened(33, 10), heard(33), Over(None, 1.0))) == Open(33, 33, False)
    machine = machine_after(BLIND, Answered(31, 0), opened(33, 10, ends=True), heard(33), Over(LOST, 1.0), Woke())
    assert todo(machine) == Open(33, 33, True)


def test_what_is_met_blindly_is_told_as_a_header_would_tell_it() -> None:
    assert taken(machine_after(BLIND, Answered(7, 0), opened(8), Looked(8, ABSENT))) == ["EventIndexClearedError"]
    assert taken(machine_after(*BEGUN, BLIND, Answered(31, 1), opened(32), Looked(32, ABSENT))) == [
        "EventIndexClearedError"
    ]
    machine = machine_after(BLIND, Answered(31, 2), opened(33, 10, life=3, ends=True))
    assert machine.state is GAP


def of(tree: Subtree, cluster: str, life: int) -> Subtree:
    return Subtree(tree.node, True, cluster, life)


def test_where_a_blind_look_has_told_it_is_known_whose_it_was() -> None:
    """Or the next life, or another cluster, could begin before the next header, and no one would know."""
    told = (*BEGUN, Cleared(CLEARED), BLIND, Looked(7, of(CHANGED, "c2", 4)), BLIND)
    assert taken(machine_after(*told)) == ["EventIndexClearedError"]
    for elsewhere in (Answered(7, 4, "c3"), Answered(7, 5, "c2"), Answered(6, 4, "c2")):
        assert machine_after(*told, elsewhere).state is GAP
    assert machine_after(*told, Answered(7, 4, "c2")).state is REGISTERING
    assert machine_after(*told, Answered(7, 4, "c2"), opened(8, 7, "c3", life=4, ends=True)).state is GAP


def test_a_blind_look_at_another_cluster_is_told_though_nothing_seems_changed() -> None:
    for elsewhere in (of(UNCHANGED, "c2", 0), of(UNCHANGED, "c1", 1)):
        machine = machine_after(*BEGUN, Cleared(CLEARED), BLIND, Looked(31, elsewhere))
        assert taken(machine) == ["EventIndexClearedError"]
    assert taken(machine_after(*BEGUN, Cleared(CLEARED), BLIND, Looked(31, of(UNCHANGED, "c1", 0)))) == []


def test_where_a_blind_watch_begins_it_is_known_whose_that_is() -> None:
    begun = (BLIND, Looked(31, of(UNCHANGED, "c1", 0)), BLIND)
    assert machine_after(*begun, Answered(31, 0, "c2"), after_index=None).state is GAP
    assert machine_after(*begun, Answered(31, 0, "c1"), after_index=None).state is REGISTERING


def test_a_blind_question_that_fails_is_told_before_the_first_registration() -> None:
    machine = machine_after(BLIND, Failed(UNREACHABLE))
    assert taken(machine) == ["ClusterError"]
    machine = machine_after(BLIND, Answered(31, 0), BLIND, Failed(UNREACHABLE), Woke())
    assert (machine.state, todo(machine)) == (REGISTERING, Open(10, 10, False))


def test_a_blind_look_in_a_gap_is_told_as_well() -> None:
    machine = machine_after(*BEGUN, Cleared(CLEARED), opened(0, cluster="", blind=True), Looked(2000, CHANGED))
    assert taken(machine) == ["EventIndexClearedError"]
    assert (machine.state, todo(machine)) == (REGISTERING, Open(2000, 2000))


def test_a_blind_look_that_fails_is_told_before_the_first_registration() -> None:
    machine = machine_after(opened(0, cluster="", blind=True), Failed(UNREACHABLE), after_index=None)
    assert taken(machine) == ["ClusterError"]
    assert machine.state is GAP


# --- what can't be taken --------------------------------------------------------------------------------------------


def spoil(machine: WatchMachine, cursor: int) -> None:
    if machine.state is PAUSING:
        machine.happened(Woke())
    machine.happened(opened(30, cursor))
    machine.happened(Spoilt(INVALID))


def test_an_event_that_cannot_be_taken_is_asked_for_three_times() -> None:
    machine = machine_after()
    for _ in range(2):
        for _ in range(MOST_SPOILT - 1):
            spoil(machine, 10)
            assert (machine.state, machine.position.has_event) == (PAUSING, False)
        spoil(machine, 10)
        assert machine.state is REGISTERING
        assert taken(machine) == ["InvalidResponseError"]
    assert machine.position.cursor == 10


def test_at_another_place_it_is_counted_anew() -> None:
    machine = machine_after()
    for cursor in range(10, 20):
        spoil(machine, cursor)
        assert machine.state is PAUSING
        machine.happened(Woke())
        machine.happened(opened(cursor, cursor))
        machine.happened(heard(cursor + 1))
        machine.happened(Released())
    assert taken(machine) == list(range(11, 21))


def test_a_resync_goes_on_behind_it() -> None:
    machine = machine_after(resync=True)
    for _ in range(MOST_SPOILT):
        spoil(machine, 10)
    assert machine.state is GAP
    machine.happened(opened(30))
    machine.happened(Looked(30, UNCHANGED))
    assert taken(machine) == ["resync"]
    assert machine.position.cursor == 30


def test_a_look_that_cannot_be_taken_is_told_the_third_time() -> None:
    machine = machine_after(*BEGUN, Cleared(CLEARED))
    for times in range(1, 2 * MOST_SPOILT + 1):
        machine.happened(opened(2000))
        machine.happened(Spoilt(INVALID))
        assert taken(machine) == ["InvalidResponseError"] * (times % MOST_SPOILT == 0)
        machine.happened(Woke())
        assert machine.state is GAP


# --- failures in a row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_resting_is_no_failure(state: State) -> None:
    machine = machine_after(*WAYS[state])
    before = machine.troubles, machine.position.cursor
    for _ in range(3):
        machine.happened(Released())
    assert (machine.troubles, machine.position.cursor) == before
    assert not machine.keeps_stream


def test_an_event_ends_the_row_of_failures() -> None:
    machine = machine_after(*WAYS[PAUSING], Woke(), Failed(UNREACHABLE), Woke())
    machine.happened(opened(10, 10))
    assert machine.troubles == 2
    machine.happened(heard(11))
    assert machine.troubles == 0


def test_what_is_known_already_ends_no_row() -> None:
    machine = machine_after(*WAYS[PAUSING], Woke(), opened(10, 10), heard(10))
    assert machine.troubles == 1


@pytest.mark.parametrize(("lasted", "troubles"), [(0.9, 2), (1.0, 1)])
def test_a_stream_that_lasted_a_second_ends_the_row_of_failures(lasted: float, troubles: int) -> None:
    machine = machine_after(*WAYS[PAUSING], Woke(), opened(10, 10), Over(LOST, lasted))
    assert todo(machine) == Pause(troubles, LOST)


@pytest.mark.parametrize(
    ("way", "state"), [((), REGISTERING), ((Cleared(CLEARED),), GAP), ((opened(9, 10),), DOUBTING)]
)
def test_before_the_first_registration_failures_are_told(way: tuple[Happening, ...], state: State) -> None:
    machine = machine_after(*way, Failed(UNREACHABLE))
    assert (machine.state, machine.troubles) == (state, 0)
    assert taken(machine) == ["ClusterError"]


def test_being_left_before_the_first_registration_is_not_told() -> None:
    machine = machine_after(Over(LOST))
    assert (machine.state, machine.position.has_event) == (PAUSING, False)
    machine.happened(Woke())
    assert todo(machine) == Open(10, 10)


# --- renewals -------------------------------------------------------------------------------------------------------


def test_a_renewed_stream_brings_what_the_old_one_has_not() -> None:
    machine = machine_after(opened(10, 10), heard(11), opened(11, 11), heard(12))
    assert (machine.state, taken(machine)) == (STREAMING, [11, 12])


def test_a_renewed_stream_that_is_behind_is_doubted() -> None:
    assert machine_after(opened(10, 10), heard(11), opened(10, 11)).state is DOUBTING


@pytest.mark.parametrize(
    "signs",
    [
        (Registered(30, 10, "c2", 1),),
        (Registered(30, 10, "c1", 1),),
        (Registered(7, 10, "c1"), Answered(7, 1)),
    ],
    ids=["cluster", "life", "index"],
)
def test_another_past_that_is_met_without_a_stream_is_told_once(signs: tuple[Registered | Answered, ...]) -> None:
    """A look alone does not say whose it is: what the next header says is where it goes on."""
    watch = WatchMachine(Position("a", False, None), False)
    for what in (
        Registered(10, cluster="c1"),
        Released(),
        *signs,
        Registered(0, blind=True),
        Looked(31, ABSENT),
    ):
        watch.happened(what)
    with pytest.raises(EventIndexClearedError):
        watch.position.pop()
    watch.happened(Registered(32, 31, "c2", 1))
    assert watch.state is State.STREAMING
    assert not watch.position.pending
    watch.happened(Released())
    watch.happened(Registered(33, 31, "c3", 1))
    assert watch.todo == Open(None, None)  # a gap


def test_no_stream_says_nothing_of_the_life() -> None:
    watch = WatchMachine(Position("a", False, None), False)
    watch.happened(Registered(10, cluster="c1", life=2))
    watch.position.skip(10, Subtree(Node("/a", "v", created_index=4, modified_index=4), False))
    watch.happened(Released())
    watch.happened(Cleared(EventIndexClearedError(401, "cleared", "", 2000, 400)))
    watch.happened(Registered(0, blind=True))
    watch.happened(Looked(2000, Subtree(Node("/a", "v", created_index=4, modified_index=4), False)))
    assert not watch.position.pending
    watch.happened(Registered(2001, 2000, "c1", 3))
    assert watch.state is State.GAP  # whose it was is still known
