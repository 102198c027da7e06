"""A live copy of a subtree: it is what the cluster has, its changes are told each once, and silence is never hidden."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import logging
import math
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    NotDirError,
    Response,
    TreeBehindError,
    TreeStaleError,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2.recipes import Change, Tree, _age
from aioetcd2.recipes import tree as tree_module
from aioetcd2.recipes._changes import Changes
from aioetcd2.recipes._copy import Copy, files_of
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy
from .misbehaver import Misbehaver, answer, key_event, raw, wait, wait_header

AWHILE = 15.0
HISTORY = 1000
LATER = datetime(2030, 1, 1, tzinfo=timezone.utc)
UNREACHABLE = ClusterError("GET /v2/keys/d", [ConnectError("http://a:1", "refused")])
REFUSED = UnauthorizedError(110, "The request requires user authentication", status=401)


def file(key: str, value: str = "v", index: int = 1, created: int = 0) -> Node:
    return Node(key, value, created_index=created or index, modified_index=index)


def directory(*nodes: Node, key: str = "/d") -> Node:
    return Node(key, dir=True, nodes=nodes)


def happened(node: Node, action: Any = "set") -> Response:
    return Response(action, node)


def gone(key: str, index: int, action: Any = "delete") -> Response:
    return Response(action, Node(key, created_index=1, modified_index=index))


def resync(index: int, node: Node | None) -> Response:
    return Response("resync", node, index=index)


def values(nodes: Any) -> dict[str, str | None]:
    return {key: node.value for key, node in nodes.items()}


async def soon(changes: AsyncIterator[Change]) -> Change:
    async with timeout(AWHILE):
        return await changes.__anext__()


async def take(changes: AsyncIterator[Change], number: int) -> list[Change]:
    return [await soon(changes) for _ in range(number)]


def ready(changes: AsyncIterator[Change]) -> list[Change]:
    """What a reader gets without waiting."""
    found = []
    while True:
        step = changes.__anext__()
        try:
            step.send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            found.append(done.value)
        except StopAsyncIteration:
            return found
        else:
            step.close()  # type: ignore[attr-defined]
            return found


async def until(condition: Callable[[], bool], seconds: float = AWHILE) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def reach(tree: Tree, response: Response) -> None:
    async with timeout(AWHILE):
        await tree.reach(response.index)


# --- the files, and what an event changes in them; no I/O -----------------------------------------------------------


def copy_of(*nodes: Node) -> Copy:
    return Copy(nodes)


def value_of(node: Node | None) -> str | None:
    return None if node is None else node.value


def told(changes: list[Change]) -> list[tuple[str, str | None, str | None, int]]:
    return [(change.key, value_of(change.before), value_of(change.after), change.index) for change in changes]


def test_files_come_change_and_go() -> None:
    files = copy_of(file("/d/b"), file("/d/a"))
    assert files.keys == ["/d/a", "/d/b"]
    assert told(files.take(happened(file("/d/aa", "1", 5)))) == [("/d/aa", None, "1", 5)]
    assert files.keys == ["/d/a", "/d/aa", "/d/b"]
    assert told(files.take(happened(file("/d/a", "2", 6), "compareAndSwap"))) == [("/d/a", "v", "2", 6)]
    assert told(files.take(gone("/d/b", 7, "compareAndDelete"))) == [("/d/b", "v", None, 7)]
    assert told(files.take(gone("/d/a", 8, "expire"))) == [("/d/a", "2", None, 8)]
    assert files.keys == list(files.files) == ["/d/aa"]


def test_the_end_of_a_file_ends_nothing_below_it() -> None:
    """In v2 there is nothing; v3 can have a key and others below it."""
    files = copy_of(file("/d/a"), file("/d/a/b"))
    assert told(files.take(gone("/d/a", 9))) == [("/d/a", "v", None, 9)]
    assert files.keys == ["/d/a/b"]


@pytest.mark.parametrize("action", ["delete", "expire"])
@pytest.mark.parametrize("says_dir", [True, False], ids=["dir", "as before etcd 3.2"])
def test_the_end_of_a_directory_is_one_change_for_each_file(action: Any, says_dir: bool) -> None:
    files = copy_of(*map(file, ["/d/a/x", "/d/a/y/z", "/d/a-b", "/d/a0", "/d/ab", "/d/b"]))
    event = Response(action, Node("/d/a", dir=says_dir, modified_index=9))
    assert told(files.take(event)) == [("/d/a/x", "v", None, 9), ("/d/a/y/z", "v", None, 9)]
    assert files.keys == sorted(files.files) == ["/d/a-b", "/d/a0", "/d/ab", "/d/b"]


def test_the_end_of_a_directory_above_ends_all() -> None:
    files = copy_of(*map(file, ["/a/d/x", "/a/d/y"]))
    assert [change.key for change in files.take(gone("/a", 9))] == ["/a/d/x", "/a/d/y"]
    assert not files.files


def test_a_directory_in_the_place_of_a_file_ends_it() -> None:
    files = copy_of(file("/d/a"), file("/d/b/c"))
    assert told(files.take(Response("set", Node("/d/a", dir=True, modified_index=9)))) == [("/d/a", "v", None, 9)]
    for key in ("/d/new", "/d/b"):  # made; and one whose TTL is updated keeps what is in it
        assert files.take(Response("update", Node(key, dir=True, modified_index=10))) == []
    assert files.keys == ["/d/b/c"]


def test_nodes_have_no_ttl_and_share_the_text_of_their_key() -> None:
    mortal = Node("/d/a", "v", ttl=5, expiration=LATER, created_index=3, modified_index=4)
    files = copy_of(mortal, file("/d/b"))
    assert files.files["/d/a"] == file("/d/a", "v", 4, 3)
    again = Node("".join(["/d", "/b"]), "w", ttl=5, expiration=LATER, created_index=1, modified_index=9)
    files.take(happened(again))
    node = files.files["/d/b"]
    assert node == file("/d/b", "w", 9, 1)
    assert node.key is files.keys[1]
    assert next(key for key in files.files if key == "/d/b") is node.key


def test_a_difference_names_each_file_that_differs_those_that_are_gone_first() -> None:
    files = copy_of(file("/d/a"), file("/d/b/x"), file("/d/kept"), file("/d/same value"))
    seen = [file("/d/b", "now a file", 20), file("/d/kept"), file("/d/same value", "v", 21), file("/d/a/x", "new", 22)]
    assert told(files.replace(seen, 30)) == [
        ("/d/a", "v", None, 30),
        ("/d/b/x", "v", None, 30),
        ("/d/a/x", None, "new", 30),
        ("/d/b", None, "now a file", 30),
        ("/d/same value", "v", "v", 30),  # it was made anew
    ]
    assert files.keys == sorted(files.files) == ["/d/a/x", "/d/b", "/d/kept", "/d/same value"]
    assert files.replace(seen, 40) == []


def test_a_refresh_is_no_difference() -> None:
    files = copy_of(file("/d/a", "v", 3))
    before = files.files["/d/a"]
    refreshed = Node("/d/a", "v", ttl=9, expiration=LATER, created_index=3, modified_index=17)
    assert files.replace([refreshed], 20) == []
    assert files.files["/d/a"] is before
    assert files.is_as([refreshed])


def test_what_is_the_same() -> None:
    files = copy_of(file("/d/a"), file("/d/b"))
    assert files.is_as([file("/d/b"), file("/d/a")])
    assert not files.is_as([file("/d/a")])
    assert not files.is_as([file("/d/a"), file("/d/b"), file("/d/c")])
    assert not files.is_as([file("/d/a"), file("/d/b", "w")])
    assert not files.is_as([file("/d/a"), file("/d/b", "v", 9)])


def test_what_was_read_is_files() -> None:
    assert list(files_of(None)) == []
    assert list(files_of(file("/d"))) == [file("/d")]
    nested = directory(file("/d/a"), directory(key="/d/empty"), directory(file("/d/s/b"), key="/d/s"))
    assert [node.key for node in files_of(nested)] == ["/d/a", "/d/s/b"]


def test_order_is_kept_whatever_comes() -> None:
    names = ["".join(each) for length in (1, 2, 3) for each in itertools.product("a/0-é😀", repeat=length)]
    files = Copy()
    for number, name in enumerate(names * 2):
        key = f"/d/{name}"
        files.take(gone(key, number + 2) if number % 3 == 2 else happened(file(key, "v", number + 2)))
        assert len(files.keys) == len(files.files)
    assert files.keys == sorted(files.files)
    for above in ("/d", "/d/a", "/d/0", "/d/-/", "/nothing"):
        below = [key for key in files.keys if key.startswith(above.rstrip("/") + "/")]
        assert list(files.walk(above)) == below


# --- a reader of changes --------------------------------------------------------------------------------------------


def change(number: int) -> Change:
    return Change(f"/d/{number}", None, file(f"/d/{number}"), number)


async def test_a_reader_gets_what_comes_before_and_after_it_waits() -> None:
    reader = Changes([change(1)], 10)
    reader.put([change(2), change(3)])
    assert await take(reader, 3) == [change(1), change(2), change(3)]
    waiting = asyncio.create_task(soon(reader))
    await asyncio.sleep(0)
    reader.put([change(4)])
    reader.put([change(5)])
    assert await waiting == change(4)
    assert await soon(reader) == change(5)


async def test_cancelled_readers_lose_nothing() -> None:
    reader = Changes([], 10)
    for number in range(20):
        waiting = asyncio.create_task(soon(reader))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        reader.put([change(number)])
        if number % 3:
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            assert await waiting == change(number)
            continue
        assert await soon(reader) == change(number)


async def test_only_one_task_waits_in_a_reader() -> None:
    reader = Changes([], 10)
    waiting = asyncio.create_task(soon(reader))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"call changes\(\) for each"):
        await reader.__anext__()
    reader.put([change(1)])
    assert await waiting == change(1)


async def test_a_reader_that_is_behind_is_told_and_stays_behind() -> None:
    reader = Changes([change(0), change(9)], 3)
    for number in range(1, 4):
        reader.put([change(number)])
    assert await soon(reader) == change(0)  # no more than the limit: all is well
    reader.put([change(4)])
    for _ in range(2):
        with pytest.raises(TreeBehindError, match=r"more than 3 changes behind; begin anew with changes\(\)"):
            await soon(reader)
    reader.put([change(5)])
    reader.end(None)
    with pytest.raises(TreeBehindError):
        await soon(reader)
    assert not reader._events


async def test_the_changes_of_one_event_leave_nobody_behind() -> None:
    reader = Changes([], 3)
    reader.put([change(number) for number in range(100)])
    reader.put([change(100)])
    assert len(await take(reader, 101)) == 101


# --- how long ago the watch was heard -------------------------------------------------------------------------------


class Clock:
    """Both clocks: that of the watcher, and one that runs on while the machine is suspended."""

    def __init__(self) -> None:
        self.awake = 1000.0
        self.suspended = 500.0
        self.last_heard: float | None = 1000.0

    def monotonic(self) -> float:
        return self.awake

    def now(self) -> float:
        return self.awake + self.suspended


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_age, "time", clock)
    monkeypatch.setattr(_age, "now", clock.now)
    return clock


@pytest.fixture
async def age(clock: Clock) -> AsyncIterator[_age.Age]:
    watcher: Any = clock
    age = _age.Age(watcher)
    yield age
    age.stop()


async def test_age_counts_from_what_was_heard_last(clock: Clock, age: _age.Age) -> None:
    clock.awake += 4
    assert age.seconds == 4
    clock.last_heard = 1003.0
    assert age.seconds == 1
    clock.last_heard = None  # it is not registered
    clock.awake += 10
    assert age.seconds == 11
    clock.last_heard = 1014.0
    assert age.seconds == 0
    assert not age.is_above(5)
    clock.awake += 6
    assert age.is_above(5)
    clock.last_heard = 1019.0
    assert not age.is_above(5)


async def test_a_suspension_counts(clock: Clock, age: _age.Age) -> None:
    clock.suspended += 3600
    assert age.seconds == 3600
    clock.awake += 1
    clock.last_heard = 1001.0
    assert age.seconds == 0
    clock.suspended += 3600  # and what was heard at a time that is not known is taken for heard before it
    clock.last_heard = 1001.5
    clock.awake += 1
    assert age.seconds == 3600.5


async def test_what_was_heard_is_known_though_nobody_asks(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(_age, "EACH", 0.01)
    watcher: Any = clock
    age = _age.Age(watcher)
    clock.awake, clock.last_heard = 1300.0, 1299.0
    await until(lambda: age._known == 1299.0)
    clock.last_heard = None
    assert age.seconds == 1
    age.stop()
    clock.last_heard = 1300.0
    await asyncio.sleep(0.05)
    assert age._known == 1299.0


# --- a tree over a scripted cluster ---------------------------------------------------------------------------------


class Keys:
    """Takes the place of `client.keys`: lists are scripted, the last one comes again; a watch gives what it is fed.

    Args:
        lists: What `get` answers, or raises.
    """

    def __init__(self, *lists: Response | Exception) -> None:
        self.lists = list(lists)
        self.asked: list[tuple[str, int | None]] = []
        self.index = 0
        self.last_heard: float | None = time.monotonic()
        self.coming: asyncio.Queue[Response | Exception] = asyncio.Queue()
        self.enters: Exception | None = None
        self.closed = 0
        self.closes_at_once = False

    async def get(self, key: str, *, recursive: bool) -> Response:
        assert recursive
        self.asked.append((key, None))
        await asyncio.sleep(0)
        found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(found, Exception):
            raise copy.copy(found)
        return found

    def watch(self, key: str, *, recursive: bool, after_index: int, resync: bool) -> Keys:
        assert recursive
        assert resync
        self.asked.append((key, after_index))
        self.index = after_index
        return self

    async def __aenter__(self) -> Keys:
        await asyncio.sleep(0)
        if self.enters is not None:
            raise self.enters
        return self

    async def next(self) -> Response:
        event = await self.coming.get()
        if isinstance(event, Exception):
            raise event
        self.index = event.index if event.action == "resync" else event.modified_index
        return event

    async def aclose(self) -> None:
        self.closed += 1
        if not self.closes_at_once:
            await asyncio.sleep(0)

    def feed(self, *events: Response | Exception) -> None:
        for event in events:
            self.coming.put_nowait(event)


def listed(index: int, *nodes: Node) -> Response:
    return Response("get", directory(*nodes), index=index)


def tree_of(keys: Keys, **options: Any) -> Tree:
    api: Any = keys
    return Tree(api, "/d", **options)


async def test_list_and_watch_join_at_the_index_of_the_list() -> None:
    keys = Keys(listed(41, file("/d/b"), file("/d/a")))
    async with tree_of(keys) as tree:
        assert keys.asked == [("/d", None), ("/d", 41)]
        assert tree.index == 41
        assert list(tree) == ["/d/a", "/d/b"]
        keys.feed(happened(file("/d/c", "w", 42)))
        await tree.reach(42)
        assert values(tree) == {"/d/a": "v", "/d/b": "v", "/d/c": "w"}
    assert keys.closed == 1


async def test_it_is_a_mapping() -> None:
    keys = Keys(listed(41, file("/d/a", ""), file("/d/s/b", "2"), file("/d/s-t", "3"), file("/d/s/t/c", "4")))
    async with tree_of(keys) as tree:
        assert tree["/d/a"] == file("/d/a", "")
        assert (tree.value("/d/a"), tree.value("/d/a", "default"), tree.value("/d/s/b", 7)) == ("", "", "2")
        assert (tree.value("/d/x"), tree.value("/d/x", 7)) == (None, 7)
        assert tree.get("/d/x") is None
        with pytest.raises(KeyError, match="/d/x"):
            tree["/d/x"]
        assert "/d/a" in tree
        assert "/d/s" not in tree
        assert (len(tree), bool(tree)) == (4, True)
        assert list(tree) == list(tree.keys()) == sorted(tree) == ["/d/a", "/d/s-t", "/d/s/b", "/d/s/t/c"]
        assert [node.value for node in tree.values()] == ["", "3", "2", "4"]
        assert tree == dict(tree.items())
        assert repr(tree) == "<Tree of /d: 4 files>"
        assert isinstance(tree._files, dict), "without stale_after, a read is a dictionary's and nothing more"


@pytest.mark.parametrize("name", ["/d/s", "/d/s/", "d//s"])
async def test_below_is_a_live_view(name: str) -> None:
    keys = Keys(listed(41, file("/d/a"), file("/d/s/b"), file("/d/s-t"), file("/d/s0"), file("/d/s/t/c")))
    async with tree_of(keys) as tree:
        below = tree.below(name)
        assert list(below) == ["/d/s/b", "/d/s/t/c"]
        assert (len(below), "/d/s/b" in below, "/d/a" in below) == (2, True, False)
        assert below["/d/s/b"] is tree["/d/s/b"]
        for missing in ("/d/a", "/d/s-t", "/d/s/x"):
            with pytest.raises(KeyError, match=missing):
                below[missing]
        keys.feed(happened(file("/d/s/a", "v", 42)), gone("/d/s/t", 43))
        await tree.reach(43)
        assert list(below) == ["/d/s/a", "/d/s/b"]
        assert (list(tree.below("/")), list(tree.below("/x"))) == (list(tree), [])
        assert repr(below) == "<<Tree of /d: 5 files> below /d/s/>"


@pytest.mark.parametrize("event", [gone("/d/a", 43), happened(file("/d/d", "v", 43))], ids=["go", "come"])
async def test_an_iteration_notices_that_keys_come_and_go(event: Response) -> None:
    keys = Keys(listed(41, file("/d/a"), file("/d/b"), file("/d/c")))
    async with tree_of(keys) as tree:
        iterating = iter(tree)
        assert next(iterating) == "/d/a"
        keys.feed(happened(file("/d/b", "changed", 42)))
        await tree.reach(42)
        assert next(iterating) == "/d/b"
        keys.feed(event)
        await tree.reach(43)
        with pytest.raises(RuntimeError, match="has changed during the iteration"):
            next(iterating)


async def test_changes_begin_with_the_content_or_with_what_comes() -> None:
    keys = Keys(listed(41, file("/d/b"), file("/d/a")))
    async with tree_of(keys) as tree:
        all_, new = tree.changes(), tree.changes(from_now=True)
        keys.feed(happened(file("/d/c", "w", 42)), resync(50, directory(file("/d/a"), file("/d/e", "5", 49))))
        await tree.reach(50)
        coming = [
            ("/d/c", None, "w", 42),
            ("/d/b", "v", None, 50),
            ("/d/c", "w", None, 50),
            ("/d/e", None, "5", 50),
        ]
        assert told(ready(all_)) == [("/d/a", None, "v", 41), ("/d/b", None, "v", 41), *coming]
        assert told(ready(new)) == coming
        assert told(ready(tree.changes())) == [("/d/a", None, "v", 50), ("/d/e", None, "5", 50)]
        assert values(tree) == {"/d/a": "v", "/d/e": "5"}
    for over in (all_, new):
        assert [change async for change in over] == []


async def test_a_reader_behind_does_not_hold_back_the_copy() -> None:
    keys = Keys(listed(41))
    async with tree_of(keys, limit=2) as tree:
        slow, quick = tree.changes(), tree.changes()
        for index in range(42, 60):
            keys.feed(happened(file("/d/a", str(index), index)))
            assert (await soon(quick)).index == index
        with pytest.raises(TreeBehindError):
            await soon(slow)
        assert tree.value("/d/a") == "59"
        assert told(ready(tree.changes())) == [("/d/a", None, "59", 59)]


async def test_a_reader_that_nobody_uses_costs_nothing() -> None:
    keys = Keys(listed(41, file("/d/a")))
    async with tree_of(keys) as tree:
        async for _ in tree.changes():
            break
        kept = tree.changes()
        gone_ = weakref.ref(tree.changes())
        gc.collect()
        assert gone_() is None
        assert list(tree._readers) == [kept]


async def test_a_resync_is_seen_whole_or_not_at_all() -> None:
    keys = Keys(listed(41, *(file(f"/d/{each}") for each in range(100))))
    async with tree_of(keys) as tree:
        before, read = tree._files, tree._files.get
        keys.feed(resync(50, directory(*(file(f"/d/{each}", "w", 45) for each in range(50, 150)))))
        await tree.reach(50)
        assert set(values(tree).values()) == {"w"}
        assert (len(before), read("/d/0")) == (100, file("/d/0"))  # as a reader of another thread has it


@pytest.mark.parametrize("node", [None, directory()], ids=["absent", "empty"])
async def test_a_resync_may_find_nothing(node: Node | None) -> None:
    keys = Keys(listed(41, file("/d/a")))
    async with tree_of(keys) as tree:
        changes = tree.changes(from_now=True)
        keys.feed(resync(50, node))
        await tree.reach(50)
        assert dict(tree) == {}
        assert told(ready(changes)) == [("/d/a", "v", None, 50)]


async def test_a_prefix_that_is_not_there_is_an_empty_tree() -> None:
    keys = Keys(KeyNotFoundError(100, "Key not found", "/d", 41, 404))
    async with tree_of(keys) as tree:
        assert (dict(tree), tree.index) == ({}, 41)
        assert keys.asked[-1] == ("/d", 41)
        keys.feed(happened(file("/d/a", "v", 42)))
        await tree.reach(42)
        assert list(tree) == ["/d/a"]


async def test_a_prefix_that_is_a_file_is_an_error() -> None:
    keys = Keys(Response("get", file("/d"), index=41))
    tree = tree_of(keys)
    with pytest.raises(NotDirError, match=r"104 Not a directory \(/d\) \[index 41\]; a tree is of a directory"):
        await tree.__aenter__()
    keys.lists = [listed(42)]
    async with tree:  # it was removed, and the same tree is entered
        keys.feed(happened(file("/d", "a file after all", 43)))
        await tree.reach(43)
        assert values(tree) == {"/d": "a file after all"}


ENDS = [
    REFUSED,
    V2DisabledError("http://a:1", "3.5.1"),
    ClientClosedError("the client is closed"),
    ClusterMismatchError("http://a:1", "1", "2"),
    RuntimeError("a fault of ours"),
]


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
async def test_what_ends_the_watch_is_told_to_all(error: Exception) -> None:
    keys = Keys(listed(41, file("/d/a")))
    kind = type(error)
    async with tree_of(keys) as tree:
        below, changes, more = tree.below("/d"), tree.changes(from_now=True), tree.changes(from_now=True)
        reaching = asyncio.create_task(tree.reach(99))
        waiting = asyncio.create_task(soon(more))
        await asyncio.sleep(0)
        keys.feed(happened(file("/d/b", "w", 42)), error)
        assert (await waiting).index == 42
        with pytest.raises(kind):
            await asyncio.wait_for(reaching, tree_module.PATIENCE / 2)
        assert told([await soon(changes)]) == [("/d/b", None, "w", 42)]
        for reader in (changes, more):
            for _ in range(2):
                with pytest.raises(kind) as caught:
                    await soon(reader)
        reads: list[Callable[[], Any]] = [
            lambda: tree["/d/a"],
            lambda: tree["/d/missing"],
            lambda: tree.value("/d/a"),
            lambda: tree.get("/d/a"),
            lambda: "/d/a" in tree,
            lambda: len(tree),
            lambda: iter(tree),
            lambda: below["/d/a"],
            lambda: len(below),
            lambda: iter(below),
            lambda: tree.changes(),
        ]
        for read in reads * 3:
            with pytest.raises(kind) as caught:
                read()
            assert caught.value is error
        assert len(caught.traceback) < 8, "each raise has its own traceback"
        with pytest.raises(kind):
            await tree.reach(1)
        assert (tree.index, str(error) in repr(tree)) == (42, True)
        assert tree.age >= 0
    assert keys.closed == 1
    with pytest.raises(kind):
        tree["/d/a"]


async def test_after_its_block_a_tree_is_read_no_more() -> None:
    keys = Keys(listed(41, file("/d/a")))
    async with tree_of(keys) as tree:
        changes = tree.changes()
        reaching = asyncio.create_task(tree.reach(99))
        waiting = asyncio.create_task(list_of(tree.changes(from_now=True)))
        await asyncio.sleep(0)
    ended = "the block of the tree of /d has ended"
    with pytest.raises(ClientClosedError, match=ended):
        await reaching
    assert await waiting == []
    assert told(await list_of(changes)) == [("/d/a", None, "v", 41)]
    for read in (lambda: tree["/d/a"], lambda: len(tree), tree.changes):
        with pytest.raises(ClientClosedError, match=ended):
            read()
    with pytest.raises(ClientClosedError, match=ended):
        await tree.reach(1)
    with pytest.raises(RuntimeError, match="the tree of /d was entered before; make a new one"):
        await tree.__aenter__()


async def list_of(changes: AsyncIterator[Change]) -> list[Change]:
    async with timeout(AWHILE):
        return [change async for change in changes]


async def test_before_its_block_a_tree_is_read_not_yet() -> None:
    tree = tree_of(Keys(listed(41)), stale_after=5)
    reads: list[Callable[[], Any]] = [
        lambda: tree["/d/a"],
        lambda: tree.value("/d/a"),
        lambda: len(tree),
        lambda: list(tree),
        lambda: tree.index,
        lambda: tree.age,
        lambda: tree.changes(),
        lambda: len(tree.below("/d")),
    ]
    for read in reads:
        with pytest.raises(RuntimeError, match="the tree of /d is not entered"):
            read()
    with pytest.raises(RuntimeError, match="is not entered"):
        await tree.reach(1)
    assert "is not entered" in repr(tree)


@pytest.mark.parametrize("failure", [UNREACHABLE, REFUSED], ids=lambda error: type(error).__name__)
async def test_the_first_request_raises(failure: Exception) -> None:
    keys = Keys(failure, listed(41))
    tree = tree_of(keys)
    with pytest.raises(type(failure)):
        await tree.__aenter__()
    keys.enters = failure
    with pytest.raises(type(failure)):
        await tree.__aenter__()
    keys.enters = None
    async with tree:
        with pytest.raises(RuntimeError, match="entered before"):
            await tree.__aenter__()
        assert len(tree) == 0


async def test_stale_reads_raise_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(listed(41, file("/d/a")))
    async with tree_of(keys, stale_after=30) as tree, tree_of(Keys(listed(41, file("/d/a")))) as other:
        clock = Clock()
        monkeypatch.setattr(_age, "time", clock)
        monkeypatch.setattr(_age, "now", clock.now)
        assert tree._age is not None
        tree._age._heard = clock.now()
        keys.last_heard = None
        below, reading = tree.below("/d"), tree.changes()
        clock.awake += 29
        assert (tree.value("/d/a"), len(tree), list(tree), len(below)) == ("v", 1, ["/d/a"], 1)
        clock.awake += 2
        assert tree.age == 31
        reads: list[Callable[[], Any]] = [
            lambda: tree["/d/a"],
            lambda: tree["/d/missing"],
            lambda: tree.value("/d/a"),
            lambda: "/d/a" in tree,
            lambda: len(tree),
            lambda: iter(tree),
            lambda: below["/d/a"],
            lambda: len(below),
            lambda: iter(below),
        ]
        for read in reads:
            with pytest.raises(TreeStaleError, match=r"the copy of /d is 31\.0 s old, more than 30 s") as caught:
                read()
            assert caught.value.age == 31
        assert told(ready(reading)) == [("/d/a", None, "v", 41)]
        assert other["/d/a"].value == "v"
        keys.last_heard = clock.awake
        keys.feed(happened(file("/d/a", "w", 42)))
        await tree.reach(42)
        assert tree.value("/d/a") == "w"


# --- reach


async def test_reach_waits_for_the_event() -> None:
    keys = Keys(listed(41))
    async with tree_of(keys) as tree:
        for index in (-1, 0, 41):
            await asyncio.wait_for(tree.reach(index), 0.01)
        reaching = [asyncio.create_task(tree.reach(index)) for index in (42, 43, 44)]
        keys.feed(happened(file("/d/a", "v", 43)))
        await asyncio.wait(reaching[:2])
        await asyncio.sleep(0)
        assert [task.done() for task in reaching] == [True, True, False]
        reaching[2].cancel()
        with suppress(asyncio.CancelledError):
            await reaching[2]
        assert tree._waiting == {}
        assert len(keys.asked) == 2, "no more than the list and the watch"


async def test_reach_of_what_makes_no_event_here_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "PATIENCE", 0.01)
    keys = Keys(listed(41, file("/d/a")), UNREACHABLE, listed(49, file("/d/a")), listed(50, file("/d/a", "v", 50, 1)))
    async with tree_of(keys) as tree:
        changes = tree.changes(from_now=True)
        async with timeout(AWHILE):
            await asyncio.gather(*(tree.reach(50) for _ in range(20)))
        assert [what for what in keys.asked if what[1] is None] == [("/d", None)] * 4, "one look for all"
        assert tree.index == 50
        keys.feed(happened(file("/d/b", "w", 44)), gone("/d/b", 45), happened(file("/d/c", "x", 51)))
        await tree.reach(51)
        assert told(ready(changes)) == [("/d/c", None, "x", 51)], "what left no trace in the look is not shown after it"
        keys.feed(resync(30, directory(file("/d/a"))), happened(file("/d/d", "y", 31)))  # the store has begun anew
        await until(lambda: "/d/d" in tree)
        assert tree.index == 31


async def test_reach_does_not_believe_a_look_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "PATIENCE", 0.01)
    keys = Keys(listed(41), listed(50, file("/d/a", "v", 50)))
    async with tree_of(keys) as tree:
        reaching = asyncio.create_task(tree.reach(50))
        await until(lambda: len(keys.asked) > 4)
        assert not reaching.done()
        keys.feed(happened(file("/d/a", "v", 50)))
        await asyncio.wait_for(reaching, AWHILE)
        assert tree.index == 50


async def test_reach_raises_what_a_look_is_refused_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "PATIENCE", 0.01)
    async with tree_of(Keys(listed(41), REFUSED)) as tree:
        with pytest.raises(UnauthorizedError):
            await asyncio.wait_for(tree.reach(50), AWHILE)


# --- bad arguments


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"limit": 0}, ValueError, "limit is at least 1, not 0"),
        ({"limit": "9"}, TypeError, "limit is an int, not str"),
        ({"limit": True}, TypeError, "limit is an int, not bool"),
        ({"stale_after": 0}, ValueError, "stale_after is above 0 seconds, not 0"),
        ({"stale_after": -1.5}, ValueError, "stale_after is above 0 seconds"),
        ({"stale_after": math.nan}, ValueError, "stale_after is above 0 seconds, not nan"),
        ({"stale_after": "9"}, TypeError, "stale_after is a number of seconds, not str"),
        ({"stale_after": True}, TypeError, "stale_after is a number of seconds, not bool"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        tree_of(Keys(listed(41)), **options)


@pytest.mark.parametrize("prefix", ["/a/../b", 5, "\ud800"], ids=repr)
async def test_bad_prefixes_are_refused_before_anything_is_sent(prefix: Any) -> None:
    async with Misbehaver(answer()) as server, Client(server.endpoint) as client:
        with pytest.raises((TypeError, ValueError)):
            await Tree(client.keys, prefix).__aenter__()
    assert server.seen == []


@pytest.mark.parametrize("index", ["5", 1.0, None, True], ids=repr)
async def test_bad_indexes(index: Any) -> None:
    async with tree_of(Keys(listed(41))) as tree:
        with pytest.raises(TypeError, match="index is an int, not"):
            await tree.reach(index)


# --- cancellation


async def test_the_end_of_the_block_leaves_nothing() -> None:
    keys = Keys(listed(41, file("/d/a")))
    keys.closes_at_once = True
    async with tree_of(keys) as tree:
        assert tree._age is not None
        assert tree._age._timer is not None
        assert len(asyncio.all_tasks()) == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert tree._age._timer is None


@pytest.mark.parametrize("closes_at_once", [True, False])
async def test_cancelled_at_any_step_it_leaves_nothing(closes_at_once: bool) -> None:
    for steps in range(25):
        keys = Keys(listed(41, file("/d/a")))
        keys.closes_at_once = closes_at_once

        async def live(keys: Keys = keys) -> None:
            async with tree_of(keys) as tree:
                keys.feed(happened(file("/d/b", "v", 42)))
                await tree.reach(42)
                async for change in tree.changes():
                    if change.key == "/d/b":
                        break

        living = asyncio.create_task(live())
        for _ in range(steps):
            await asyncio.sleep(0)
        living.cancel()
        with suppress(asyncio.CancelledError):
            await living
        assert asyncio.all_tasks() == {asyncio.current_task()}, f"cancelled after {steps} steps"
        entered = ("/d", 41) in keys.asked and keys.closed == 0
        assert not entered or steps < 4, "the watch is left"
    assert living.done()
    assert not living.cancelled()


async def test_cancelled_at_any_step_the_server_has_no_watch(client: Client, prefix: str) -> None:
    await client.keys.set(f"{prefix}/a", "v")
    before = (await client.stats.store()).watchers
    for steps in range(60):

        async def live() -> None:
            async with Tree(client.keys, prefix) as tree:
                await soon(tree.changes())

        living = asyncio.create_task(live())
        for _ in range(steps):
            await asyncio.sleep(0)
        living.cancel()
        with suppress(asyncio.CancelledError):
            await living
    async with timeout(AWHILE):
        while (await client.stats.store()).watchers > before:
            await asyncio.sleep(0.01)


# --- a real etcd ----------------------------------------------------------------------------------------------------


async def quorum(keys: KeysAPI, prefix: str) -> dict[str, tuple[str | None, int]]:
    """What the cluster has: value and `created_index` of each file."""
    try:
        now = await keys.get(prefix, recursive=True, quorum=True)
    except KeyNotFoundError:
        return {}
    return {node.key: (node.value, node.created_index) for node in files_of(now.node)}


def content(tree: Tree) -> dict[str, tuple[str | None, int]]:
    return {key: (node.value, node.created_index) for key, node in tree.items()}


async def test_it_is_what_the_cluster_has(client: Client, prefix: str) -> None:
    keys = client.keys
    await keys.set(f"{prefix}/a", "1", ttl=1000)
    await keys.set(f"{prefix}/d/b", "2")
    async with Tree(keys, prefix) as tree:
        replayed: dict[str, Node] = {}
        changes = tree.changes()
        writes = [
            keys.set(f"{prefix}/a", "3"),
            keys.create(f"{prefix}/c", "4", ttl=1000),
            keys.update(f"{prefix}/c", "5"),
            keys.set(f"{prefix}/c", "6", prev_value="5"),
            keys.create_in_order(f"{prefix}/queue", "7"),
            keys.mkdir(f"{prefix}/empty"),
            keys.mkdir(f"{prefix}/a", prev_exist=None),
            keys.set(f"{prefix}/a/now/a/directory", ""),
            keys.set(f"{prefix}/e", "8"),
            keys.delete(f"{prefix}/e", prev_value="8"),
            keys.set(f"{prefix}/_hidden/f", "9"),
            keys.set(f"{prefix}/d/_hidden", "10"),
            keys.set(f"{prefix}-sibling/d", "11"),
            keys.delete(f"{prefix}/d", recursive=True),
            keys.set(f"{prefix}/d", "a file"),
        ]
        for write in writes:
            response = await write
            if "_hidden" not in response.key and "sibling" not in response.key:
                await reach(tree, response)
                assert tree.index >= response.index
            assert content(tree) == await quorum(keys, prefix)
            assert {(node.ttl, node.expiration) for node in tree.values()} <= {(None, None)}
            for each in ready(changes):
                assert replayed.get(each.key) == each.before
                if each.after is None:
                    del replayed[each.key]
                else:
                    replayed[each.key] = each.after
            assert replayed == dict(tree)
        assert len(tree) == 4


@pytest.mark.parametrize("what", ["below", "the prefix", "above"])
async def test_the_end_of_a_directory(what: str, client: Client, prefix: str) -> None:
    key = f"{prefix}/a/b"
    await client.keys.set(f"{key}/c/x", "1")
    await client.keys.set(f"{key}/c/y", "2")
    async with Tree(client.keys, key) as tree:
        changes = tree.changes(from_now=True)
        ended = {"below": f"{key}/c", "the prefix": key, "above": prefix}[what]
        response = await client.keys.delete(ended, recursive=True)
        await reach(tree, response)
        assert dict(tree) == {}
        assert told(ready(changes)) == [
            (f"{key}/c/x", "1", None, response.index),
            (f"{key}/c/y", "2", None, response.index),
        ]
        await reach(tree, await client.keys.set(f"{key}/again", "3"))
        assert values(tree) == {f"{key}/again": "3"}


async def test_what_expires(client: Client, prefix: str) -> None:
    await client.keys.mkdir(f"{prefix}/dir", ttl=1)
    for name in ("dir/a", "dir/s/b", "kept"):
        await client.keys.set(f"{prefix}/{name}", "v")
    await client.keys.set(f"{prefix}/file", "v", ttl=1)
    await client.keys.set(f"{prefix}/refreshed", "v", ttl=1)
    async with Tree(client.keys, prefix) as tree:
        before = tree[f"{prefix}/refreshed"]
        changes = tree.changes(from_now=True)
        await client.keys.refresh(f"{prefix}/refreshed", 1000)
        await until(lambda: len(tree) == 2)
        assert values(tree) == {f"{prefix}/kept": "v", f"{prefix}/refreshed": "v"}
        gone = [(each.key, each.after) for each in ready(changes)]
        assert sorted(gone) == [(f"{prefix}/{name}", None) for name in ("dir/a", "dir/s/b", "file")]
        assert tree[f"{prefix}/refreshed"] is before


@pytest.mark.parametrize("prefix_of", ["{}/_hidden", "{}/_hidden/x", "/_hidden{}", "{}/a b/?wait=true/é#%2F😀"])
async def test_prefixes_of_any_kind(prefix_of: str, client: Client, prefix: str) -> None:
    place = prefix_of.format(prefix)
    await client.keys.set(f"{place}/_more/hidden", "v")
    async with Tree(client.keys, place) as tree:
        assert dict(tree) == {}
        for name in ("a", "a b", "?wait=true", "%2F", "100%", "+;&=", "...", "\\", "é\u2028", "😀", "<\0\r\n>", "d/e"):
            await client.keys.set(f"{place}/_hidden/{name}", "v")
            await reach(tree, await client.keys.set(f"{place}/{name}", name))
            assert tree[f"{place}/{name}"].value == name
        assert content(tree) == await quorum(client.keys, place)
        async with Tree(client.keys, f"/{place}//") as again:
            assert dict(again) == dict(tree)
        await reach(tree, await client.keys.delete(place, recursive=True))
        assert dict(tree) == {}


@pytest.mark.etcd
async def test_everything(prefix: str) -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        await client.keys.set("/a", "1")
        await client.keys.set("/_hidden/b", "2")
        async with Tree(client.keys, "/") as tree:
            assert values(tree) == {"/a": "1"}
            await reach(tree, await client.keys.set("/d/c", "3"))
            await reach(tree, await client.keys.delete("/a"))
            assert values(tree) == values(tree.below("/")) == {"/d/c": "3"}


async def test_keys_within_a_prefix_of_their_own(client: Client, prefix: str) -> None:
    keys = KeysAPI(client, f"/v2/keys{prefix}")
    async with Tree(keys, "/config") as tree:
        await reach(tree, await keys.set("/config/a", "1"))
        await reach(tree, await keys.set("/config/d/b", "2"))
        assert values(tree) == {f"{prefix}/config/a": "1", f"{prefix}/config/d/b": "2"}
        await reach(tree, await keys.delete("/config", recursive=True))
        await reach(tree, await keys.set("/config", "file"))
        assert values(tree) == {f"{prefix}/config": "file"}
        with pytest.raises(NotDirError):
            await Tree(keys, "/config").__aenter__()
        with pytest.raises(NotDirError):
            await Tree(keys, "/config/below/a/file").__aenter__()


async def test_deep_trees(client: Client, prefix: str) -> None:
    deep = "/".join("d" * 400)
    await client.keys.set(f"{prefix}/{deep}/a", "1")
    async with Tree(client.keys, prefix) as tree:
        assert tree.value(f"{prefix}/{deep}/a") == "1"
        await reach(tree, await client.keys.set(f"{prefix}/{deep}/e/b", "2"))
        assert len(tree.below(f"{prefix}/{deep}")) == 2
        await reach(tree, await client.keys.delete(f"{prefix}/d", recursive=True))
        assert dict(tree) == {}


async def test_many_writers_and_readers(client: Client, prefix: str) -> None:
    async with Tree(client.keys, prefix) as tree:
        readers = [tree.changes(from_now=each % 2 == 0) for each in range(4)]

        async def write(number: int) -> int:
            last = 0
            for each in range(40):
                key = f"{prefix}/{(number + each) % 7}"
                with suppress(KeyNotFoundError):
                    write = client.keys.delete(key) if each % 4 == 3 else client.keys.set(key, f"{number}-{each}")
                    last = (await write).index
            return last

        last = max(await asyncio.gather(*map(write, range(10))))
        async with timeout(AWHILE):
            await tree.reach(last)
        assert content(tree) == await quorum(client.keys, prefix)
        first, *others = [ready(reader) for reader in readers]
        assert all(other == first for other in others)
        indexes = [each.index for each in first]
        assert len(set(indexes)) == len(indexes)
        assert indexes == sorted(indexes)
        state: dict[str, Node] = {}
        for each in first:
            assert state.get(each.key) == each.before
            state[each.key] = each.after or file("/gone")
            if each.after is None:
                del state[each.key]
        assert state == dict(tree)


# --- away


async def write_elsewhere(client: Client, prefix: str, number: int = HISTORY + 100) -> None:
    """Push everything that was out of the server's history."""
    for start in range(0, number, 100):
        await asyncio.gather(*(client.keys.set(f"{prefix}-else/{start + each}", "x") for each in range(100)))


