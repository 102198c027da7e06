"""A watch's machine and a random server, without I/O: what was lost is told, all else arrives once and in order.

What goes wrong without a rule (`NEEDED` has the cases):

- a stream's end proves nothing: header 10, its event swallowed, cut: event 10 is lost
- a registration below the cursor is doubted: `after_index=3` at a cluster at 2 believes another past
- another cluster or life is a gap: registered, then left for another cluster: nobody is told
- an event of history leads to catching up: two events after the cursor: the second never comes
- held events are delivered: an event that comes while the look is under way is lost
- an index beyond the cluster's is not believed: `after_index=3` at a cluster at 2
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioetcd2 import ClusterError, ConnectionLostError, EtcdError, EventIndexClearedError, Node, Response
from aioetcd2._v2 import hearing, requests
from aioetcd2._v2.census import Subtree
from aioetcd2._v2.identity import Identity
from aioetcd2._v2.lost_events import outdated
from aioetcd2._v2.past import Past
from aioetcd2._v2.position import Position
from aioetcd2._v2.watch_machine import State, WatchMachine
from aioetcd2._watching import steps

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))
"""How many random runs; 0 = a few, and always the same."""

WINDOW = 6
BUFFER = 4
ENOUGH = 200
"""So many steps after the last fault everything has arrived, or was told."""

LOST = ConnectionLostError("http://etcd", "it broke")
UNREACHABLE = ClusterError("GET /a", [LOST])

OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write"] * 4
            + ["delete", "wipe", "leave", "lag", "fail", "cut", "drop", "take", "rest", "renew", "hear", "late"]
            + ["step"] * 5
        ),
        st.integers(0, 7),
    ),
    max_size=40,
)  # fmt: skip
CASES = st.tuples(st.booleans(), st.sampled_from([None, None, 2, 3, 9]), st.integers(2, 9), OPS)
"""Whether it resyncs, the index to begin after, the server's index, what happens."""

Op = tuple[str, int]
Case = tuple[bool, "int | None", int, list[Op]]


