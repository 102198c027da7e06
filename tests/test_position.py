"""What a watcher knows: its cursor, what was given away, and whether lost events can have been its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioetcd2 import Action, APIError, Node, Response
from aioetcd2._v2.census import Census, Subtree
from aioetcd2._v2.position import Position

from .store_model import StoreModel

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))

RANDOM = settings(max_examples=EXAMPLES or 300, derandomize=not EXAMPLES, deadline=None, database=None)

NEVER_MIND = 5
"""The index at which nothing of interest happens."""


def file(key: str, index: int, value: str = "v") -> Node:
    return Node(key, value, created_index=index, modified_index=index)


def directory(key: str, index: int, *nodes: Node) -> Node:
    return Node(key, None, True, nodes, index, index)


def event(key: str, index: int, action: Action = "set", prev_node: Node | None = None) -> Response:
    return Response(action, file(key, index), prev_node, index=1)


def where(position: Position) -> tuple[int | None, int | None]:
    return position.cursor, position.index


def tree(node: Node | None, recursive: bool = True) -> Subtree:
    return Subtree(node, recursive)


def census(index: int, number: int, key: str = "/a", recursive: bool = True, *directories: str) -> Census:
    """A census of so many nodes, among which there are these directories."""
    nodes = [directory(each, 1) for each in directories] + [file("/x", 1)] * (number - len(directories))
    if not nodes:
        return Census(index, tree(None), key, recursive)
    first = nodes[0]
    whole = Node(first.key, first.value, first.dir, tuple(nodes[1:]), 1, 1)
    return Census(index, tree(whole), key, recursive)


def counted(position: Position) -> tuple[int, int] | None:
    return None if position.census is None else (position.census.index, position.census.count)


def made(key: str, index: int, prev_node: Node | None = None) -> Response:
    return Response("create", directory(key, index), prev_node)


def heard(position: Position) -> list[str]:
    events = [each for each in position.pending if isinstance(each, Response)]
    return [each.node.key for each in events if each.node is not None]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


# --- cursor and index -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_key", "key"),
    [("a", "/a"), ("/a/", "/a"), ("//a//b//", "/a/b"), ("", ""), ("/", ""), ("///", ""), ("X/", "/X")],
)
def test_the_key_is_that_of_the_server(given_key: str, key: str) -> None:
    assert Position(given_key, True, None).key == key


def test_it_begins_where_it_is_told_to() -> None:
    position = Position("a", False, None)
    assert where(position) == (None, None)
    position.begin(0)  # a server that does not name its index
    assert where(position) == (None, None)
    position.begin(1)
    assert where(position) == (1, 1)
    position.begin(9)
    assert where(position) == (1, 1)
    assert position.census is None


def test_it_skips_to_a_look_at_the_keys() -> None:
    position = Position("a", True, None)
    position.skip(9, tree(directory("/a", 3, file("/a/b", 4), directory("/a/c", 5, file("/a/c/d", 6)))))
    assert position.cursor == position.index == 9
    assert counted(position) == (9, 4)


def test_it_begins_at_zero_where_that_is_asked_for() -> None:
    position = Position("a", False, 0)
    position.begin(7)
    assert position.cursor == position.index == 0
    assert position.take(event("/a", 1))


def test_an_event_is_taken_once() -> None:
    position = Position("a", False, 3)
    assert position.take(event("/a", 2)) is False
    assert not position.take(event("/a", 3))
    assert position.take(event("/a", 4))
    assert not position.take(event("/a", 4))
    assert heard(position) == ["/a"]
    assert position.cursor == 4


def test_before_it_begins_every_event_is_new_that_has_an_index() -> None:
    position = Position("a", False, None)
    assert not position.take(event("/a", 0))
    assert not position.take(Response("delete"))
    assert position.take(event("/a", 1))
    assert position.index is None
    position.pop()
    assert position.index == 1


def test_the_index_is_that_of_what_was_given_away() -> None:
    position = Position("a", False, 3)
    position.take(event("/else", 4))
    assert position.index == 4
    position.take(event("/a", 5))
    position.take(event("/a", 6))
    position.take(event("/else", 7))
    assert position.index == 4
    assert position.cursor == 7
    assert position.pop().node == file("/a", 5)
    assert position.index == 5
    assert position.pop().node == file("/a", 6)
    assert position.index == 7


def test_giving_up_goes_back_to_what_was_given_away() -> None:
    position = Position("a", False, 3)
    for index in (5, 6, 7):
        position.take(event("/a", index))
    position.pop()
    position.give_up()
    assert not position.pending
    assert position.cursor == position.index == 5
    assert position.take(event("/a", 6))


def test_giving_up_with_nothing_pending_goes_back_to_the_cursor() -> None:
    position = Position("a", False, 3)
    position.take(event("/else", 6))
    position.give_up()
    assert position.cursor == position.index == 6


def test_a_resync_is_an_event_of_its_own_index() -> None:
    position = Position("a", True, 3)
    position.resync(9, tree(directory("/a", 4, file("/a/b", 8))))
    assert position.cursor == 9
    assert position.index == 3
    assert counted(position) == (9, 2)
    resync = position.pop()
    assert (resync.action, resync.index) == ("resync", 9)
    assert resync.node == directory("/a", 4, file("/a/b", 8))
    assert position.index == 9


def test_what_follows_a_resync_waits_behind_it() -> None:
    position = Position("a", False, 3)
    position.resync(9, tree(None))
    position.take(event("/a", 10))
    assert position.index == 3
    assert position.pop().action == "resync"
    assert position.index == 9
    position.give_up()
    assert position.cursor == 9


# --- whose event it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "recursive", "action", "where", "concerned"),
    [
        ("a", False, "set", "/a", True),
        ("a", True, "set", "/a", True),
        ("a", False, "set", "/a/b", False),
        ("a", True, "set", "/a/b", True),
        ("a", True, "set", "/a/b/c", True),
        ("a", True, "set", "/ab", False),
        ("a", True, "set", "/a/_b", False),
        ("a", True, "set", "/a/b/_c/d", False),
        ("a", True, "delete", "/a/b/_c", False),
        ("a", True, "set", "/a/b_c", True),
        ("_a", True, "set", "/_a", True),
        ("_a", True, "set", "/_a/b", True),
        ("_a", True, "set", "/_a/_b", False),
        ("a/_b", True, "set", "/a/_b/c", True),
        ("a/b", True, "set", "/a", False),
        ("a/b", False, "create", "/a", False),
        ("a/b", False, "delete", "/a", True),
        ("a/b", True, "expire", "/a", True),
        ("a/b", True, "compareAndDelete", "/a", True),
        ("a/b/c", False, "delete", "/a", True),
        ("a/b", False, "delete", "/a/bc", False),
        ("ab", False, "delete", "/a", False),
        ("a/b", False, "delete", "/", True),
        ("a/b", False, "delete", "/aX", False),
        ("", True, "set", "/a", True),
        ("", False, "set", "/a", False),
        ("", True, "set", "/_a", False),
        ("", True, "set", "/a/_b", False),
        ("/", True, "set", "/a/b", True),
    ],
)
def test_an_event_concerns_a_watch(key: str, recursive: bool, action: Action, where: str, concerned: bool) -> None:
    position = Position(key, recursive, 3)
    assert position.take(event(where, 7, action))
    assert heard(position) == [where] * concerned
    assert position.cursor == 7


# --- counting -------------------------------------------------------------------------------------------------------


def test_a_subtree_has_all_or_one() -> None:
    node = directory("/a", 1, file("/a/b", 2), directory("/a/c", 3, file("/a/c/d", 4)))
    whole, one, none = tree(node), tree(node, False), tree(None)
    assert sorted(each.key for each in whole.walk()) == ["/a", "/a/b", "/a/c", "/a/c/d"]
    assert [each.key for each in one.walk()] == ["/a"]
    assert list(none.walk()) == []
    assert [each.count for each in (whole, one, none)] == [4, 1, 0]
    assert [each.newest for each in (whole, one, none)] == [4, 1, 0]
    assert [each.directories for each in (whole, one, none)] == [{"/a": 1, "/a/c": 3}, {"/a": 1}, {}]
    assert [list(whole.directories_since(index)) for index in (0, 1, 3)] == [["/a", "/a/c"], ["/a/c"], []]


def test_a_subtree_is_counted_once() -> None:
    class Counted(Subtree):
        times = 0

        def walk(self) -> Iterator[Node]:
            self.times += 1
            return super().walk()

    seen = Counted(directory("/a", 1, file("/a/b", 2)), True)
    for each in range(3):
        Position("a", True, each).skip(5, seen)
    assert (seen.count, seen.newest, seen.times) == (2, 2, 1)


NOT_KNOWN = None
FILE = file("/a", 2)


@pytest.mark.parametrize(
    ("key", "recursive", "before", "happened", "number"),
    [
        pytest.param("/a", False, 0, event("/a", 6, "create"), 1, id="created"),
        pytest.param("/a", False, 1, event("/a", 6, "set", FILE), 1, id="changed"),
        pytest.param("/a", False, 1, event("/a", 6, "delete", FILE), 0, id="deleted"),
        pytest.param("/a", False, 1, event("/a", 6, "expire", FILE), 0, id="expired"),
        pytest.param("/a", False, 1, event("/a", 6, "compareAndDelete", FILE), 0, id="compared and deleted"),
        pytest.param("/a/b", False, 1, event("/a", 6, "delete", directory("/a", 2)), 0, id="deleted with its parent"),
        pytest.param("/a", False, 1, event("/a", 6, "set", directory("/a", 2)), 1, id="a file for a directory"),
        pytest.param("/a", True, 4, event("/a/b", 6, "set", file("/a/b", 2)), 4, id="changed below"),
        pytest.param("/a", True, 4, event("/a/b", 6, "update", file("/a/b", 2)), 4, id="updated below"),
        pytest.param("/a", True, 4, event("/a/b", 6, "create"), 5, id="created below"),
        pytest.param("/a", True, 4, event("/a/b", 6, "set"), 5, id="set below"),
        pytest.param("/a", True, 4, made("/a/b", 6), 5, id="a directory created below"),
        pytest.param("/a", False, 0, made("/a", 6), 1, id="a directory created"),
        pytest.param("/a", True, 0, event("/a/b", 6, "create"), 2, id="created with its parent"),
        pytest.param("/a", True, 4, event("/a/b/c", 6, "create"), 6, id="created deep below"),
        pytest.param("", True, 4, event("/b", 6, "create"), 5, id="created in the root"),
        pytest.param("", True, 4, event("/b/c", 6, "create"), 6, id="created below the root"),
        pytest.param("/a", True, 4, event("/a/b/c", 6, "delete", file("/a/b/c", 2)), 3, id="deleted below"),
        pytest.param("/a", True, 4, event("/a/b", 6, "expire", file("/a/b", 2)), 3, id="expired below"),
        pytest.param("/a", True, 4, event("/a/b", 6, "delete"), NOT_KNOWN, id="deleted without a word"),
        pytest.param("/a", True, 4, event("/a/b", 6, "delete", directory("/a/b", 2)), NOT_KNOWN, id="a directory"),
        pytest.param("/a", True, 4, made("/a/b", 6, file("/a/b", 2)), NOT_KNOWN, id="a directory for a file"),
        pytest.param("/X", True, 4, event("/X/X", 6, "delete", file("/X/X", 2)), 3, id="an X"),
        pytest.param("/a", True, 4, event("/a/b", 6, "set", directory("/a/b", 2)), NOT_KNOWN, id="over a directory"),
        pytest.param("/a", True, 4, event("/a", 6, "delete", directory("/a", 2)), 0, id="all deleted"),
        pytest.param("/a", True, 4, event("/", 6, "delete", directory("/", 2)), 0, id="the root deleted"),
        pytest.param("/a", True, 4, event("/a/b", NEVER_MIND, "create"), 4, id="counted before"),
    ],
)
def test_the_number_after_an_event(key: str, recursive: bool, before: int, happened: Response, number: int) -> None:
    there = [key] if recursive and before else []
    known = census(NEVER_MIND, before, key, recursive, *there)
    assert (known.count if known.follow(happened) else None) == number
    if number is not None and number != before:
        assert (known.index, known._base) == (6, NEVER_MIND)


def test_directories_that_come_with_a_key_are_counted_in_once() -> None:
    known = census(5, 2, "/a", True, "/a", "/a/b")
    numbers = []
    for index, key in enumerate(("/a/b/c/d/e", "/a/b/c/d/f", "/a/b/c/g", "/a/h/i/j", "/a/h/i/k", "/a/h/l"), 6):
        assert known.follow(event(key, index, "create"))
        numbers.append(known.count)
    assert numbers == [5, 6, 7, 10, 11, 12]
    assert known.follow(made("/a/h/m/n", 12))
    assert known.count == 14
    assert known.follow(event("/a/h/m/n/o", 13, "create"))
    assert known.count == 15


def test_directories_that_a_deletion_above_took_along_come_anew() -> None:
    known = census(5, 3, "/a", True, "/a", "/a/b")
    assert known.follow(event("/a/c/d", 6, "create"))
    assert known.follow(event("/a", 7, "delete", directory("/a", 1)))
    for index, key, number in ((8, "/a/b/x", 3), (9, "/a/c/d", 5)):
        assert known.follow(event(key, index, "create"))
        assert known.count == number


def test_an_event_without_a_node_changes_no_number() -> None:
    known = census(5, 4)
    assert known.follow(Response("delete"))
    assert (known.index, known.count) == (5, 4)


def test_a_census_is_kept_up_only_where_there_is_one() -> None:
    position = Position("a", True, 3)
    position.take(event("/a/b", 4, "create"))
    assert position.census is None
    position.skip(5, tree(directory("/a", 1, file("/a/b", 4))))
    assert where(position) == (5, 3)
    assert counted(position) == (5, 2)
    position.take(event("/a/c", 6, "create"))
    position.take(event("/else", 7, "create"))
    assert counted(position) == (6, 3)
    position.take(event("/a/b", 8, "delete", directory("/a/b", 4)))
    assert position.census is None


# --- what may have been missed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recursive", "known", "node", "missed"),
    [
        pytest.param(False, None, None, True, id="it may have been deleted"),
        pytest.param(False, 0, None, False, id="it was not there before"),
        pytest.param(False, 1, None, True, id="it was deleted"),
        pytest.param(False, None, file("/a", 5), False, id="the same file"),
        pytest.param(False, None, file("/a", 6), True, id="another file"),
        pytest.param(False, 0, file("/a", 6), True, id="a new file"),
        pytest.param(False, None, directory("/a", 2), False, id="the same directory, and only that"),
        pytest.param(True, None, file("/a", 5), False, id="a file watched with all below"),
        pytest.param(True, None, directory("/a", 2), True, id="something below may have been deleted"),
        pytest.param(True, 3, directory("/a", 2, file("/a/b", 5), file("/a/c", 3)), False, id="as many as before"),
        pytest.param(True, 4, directory("/a", 2, file("/a/b", 5), file("/a/c", 3)), True, id="fewer than before"),
        pytest.param(True, 3, directory("/a", 2, file("/a/b", 6), file("/a/c", 3)), True, id="one changed"),
        pytest.param(True, 3, directory("/a", 2, file("/a/b", 4), directory("/a/c", 3)), False, id="a directory"),
        pytest.param(
            True, 3, directory("/a", 2, file("/a/b", 4), directory("/a/c", 4)), True, id="made without a word"
        ),
        pytest.param(False, 1, directory("/a", 2, file("/a/b", 6)), False, id="one changed below"),
        pytest.param(False, 0, directory("/a", 2), False, id="made with a key inside before"),
        pytest.param(True, 0, directory("/a", 2), True, id="it was not known to be there"),
    ],
)
def test_what_is_there_tells_whether_events_were_missed(
    recursive: bool, known: int | None, node: Node | None, missed: bool
) -> None:
    position = Position("a", recursive, 5)
    if known is not None:
        position.census = census(3, known, "/a", recursive)
        position.census.index = 4
    assert position.may_have_missed(tree(node, recursive)) is missed


def test_a_directory_that_an_event_has_told_of_was_not_made_without_a_word() -> None:
    position = Position("a", True, 5)
    position.skip(5, tree(directory("/a", 1)))
    position.take(event("/a/b/c", 6, "create"))
    there = directory("/a", 1, directory("/a/b", 6, file("/a/b/c", 6)))
    assert not position.may_have_missed(tree(there))
    other = directory("/a", 1, directory("/a/d", 6, file("/a/d/c", 6)))
    assert position.may_have_missed(tree(other))


def test_before_it_begins_anything_may_have_been_missed() -> None:
    assert Position("a", False, None).may_have_missed(tree(file("/a", 1)))


KEYS = ["a", "a/b", "a/b/c", "a/d", "a/d/_e", "a/_h/i", "a/b/f", "ab"]
STEP = st.tuples(st.sampled_from(["set", "create", "mkdir", "delete", "expire"]), st.sampled_from(KEYS))


def do(store: StoreModel, action: str, key: str) -> None:
    store.answered(store.index + 1, store.now)
    options = {"recursive": True} if action == "delete" else {}
    try:
        getattr(store, action)(key, *(["v"] if action in ("set", "create") else []), **options)
    except APIError:
        store.index -= 1


def seen(store: StoreModel, key: str, recursive: bool) -> Subtree:
    try:
        return Subtree(store.get(key, recursive=recursive).node, recursive)
    except APIError:
        return Subtree(None, recursive)


def snapshot(seen: Subtree) -> set[tuple[str, int]]:
    return {(each.key, each.modified_index) for each in seen.walk()}


@RANDOM
@given(
    before=st.lists(STEP, max_size=8),
    heard=st.lists(STEP, max_size=8),
    missed=st.lists(STEP, max_size=4),
    key=st.sampled_from(KEYS),
    recursive=st.booleans(),
    known_before=st.booleans(),
)
@pytest.mark.slow
def test_whatever_left_a_trace_is_told(
    before: list[tuple[str, str]],
    heard: list[tuple[str, str]],
    missed: list[tuple[str, str]],
    key: str,
    recursive: bool,
    known_before: bool,
) -> None:
    store = StoreModel(1, updates_directories=False)
    for step in before:
        do(store, *step)
    position = Position(key, recursive, store.index)
    if known_before:
        position.skip(store.index, seen(store, key, recursive))
    for step in heard:
        do(store, *step)
    for happening in store.history:
        position.take(happening.event)
    there = seen(store, key, recursive)
    known = position.census
    unheard: set[tuple[str, int]] = set()
    if known is not None and known.count != there.count:
        # directories that were made without an event, with a key inside that is hidden, or not watched
        new = {each.key for each in there.walk() if each.dir and each.created_index > known._base}
        assert 0 < there.count - known.count <= len(new)
        unheard = {(path, index) for path, index in snapshot(there) if path in new}
    for step in missed:
        do(store, *step)
    left = seen(store, key, recursive)
    if snapshot(left) - unheard != snapshot(there) - unheard:
        assert position.may_have_missed(left)
    elif known is not None and not unheard:
        assert not position.may_have_missed(left)


def test_what_is_kept_of_a_look_is_copied() -> None:
    """One text of a large answer, or one number, keeps the memory around it from being given back."""
    node = directory("/a", 10**9, directory("/a/b", 10**9 + 1, file("/a/b/c", 10**9 + 2)))
    kept = Subtree(node, True).directories
    assert kept == {"/a": 10**9, "/a/b": 10**9 + 1}
    answer = {id(value) for each in (node, *node.nodes) for value in (each.key, each.created_index)}
    assert answer.isdisjoint({id(value) for pair in kept.items() for value in pair})