@asynccontextmanager
async def behind_a_proxy(server: EtcdServer, prefix: str, **options: Any) -> AsyncIterator[tuple[FaultProxy, Tree]]:
    async with (
        FaultProxy(server.endpoint) as proxy,
        Client(proxy.endpoint) as client,
        Tree(client.keys, prefix, **options) as tree,
    ):
        yield proxy, tree


async def test_lost_events_are_a_difference(server: EtcdServer, client: Client, prefix: str) -> None:
    for name in ("gone", "changed", "kept", "refreshed", "dir/a", "file"):
        await client.keys.set(f"{prefix}/{name}", "1", ttl=1000)
    async with behind_a_proxy(server, prefix) as (proxy, tree):
        changes = tree.changes(from_now=True)
        await proxy.refuse()
        proxy.cut()
        await client.keys.delete(f"{prefix}/gone")
        await client.keys.set(f"{prefix}/changed", "2")
        await client.keys.set(f"{prefix}/changed", "3")
        await client.keys.refresh(f"{prefix}/refreshed", 1000)
        await client.keys.delete(f"{prefix}/dir", recursive=True)
        await client.keys.set(f"{prefix}/dir", "a file")
        await client.keys.mkdir(f"{prefix}/file", prev_exist=None)
        await client.keys.set(f"{prefix}/file/b", "4")
        await write_elsewhere(client, prefix)
        assert tree.value(f"{prefix}/gone") == "1"
        await proxy.resume()
        await until(lambda: f"{prefix}/gone" not in tree)
        assert content(tree) == await quorum(client.keys, prefix)
        first = ready(changes)
        names = [(each.key.removeprefix(f"{prefix}/"), each.before and each.before.value) for each in first]
        assert names == [
            *[("dir/a", "1"), ("file", "1"), ("gone", "1")],
            *[("changed", "1"), ("dir", None), ("file/b", None)],
        ]
        assert {each.index for each in first} == {tree.index}
        await reach(tree, await client.keys.set(f"{prefix}/after", "5"))
        assert [each.key for each in ready(changes)] == [f"{prefix}/after"]