class Reporter:
    """Hears, and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Store:
    """One life of one cluster: what happened in it, and how it was at each index."""

    def __init__(self, cluster: str, index: int, term: int, ahead: int) -> None:
        self.cluster, self.index, self.term, self.ahead = cluster, index, term, ahead
        self.before: Store | None = None  # the store it can't be told from
        self.events: dict[int, Response] = {}
        self.past: dict[int, dict[str, tuple[int, int]]] = {index: {}}

    def write(self, key: str, delete: bool = False) -> None:
        now = dict(self.past[self.index])
        if delete and key not in now:
            return
        self.index += 1
        old = now.pop(key, None)
        prev = None if old is None else Node(key, "v", created_index=old[0], modified_index=old[1])
        if not delete:
            now[key] = (self.index, self.index)
            if key.startswith("/a/"):
                now.setdefault("/a", (self.index, self.index))
        created = old[0] if delete and old else self.index
        node = Node(key, None if delete else "v", created_index=created, modified_index=self.index)
        self.events[self.index] = Response("delete" if delete else "set", node, prev)
        self.past[self.index] = now

    def seen(self, index: int) -> Node | None:
        """The watched directory as it was."""
        now = self.past[max(index, min(self.past))]
        if "/a" not in now:
            return None
        children = tuple(
            Node(key, "v", created_index=made, modified_index=changed)
            for key, (made, changed) in sorted(now.items())
            if key.startswith("/a/")
        )
        created, modified = now["/a"]
        return Node("/a", dir=True, nodes=children, created_index=created, modified_index=modified)

    def ours(self, after: int, until: int) -> list[int]:
        """The true events of the watch."""
        return [i for i in range(after + 1, until + 1) if i in self.events and self.key(i).startswith("/a/")]

    def key(self, index: int) -> str:
        node = self.events[index].node
        return node.key if node is not None else ""

    def is_after(self, other: Store) -> bool:
        """Whether it goes on where another one was, as far as any client can tell."""
        store: Store | None = self
        while store is not None and store is not other:
            store = store.before
        return store is other


class Stream:
    """What the server sends on one stream."""

    def __init__(self, store: Store, index: int, since: int | None) -> None:
        self.store = store
        self.at = index if since is None else max(since, index)
        history = [] if since is None else store.ours(since, index)
        self.history = history[0] if history else None
        self.until: int | None = None  # dropped without a word behind this one
        self.sent = 0

    def left(self) -> list[int]:
        if self.history is not None:
            return [] if self.sent else [self.history]
        return self.store.ours(self.at, self.store.index if self.until is None else self.until)

    def read(self, most: int) -> list[Response]:
        batch = self.left()[:most]
        self.sent += len(batch)
        if batch:
            self.at = max(self.at, batch[-1])
        return [self.store.events[i] for i in batch]


class World:
    """A server, a machine, and what is true."""

    def __init__(self, resync: bool, after_index: int | None, index: int, movers: bool = True) -> None:
        self.movers = movers
        self.identity = Identity(Reporter())  # type: ignore[arg-type]
        self.store = self.known = Store("1", index, 5, 10)
        self.stream: Stream | None = None
        self.machine = WatchMachine(Position("a", True, after_index), resync)
        self.foreign = Store("", after_index or 0, 5, 10)  # where an index that was given comes from
        self.heard = self.given = (self.foreign, after_index) if after_index is not None else None
        if after_index is not None and after_index <= index:
            self.heard = self.given = (self.store, after_index)
        self.origin: dict[int, tuple[Store, int]] = {}
        self.kept: list[object] = []
        self.excused: set[tuple[int, int]] = set()

    # --- the driver's part

    def tell(self, what: steps.Happening, seen: tuple[Store, int] | None = None) -> None:
        machine, position = self.machine, self.machine.position
        before, pending, cursor = list(position.pending), len(position.pending), machine.position.cursor
        machine.happened(what)
        assert position.pending[:pending] == before
        if not machine.keeps_stream:
            self.stream = None
        new = position.pending[pending:]
        told = [each for each in new if isinstance(each, EventIndexClearedError) or self.is_resync(each)]
        if seen is not None and cursor is None and machine.position.cursor is not None:
            self.heard = self.given = (seen[0], machine.position.cursor)
        elif isinstance(what, steps.Looked) and machine.state is not State.GAP and seen is not None:
            if told:
                self.origin[id(told[0])] = seen
                self.kept.append(told[0])
                if isinstance(told[0], Response):
                    assert told[0].node == seen[0].seen(seen[1])
                elif isinstance(told[0], EventIndexClearedError):
                    assert told[0].index == seen[1]
            elif seen[1] != cursor or self.heard is None or seen[0] is not self.heard[0]:
                self.unseen(seen)
            self.heard = seen
        elif machine.position.cursor != cursor:
            assert not self.movers or isinstance(what, (steps.Heard, steps.Fetched)), f"{what} moved the cursor"
            if self.heard is not None and machine.position.cursor is not None:
                self.heard = (self.heard[0], machine.position.cursor)
        if isinstance(what, (steps.Heard, steps.Fetched, steps.Looked)):
            for each in new:
                if isinstance(each, Response) and each.node is not None and each not in told:
                    self.heard = self.origin[id(each)]

    def unseen(self, seen: tuple[Store, int]) -> None:
        """A look moves the cursor, and nobody is told: what happened in between left no trace."""
        assert self.heard is not None
        store, cursor = self.heard
        assert seen[0].is_after(store), "another past, and nobody is told"
        now, then = seen[0].seen(seen[1]), seen[0].seen(cursor)
        missed = seen[0].ours(cursor, seen[1])
        assert not missed or now == then, f"{missed} are lost, and nobody is told"
        self.excused |= {(id(seen[0]), i) for i in missed}

    @staticmethod
    def is_resync(what: object) -> bool:
        return isinstance(what, Response) and what.action == "resync"

    def contact(self) -> None:
        """The client hears of the store: whether it can be told from the one before."""
        store, who = self.store, self.identity
        raft = store.index + store.ahead
        newer = store.index >= who.high_water_mark and raft >= who._raft_index and store.term >= who._raft_term
        if (
            self.heard is not None
            and not self.machine.registered
            and store.index >= self.heard[1]
            and not store.is_after(self.heard[0])
        ):
            store.before = self.heard[0]  # an index that was given may be of this one
        if store is not self.known and store.cluster == self.known.cluster and newer and store.before is None:
            store.before = self.known
        if newer or store.cluster != self.known.cluster:
            self.known = store
        who.cluster = store.cluster

    def registered(self, since: int | None, lag: int) -> steps.Happening:
        store = self.store
        index = max(min(store.past), store.index - lag)
        if since is not None and since < index - WINDOW:
            return steps.Cleared(outdated(""))
        self.contact()
        doubtful = self.identity.doubts(index, index + store.ahead, store.term)
        self.identity.reached(index, index + store.ahead, store.term)
        self.stream = Stream(store, index, since)
        return steps.Registered(index, since, store.cluster, self.identity.life, doubtful)

    def note(self, store: Store, events: list[Response]) -> list[Response]:
        for event in events:
            assert event.node is not None
            self.origin[id(event)] = (store, event.node.modified_index)
            self.identity.reached(event.node.modified_index)
        return events

    def answer(self, lag: int, quorum: bool) -> tuple[int, Response]:
        """A plain read, or one with quorum."""
        self.contact()

        async def call(request: Any) -> Response:
            late = 0 if "quorum" in request.target else lag
            store = self.store
            index = max(min(store.past), store.index - late)
            return Response("get", store.seen(index), None, index, index + store.ahead, store.term)

        request = requests.read("/v2/keys/a", True, False, quorum)
        if quorum:
            marks = self.identity._marks()
            response = run(call(request))
            self.identity._judge(marks, response.index, response.raft_index, response.raft_term)
        else:
            response = run(self.identity.read(call, request))
        return response.index, response

    def step(self, lag: int = 0, most: int = 2) -> bool:
        """Do what the machine says; false where only time can tell."""
        if self.stream is not None and self.stream.store is not self.store:
            self.tell(steps.Over(LOST))
            return True
        todo, store = self.machine.todo, self.store
        match todo:
            case steps.Open():
                what = self.registered(todo.since, lag)
                seen = (store, what.index) if isinstance(what, steps.Registered) else None
                self.tell(what, seen)
            case steps.Read():
                assert self.stream is not None
                events = self.note(self.stream.store, self.stream.read(most))
                if not events and todo.patience is not steps.Patience.HUSHED:
                    return False
                self.tell(steps.Heard(events) if events else steps.Over(None))
            case steps.Fetch():
                index = store.index - lag
                history = store.ours(todo.after, index)
                if todo.after < index - WINDOW:
                    self.tell(steps.Cleared(outdated("")))
                elif history:
                    self.tell(steps.Fetched(*self.note(store, [store.events[history[0]]])))
                else:
                    self.tell(steps.NothingFetched())
            case steps.Ask():
                index, _ = self.answer(0, True)
                self.tell(steps.Answered(index, self.identity.life))
            case steps.Look():
                index, response = self.answer(lag, todo.quorum)
                self.tell(steps.Looked(index, Subtree(response.node, True)), (store, index))
            case steps.Pause():
                self.tell(steps.Woke())
        return True

    # --- what may happen

    def do(self, op: str, n: int) -> None:
        machine, store = self.machine, self.store
        if op in ("write", "delete"):
            store.write(("/a/x", "/a/y", "/b", "/a/x", "/a/z", "/b", "/c", "/a/y")[n], op == "delete")
        elif op in ("wipe", "leave"):
            term, ahead = (1, 5, 9)[n % 3], (10, 10, 10, 40)[n % 4]
            cluster = store.cluster if op == "wipe" else f"{int(store.cluster) + 1}"
            self.store = Store(cluster, 2 if n < 4 else store.index + n, term, ahead)
            if op == "leave":
                self.identity.forget()
        elif op == "step":
            self.step(most=n + 1)
        elif op == "lag":
            self.step(lag=n)
        elif op == "fail":
            if not isinstance(machine.todo, (steps.Read, steps.Pause)):
                self.tell(steps.Failed(UNREACHABLE) if n % 4 else steps.Refused(UNREACHABLE))
        elif op == "cut" and self.stream is not None:
            if machine.streams and n % 2 and (events := self.stream.read(n)):
                self.tell(steps.Heard(self.note(self.stream.store, events)))
            if self.stream is not None:
                self.tell(steps.Over(LOST, n / 4))
        elif op == "drop" and self.stream is not None:
            left = self.stream.left()
            if self.stream.sent + len(left) >= BUFFER and self.stream.until is None:
                self.stream.until = left[max(BUFFER - self.stream.sent, 1) - 1] if left else self.stream.at
        elif op == "late":
            self.late()
        elif op == "take":
            self.take(n)
        elif op == "rest":
            self.tell(steps.Released())
        elif op == "renew" and machine.streams and self.stream and self.stream.store is store:
            self.tell(self.registered(machine.position.cursor, n % 3))
        elif op == "hear" and machine.state is State.GAP and self.stream is not None:
            self.tell(steps.Heard(self.note(self.stream.store, self.stream.read(n))))

    def late(self) -> None:
        """An event arrives while a look is under way that was made before it."""
        todo = self.machine.todo
        if isinstance(todo, steps.Look) and self.stream is not None and self.stream.store is self.store:
            index, response = self.answer(0, todo.quorum)
            self.store.write("/a/x")
            self.tell(steps.Heard(self.note(self.store, self.stream.read(9))))
            self.tell(steps.Looked(index, Subtree(response.node, True)), (self.store, index))

    def take(self, most: int) -> None:
        while self.machine.position.has_event and most:
            most -= 1
            try:
                event = self.machine.position.pop()
            except EventIndexClearedError as error:
                self.given = self.origin[id(error)]
                continue
            except EtcdError:
                continue
            where = self.origin[id(event)]
            if not self.is_resync(event):
                assert self.given is not None
                self.follows(self.given, where)
            self.given = where
        index = self.machine.position.index
        if (
            index is not None
            and self.given is not None
            and not self.machine.position.has_event
            and self.heard is not None
            and self.heard[0].is_after(self.given[0])
        ):
            missed = self.missed(self.heard[0], self.given[1], index)
            assert not missed, f"{missed} are lost for whoever goes on after {index}"
            self.given = (self.heard[0], max(self.given[1], index))

    def missed(self, store: Store, after: int, until: int) -> list[int]:
        return [i for i in store.ours(after, until) if (id(store), i) not in self.excused]

    def follows(self, before: tuple[Store, int], after: tuple[Store, int]) -> None:
        assert after[0].is_after(before[0]), "an event of another past, and nobody was told"
        assert after[1] > before[1], "an event came twice, or out of order"
        assert self.missed(after[0], before[1], after[1] - 1) == []

    def settle(self) -> None:
        """The faults stop."""
        for _ in range(ENOUGH):
            if not self.step(most=9):
                break
        else:
            raise AssertionError("it does not come to rest")
        self.take(999)
        if self.given is None:
            return
        assert self.store.is_after(self.given[0]), "it believes another past"
        assert not self.missed(self.store, self.given[1], self.store.index), "silence"


def run(work: Coroutine[Any, Any, Response]) -> Response:
    """What comes of work that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        response: Response = end.value
        return response
    raise AssertionError("it waits")


