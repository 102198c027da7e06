"""What clients see of a cluster that is being hurt is linearizable; the check is checked first.

The run prints its seed; `AIOETCD2_SEED=... pytest -s tests/test_linearizability.py` plays it again, and
`python -m tests.chaos` goes on for longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioetcd2 import Client, EndpointSelection
from aioetcd2.testing import EtcdCluster, EtcdServer

from .chaos.checker import NEVER, NEW, Call, Kind, Operation, Outcome, State, check, step
from .chaos.nemesis import FAST_ELECTIONS
from .chaos.recorder import Recorder, perform, perform_again
from .chaos.registers import run
from .faultproxy import FaultProxy

IN_ORDER = EndpointSelection.PRIORITIZE_LEADER

GET = Call(Kind.GET)
DELETE = Call(Kind.DELETE)


def put(value: str) -> Call:
    return Call(Kind.SET, value)


def update(value: str) -> Call:
    return Call(Kind.UPDATE, value)


def create(value: str) -> Call:
    return Call(Kind.CREATE, value)


def swap(value: str, prev_value: str | None = None, prev_index: int | None = None) -> Call:
    return Call(Kind.SWAP, value, prev_value, prev_index)


def made(start: int, end: int, call: Call, index: int, before: State | None = None) -> Operation:
    return Operation(call, start, end, Outcome.DONE, State(call.value, index), before)


def read(start: int, end: int, value: str, index: int) -> Operation:
    return Operation(GET, start, end, Outcome.DONE, State(value, index))


def absent(start: int, end: int, call: Call = GET) -> Operation:
    return Operation(call, start, end, Outcome.ABSENT)


def refused(start: int, end: int, call: Call) -> Operation:
    return Operation(call, start, end, Outcome.EXISTS if call.kind is Kind.CREATE else Outcome.DIFFERS)


def lost(start: int, call: Call) -> Operation:
    return Operation(call, start, NEVER, Outcome.UNKNOWN)


A1 = made(1, 2, create("a"), 1)

GOOD = {
    "nothing happened": [],
    "in turn": [absent(1, 2), made(3, 4, create("a"), 1), read(5, 6, "a", 1), made(7, 8, DELETE, 2), absent(9, 10)],
    "a read beside a write sees it": [made(1, 10, create("a"), 1), read(2, 3, "a", 1)],
    "a read beside a write does not see it": [made(1, 10, create("a"), 1), absent(2, 3)],
    "one of two creates is refused": [made(1, 10, create("a"), 1), refused(2, 11, create("b"))],
    "swap by value, swap by index": [A1, made(3, 4, swap("b", "a"), 2), made(5, 6, swap("c", None, 2), 3)],
    "the loser of two swaps": [
        A1,
        made(3, 10, swap("b", "a"), 2),
        refused(4, 11, swap("c", "a")),
        read(12, 13, "b", 2),
    ],
    "a lost write never happens": [A1, lost(3, swap("b", "a")), read(4, 5, "a", 1), read(6, 7, "a", 1)],
    "a lost write happens at once": [A1, lost(3, swap("b", "a")), read(4, 5, "b", 2), read(6, 7, "b", 2)],
    "a lost write happens later": [A1, lost(3, swap("b", "a")), read(4, 5, "a", 1), read(6, 7, "b", 2)],
    "a lost write happens after another": [
        lost(1, create("a")),
        made(2, 3, create("b"), 1),
        made(4, 5, DELETE, 2, State("b", 1)),
        read(6, 7, "a", 3),
    ],
    "a lost write shows in the next one only": [A1, lost(3, swap("b", "a")), made(4, 5, DELETE, 3, State("b", 2))],
    "a lost write is the reason for a refusal": [lost(1, create("a")), refused(2, 3, create("b"))],
    "a lost delete makes room": [A1, lost(3, DELETE), made(4, 5, create("b"), 3)],
    "two lost writes, each needs the other": [A1, lost(3, create("b")), lost(4, DELETE), read(5, 6, "b", 3)],
    "set of what is there, and of what is not": [
        made(1, 2, put("a"), 1, State(None, None)),
        made(3, 4, put("b"), 2, State("a", 1)),
        made(5, 6, update("c"), 3, State("b", 2)),
    ],
    "an update of nothing is refused": [absent(1, 2, update("a"))],
    "a lost set happens after another": [
        lost(1, put("old")),
        made(2, 3, put("new"), 1),
        read(4, 5, "new", 1),
        read(6, 7, "old", 2),
    ],
    "a lost update happens after a delete and a set": [
        A1,
        lost(2, update("old")),
        made(3, 4, DELETE, 2, State("a", 1)),
        made(5, 6, put("b"), 3, State(None, None)),
        read(7, 8, "old", 4),
    ],
    "a swap by the index of a lost write": [
        A1,
        lost(3, swap("b", "a")),
        made(4, 5, swap("c", None, 2), 3, State("b", 2)),
    ],
}

BAD = {
    "stale read": [A1, made(3, 4, swap("b", "a"), 2), read(5, 6, "a", 1)],
    "stale absence": [A1, absent(3, 4)],
    "read of what was never written": [A1, read(3, 4, "z", 2)],
    "read with an index of another write": [A1, read(3, 4, "a", 7)],
    "lost update": [A1, made(3, 10, swap("b", "a"), 2), made(4, 11, swap("c", "a"), 3)],
    "lost update by index": [A1, made(3, 10, swap("b", None, 1), 2), made(4, 11, swap("c", None, 1), 3)],
    "double create": [made(1, 10, create("a"), 1), made(2, 11, create("b"), 2)],
    "double delete": [A1, made(3, 10, DELETE, 2), made(4, 11, DELETE, 3)],
    "acknowledged, then gone": [A1, made(3, 4, swap("b", "a"), 2), made(5, 6, swap("c", "a"), 3)],
    "refused though nothing was there": [refused(1, 2, create("a")), made(3, 4, create("b"), 1)],
    "refused though the value was right": [A1, refused(3, 4, swap("b", "a"))],
    "refused though the index was right": [A1, refused(3, 4, swap("b", None, 1))],
    "refused, yet it took effect": [refused(1, 2, create("a")), read(3, 4, "a", 1)],
    "swap refused, yet it took effect": [A1, refused(3, 4, swap("b", "a")), read(5, 6, "b", 2)],
    "delete refused, yet it took effect": [A1, absent(3, 4, DELETE), absent(5, 6)],
    "seen, then unseen": [A1, made(3, 20, swap("b", "a"), 2), read(4, 5, "b", 2), read(6, 7, "a", 1)],
    "a lost write seen, then unseen": [A1, lost(3, swap("b", "a")), read(4, 5, "b", 2), read(6, 7, "a", 1)],
    "a lost write seen before it began": [A1, read(3, 4, "b", 2), lost(5, swap("b", "a"))],
    "a lost write happens twice": [
        lost(1, create("a")),
        read(2, 3, "a", 1),
        made(4, 5, DELETE, 2),
        read(6, 7, "a", 3),
    ],
    "a set that was answered happens again": [
        made(1, 2, put("old"), 1),
        made(3, 4, put("new"), 2),
        read(5, 6, "old", 3),
    ],
    "a set was seen before the index it was answered with": [
        read(2, 3, "a", 1),
        made(4, 5, put("b"), 2, State("a", 1)),
        made(1, 9, put("a"), 3, State("b", 2)),
    ],
    "a lost set happens twice": [
        lost(1, put("a")),
        read(2, 3, "a", 1),
        made(4, 5, put("b"), 2, State("a", 1)),
        read(6, 7, "a", 3),
    ],
    "set where nothing was": [A1, made(3, 4, put("b"), 2, State(None, None))],
    "an update of nothing": [made(1, 2, update("a"), 1)],
    "a lost update of nothing": [lost(1, update("a")), absent(2, 3), read(4, 5, "a", 1)],
    "a set overwritten without a trace": [made(1, 2, put("a"), 1), made(3, 4, put("b"), 2), read(5, 6, "a", 1)],
    "the index goes down": [made(1, 2, create("a"), 5), made(3, 4, swap("b", "a"), 4)],
    "overwritten without a condition": [A1, made(3, 4, swap("b", "a"), 3, State("z", 2))],
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    assert check(GOOD[name]).linearizable is True


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    verdict = check(BAD[name])
    assert verdict.linearizable is False
    assert verdict.stuck


def naive(history: Sequence[Operation]) -> bool:
    """The definition, word for word: any choice of the lost writes, in any order that respects real time."""
    required = [operation for operation in history if operation.outcome is not Outcome.UNKNOWN]
    optional = [operation for operation in history if operation.outcome is Outcome.UNKNOWN]
    for count in range(len(optional) + 1):
        for chosen in itertools.combinations(optional, count):
            for order in itertools.permutations([*required, *chosen]):
                if all(one.start <= other.end for one, other in itertools.combinations(order, 2)) and explains(order):
                    return True
    return False


def explains(order: Sequence[Operation]) -> bool:
    state: State | None = NEW
    for operation in order:
        state = step(operation, state) if state is not None else None
    return state is not None


@st.composite
def histories(draw: st.DrawFn, longest: int) -> list[Operation]:
    """What happens to a key that behaves, seen by some who are slow to ask, slow to hear, or never hear."""
    state, operations = NEW, []
    for n in range(draw(st.integers(0, longest))):
        value = f"v{n}"
        calls = [GET, create(value), DELETE, swap(value, state.value or "x"), swap(value, None, state.modified or 1)]
        call = draw(st.sampled_from([*calls, swap(value, "other"), put(value), update(value)]))
        reach = st.integers(0, 40)
        start, end = 10 * n - draw(reach), 10 * n + 1 + draw(reach)
        if call.kind is not Kind.GET and draw(st.integers(0, 3)) == 0:
            operations.append(lost(start, call))
            if draw(st.booleans()) and step(operations[-1], state) is not None:
                state = State(call.value, n + 1)
            continue
        for operation in (
            Operation(call, start, end, Outcome.DONE, state if call is GET else State(call.value, n + 1)),
            absent(start, end, call),
            refused(start, end, call),
        ):
            after = step(operation, state)
            if after is not None and (state.value is not None or call is not GET or operation.after is None):
                operations.append(operation)
                state = after
                break
    return operations


@given(histories(30))
@settings(deadline=None, max_examples=100)
def test_what_behaves_is_found_good_and_soon(history: list[Operation]) -> None:
    verdict = check(history)
    assert verdict.linearizable is True
    assert verdict.explored < 20_000


@given(histories(6), st.data())
@settings(deadline=None, max_examples=150)
def test_agrees_with_the_definition(history: list[Operation], data: st.DataObject) -> None:
    if history:  # with one answer exchanged it is good or bad
        place = data.draw(st.integers(0, len(history) - 1))
        old = history[place]
        new = data.draw(st.sampled_from([lost(old.start, create("z")), absent(old.start, old.end), *history]))
        end = NEVER if new.outcome is Outcome.UNKNOWN else old.end
        history[place] = Operation(new.call, old.start, end, new.outcome, new.after, new.before)
    assert check(history).linearizable is naive(history)


@pytest.mark.slow
def test_many_lost_writes_do_not_drown_the_search() -> None:
    history = [A1]
    for n in range(10):
        history += [lost(3 + n, swap(f"b{n}", "a")), lost(20 + n, DELETE), lost(40 + n, create(f"c{n}"))]
    history += [read(100 + 2 * n, 101 + 2 * n, f"c{n}", 10 + n) for n in range(10)]
    assert check(history).linearizable is True
    assert check([*history, read(200, 201, "c0", 10)]).linearizable is False


def test_a_search_can_be_given_up() -> None:
    assert check([A1, read(3, 4, "z", 1)], limit=1).linearizable is None


WRITES: dict[str, tuple[str | None, Callable[[int], Call]]] = {
    "create": (None, lambda index: create("new")),
    "swap by value": ("old", lambda index: swap("new", "old")),
    "swap by index": ("old", lambda index: swap("new", None, index)),
    "delete": ("old", lambda index: DELETE),
    "delete by value": ("old", lambda index: Call(Kind.DELETE, None, "old")),
    "delete by index": ("old", lambda index: Call(Kind.DELETE, None, None, index)),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("again", [False, True], ids=["sent once", "sent again"])
async def test_a_client_that_sends_a_lost_write_again_is_caught(
    server: EtcdServer, client: Client, prefix: str, write: str, again: bool
) -> None:
    recorder = Recorder(perform_again if again else perform)
    old, make = WRITES[write]
    index = 0
    async with FaultProxy(server.endpoint) as proxy, Client(proxy.endpoint) as through:
        if old is not None:
            before = await recorder.call(through.keys, prefix, create(old))
            assert before is not None
            index = before.modified or 0
        async with client.keys.watch(prefix) as watcher:
            proxy.losing = True
            calling = asyncio.create_task(recorder.call(through.keys, prefix, make(index)))
            await asyncio.wait_for(watcher.next(), 30)  # the write has arrived
        proxy.losing = False
        proxy.cut()
        await asyncio.wait_for(calling, 30)
        await recorder.call(through.keys, prefix, GET)
    verdict = check(recorder.histories[prefix])
    assert verdict.linearizable is not again


repeating = pytest.mark.parametrize("repeat_writes", [False, True], ids=["sent once", "repeated"])
"""The control of what follows: the same faults, and a client that repeats plain writes as Go's does, are caught."""