@pytest.mark.etcd
async def test_while_the_cluster_is_away_the_copy_stays_and_ages(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    async with EtcdServer() as server, Client(server.endpoints, probe_interval=0.2) as client:
        await client.keys.set(f"{prefix}/a", "1")
        async with Tree(client.keys, prefix) as tree, Tree(client.keys, prefix, stale_after=1.4) as strict:
            changes = tree.changes(from_now=True)
            await asyncio.sleep(1.5)
            assert strict.value(f"{prefix}/a") == "1", "a quiet cluster is heard"
            await server.kill()
            reaching = asyncio.create_task(tree.reach(tree.index + 1))
            await until(lambda: tree.age > 2)
            assert tree.value(f"{prefix}/a") == "1"
            with pytest.raises(TreeStaleError):
                strict[f"{prefix}/a"]
            await server.start()
            await until(lambda: max(tree.age, strict.age) < 0.5)
            assert strict.value(f"{prefix}/a") == "1"
            written = await client.keys.set(f"{prefix}/a", "2")
            await reach(tree, written)
            async with timeout(AWHILE):
                await reaching
            assert [each.index for each in ready(changes)] == [written.index]
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert warnings[0].startswith("watches are interrupted")


@pytest.mark.etcd
async def test_a_store_that_begins_anew_is_a_difference(prefix: str) -> None:
    async with EtcdServer() as server, Client(server.endpoints, probe_interval=0.2) as client:
        for each in range(20):
            await client.keys.set(f"{prefix}/{each}", "old")
        async with Tree(client.keys, prefix) as tree:
            before = tree.index
            await server.wipe()
            async with Client(server.endpoints) as other:
                await other.keys.set(f"{prefix}/new", "v")
            await until(lambda: list(tree) == [f"{prefix}/new"])
            assert tree.index < before


async def test_a_closed_client_is_told(client: Client, server: EtcdServer, prefix: str) -> None:
    await client.keys.set(f"{prefix}/a", "1")
    other = Client(server.endpoints)
    async with Tree(other.keys, prefix) as tree:
        waiting = asyncio.create_task(soon(tree.changes(from_now=True)))
        reaching = asyncio.create_task(tree.reach(2**60))
        await asyncio.sleep(0)
        await other.close()
        for task in (waiting, reaching):
            with pytest.raises(ClientClosedError):
                await asyncio.wait_for(task, AWHILE)
        with pytest.raises(ClientClosedError):
            tree[f"{prefix}/a"]


UNAUTHORIZED = answer(
    {"errorCode": 110, "message": "The request requires user authentication", "cause": "", "index": 0}, status=401
)
LISTED = answer({"action": "get", "node": {"key": "/d", "dir": True, "nodes": [key_event("/d/a", 5)["node"]]}})


async def test_a_refusal_after_a_reconnect_is_told() -> None:
    async with (
        Misbehaver(raw(wait_header(10)), UNAUTHORIZED, reads=LISTED) as server,
        Client(server.endpoint) as client,
    ):
        async with Tree(client.keys, "/d") as tree:
            with pytest.raises(UnauthorizedError):
                await soon(tree.changes(from_now=True))
            with pytest.raises(UnauthorizedError):
                tree["/d/a"]


async def test_one_list_and_one_watch() -> None:
    async with Misbehaver(wait(10), reads=LISTED) as server, Client(server.endpoint) as client:
        async with Tree(client.keys, "/d") as tree:
            assert values(tree) == {"/d/a": "v"}
            assert server.seen[0].query == {"recursive": "true"}
            assert [seen.query for seen in server.waits] == [
                {"wait": "true", "recursive": "true", "stream": "true", "waitIndex": "11"}
            ]