def play(case: Case, movers: bool = True) -> None:
    resync, after_index, index, ops = case
    world = World(resync, after_index, index, movers)
    for op, n in ops:
        world.do(op, n)
    world.settle()


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "SERVER_BUFFER", BUFFER)


QUIET = list(HealthCheck)


@pytest.mark.slow
@given(CASES)
@settings(
    max_examples=EXAMPLES or 600,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=QUIET,
)
def test_what_is_lost_is_told_and_all_else_arrives(case: Case) -> None:
    play(case)


# --- each rule is needed ----------------------------------------------------------------------------------------------


def no_rule_a(patch: pytest.MonkeyPatch) -> None:
    """A stream that ended moves the cursor to its header's index."""
    for happening in ("_over", "_over_at_once"):
        real = getattr(WatchMachine, happening)

        def over(self: WatchMachine, what: steps.Over, real: Any = real) -> None:
            if self._stream is not None and self.state is State.STREAMING:
                self.position.cursor = max(self.position.reached, self._stream.index)
            real(self, what)

        replace(patch, real, over)


def no_rule_b(patch: pytest.MonkeyPatch) -> None:
    """A registration below the cursor, or a doubtful one, is accepted."""
    real = WatchMachine._registered

    def registered(self: WatchMachine, stream: steps.Registered) -> None:
        real(self, stream)
        if self.state is State.DOUBTING:
            self._accept(stream)

    replace(patch, real, registered)