@repeating
@pytest.mark.slow
async def test_a_set_whose_answer_is_lost_is_linearizable_only_if_it_is_sent_once(
    server: EtcdServer, client: Client, prefix: str, repeat_writes: bool
) -> None:
    """Another client overwrites the first copy before the second one is sent."""
    recorder = Recorder()
    async with FaultProxy(server.endpoint) as proxy, FaultProxy(server.endpoint) as sound:
        endpoints = [proxy.endpoint, sound.endpoint]
        async with (
            Client(endpoints, selection=IN_ORDER, repeat_writes=repeat_writes) as through,
            client.keys.watch(prefix) as watcher,
        ):
            proxy.losing = True
            calling = asyncio.create_task(recorder.call(through.keys, prefix, put("old")))
            await asyncio.wait_for(watcher.next(), 30)
            await recorder.call(client.keys, prefix, GET)
            await recorder.call(client.keys, prefix, put("new"))
            proxy.cut()
            await asyncio.wait_for(calling, 30)
    await recorder.call(client.keys, prefix, GET)
    assert recorder.outcomes["set unknown"] == (not repeat_writes)
    assert check(recorder.histories[prefix]).linearizable is not repeat_writes


@repeating
@pytest.mark.nemesis
async def test_a_set_that_waits_in_a_frozen_member_is_linearizable_only_if_it_is_sent_once(
    repeat_writes: bool,
) -> None:
    """The member carries it out when it goes on, after all that was written since."""
    recorder = Recorder()
    async with EtcdCluster(size=3, flags=FAST_ELECTIONS) as cluster, Client(cluster.endpoints) as direct:
        leader = (await direct.members.leader()).client_urls
        frozen, *others = sorted(cluster.members, key=lambda member: member.endpoints[0] in leader)
        endpoints = [frozen.endpoints[0], *(other.endpoints[0] for other in others)]
        async with (
            Client(endpoints, selection=IN_ORDER, header_timeout=0.5, repeat_writes=repeat_writes) as client,
            direct.keys.watch("/k", after_index=1) as watcher,
        ):
            await client.keys.get("/", quorum=True)
            await frozen.pause()
            await recorder.call(client.keys, "/k", put("old"))
            await recorder.call(client.keys, "/k", put("new"))
            await recorder.call(client.keys, "/k", GET)
            await frozen.resume()
            events = [await asyncio.wait_for(watcher.next(), 30) for _ in range(2 + repeat_writes)]
            await recorder.call(client.keys, "/k", GET)
    values = [event.node.value for event in events if event.node is not None]
    assert values == (["old", "new", "old"] if repeat_writes else ["new", "old"])
    verdict = check(recorder.histories["/k"])
    assert verdict.linearizable is not repeat_writes, recorder.histories


@pytest.mark.timeout(300)
@pytest.mark.nemesis
async def test_a_cluster_that_is_hurt_stays_linearizable() -> None:
    seed = int(os.environ.get("AIOETCD2_SEED", random.randrange(1 << 32)))
    print(f"AIOETCD2_SEED={seed}")
    report = await run(20.0, seed)
    print(report)
    assert not report.violations, str(report)
    assert not report.undecided
    assert report.answered > 100
    assert report.struck