def no_rule_c(patch: pytest.MonkeyPatch) -> None:
    """Another life or cluster is none."""
    patch.setattr(Past, "elsewhere", lambda self, *of: None)


def no_rule_f(patch: pytest.MonkeyPatch) -> None:
    """An event of history does not lead to catching up."""
    patch.setattr(hearing.Hearing, "is_history", False)


def no_rule_g(patch: pytest.MonkeyPatch) -> None:
    """What was held while a gap's look was awaited is dropped."""
    real = WatchMachine._settle

    def settle(self: WatchMachine, stream: hearing.Hearing) -> None:
        stream.held.clear()
        real(self, stream)

    patch.setattr(WatchMachine, "_settle", settle)


def no_rule_h(patch: pytest.MonkeyPatch) -> None:
    """An index to begin after is believed, though the cluster has not come that far."""
    real = WatchMachine._registered

    def registered(self: WatchMachine, stream: steps.Registered) -> None:
        real(self, stream)
        if self.state is State.DOUBTING and not self.registered:
            self._accept(stream)

    replace(patch, real, registered)


def replace(patch: pytest.MonkeyPatch, real: Any, other: Any) -> None:
    """Put a function in another one's place, in the table, too."""
    for where, what in WatchMachine.TABLE.items():
        if what is real:
            patch.setitem(WatchMachine.TABLE, where, other)
    patch.setattr(WatchMachine, real.__name__, other)


STEP, WRITE = ("step", 0), ("write", 0)

NEEDED: list[tuple[Callable[[pytest.MonkeyPatch], None], Case]] = [
    (no_rule_a, (False, None, 9, [STEP, ("cut", 0), STEP, WRITE, STEP, ("cut", 0)])),
    (no_rule_b, (False, 3, 2, [])),
    (no_rule_c, (False, None, 2, [STEP, ("leave", 0)])),
    (no_rule_f, (False, 9, 9, [WRITE, WRITE])),
    (no_rule_g, (False, 2, 9, [STEP, STEP, ("late", 0)])),
    (no_rule_h, (False, 3, 2, [])),
]


@pytest.mark.parametrize(("without", "case"), NEEDED, ids=[rule.__name__[-1] for rule, _ in NEEDED])
def test_without_a_rule_something_is_lost(
    without: Callable[[pytest.MonkeyPatch], None], case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(case)
    without(monkeypatch)
    with pytest.raises(AssertionError):
        play(case, movers=False)


def test_an_index_below_what_was_seen_is_doubted_though_it_is_not_below_the_cursor() -> None:
    play((False, 9, 2, [WRITE, WRITE, ("wipe", 6), STEP, ("wipe", 0), ("wipe", 7)]))
