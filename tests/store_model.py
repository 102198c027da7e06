"""etcd's v2 store in memory: what a server must answer to each call, and which events its watchers must get.

Written after the Go source of the store (`store/store.go`, `store/node.go`), not after this library: its methods have
the names and arguments of those of `KeysAPI`, so that both can be driven alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from msgspec.structs import replace

from aioetcd2 import (
    Action,
    APIError,
    CompareFailedError,
    DirNotEmptyError,
    KeyNotFoundError,
    Node,
    NodeExistsError,
    NotDirError,
    NotFileError,
    PrevValueRequiredError,
    RaftInternalError,
    Response,
    RootReadOnlyError,
)

TTL = float | timedelta | None

EVERYTHING = 1_000_000
"""More levels than any tree has."""

_REFUSALS: dict[int, tuple[type[APIError], str, int]] = {
    100: (KeyNotFoundError, "Key not found", 404),
    101: (CompareFailedError, "Compare failed", 412),
    102: (NotFileError, "Not a file", 403),
    104: (NotDirError, "Not a directory", 400),
    105: (NodeExistsError, "Key already exists", 412),
    107: (RootReadOnlyError, "Root is read only", 400),
    108: (DirNotEmptyError, "Directory not empty", 403),
    201: (PrevValueRequiredError, "PrevValue is Required in POST form", 400),
    300: (RaftInternalError, "Raft Internal Error", 500),
}


def clean(key: str) -> str:
    """A key as the store knows it: one slash in front, none at the end, none twice."""
    return "/" + "/".join(part for part in key.split("/") if part)


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def join(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}"


class Entry:
    """A file, or with a value of `None` a directory."""

    def __init__(self, path: str, index: int, value: str | None = None, expiration: datetime | None = None) -> None:
        self.path = path
        self.created = self.modified = index
        self.value = value
        self.expiration = expiration
        self.children: dict[str, Entry] = {}

    @property
    def dir(self) -> bool:
        return self.value is None

    def show(self, now: datetime, levels: int = 0) -> Node:
        """What the server shows of it, and of so many levels below it."""
        names = sorted(name for name in self.children if levels and not name.startswith("_"))
        return Node(
            self.path,
            self.value,
            self.dir,
            tuple(self.children[name].show(now, levels - 1) for name in names),
            self.created,
            self.modified,
            None if self.expiration is None else math.ceil((self.expiration - now).total_seconds()),
            self.expiration,
        )

    def paths(self) -> Iterator[str]:
        """Its own path, and those of all below it, hidden ones too."""
        yield self.path
        for child in self.children.values():
            yield from child.paths()


class Happening(NamedTuple):
    """An event, and which keys went with it."""

    event: Response
    removed: frozenset[str] = frozenset()


class StoreModel:
    """The store. `answered()` comes before each call: the index and the time of a change are the server's to choose.

    Args:
        index: The index of the server to begin with.
        updates_directories: Whether it can change the TTL of a directory, as etcd could before 3.5.
    """

    def __init__(self, index: int, *, updates_directories: bool) -> None:
        self.index = index
        self.now = datetime.now(timezone.utc)
        self.root = Entry("/", 0)
        self.history: list[Happening] = []
        self._updates_directories = updates_directories

    def answered(self, index: int, now: datetime) -> None:
        """The server has answered the coming call at this index; it had reached at least what it had before."""
        assert index >= self.index, f"index {index} after {self.index}"
        self.index, self.now = index, now

    def find(self, path: str) -> Entry:
        """What there is at a path.

        Raises:
            KeyNotFoundError: Nothing.
            NotDirError: A part of the path is a file.
        """
        entry = self.root
        for name in path.split("/")[1:] if path != "/" else ():
            if not entry.dir:
                raise self._refusal(104, entry.path)
            if name not in entry.children:
                raise self._refusal(100, join(entry.path, name))
            entry = entry.children[name]
        return entry

    def at(self, path: str) -> Entry | None:
        """What there is at a path; `None` = nothing."""
        try:
            return self.find(path)
        except APIError:
            return None

    def get(self, key: str, *, recursive: bool = False, sort: bool = False, quorum: bool = False) -> Response:
        entry = self.find(clean(key))
        return Response("get", entry.show(self.now, EVERYTHING if recursive else 1))

    def set(
        self,
        key: str,
        value: str,
        *,
        ttl: TTL = None,
        prev_value: str | None = None,
        prev_index: int | None = None,
        prev_exist: bool | None = None,
        no_value_on_success: bool = False,
    ) -> Response:
        if prev_value == "":
            raise refusal(201, '"prevValue" cannot be empty')
        path = clean(key)
        if prev_exist is False:
            answer = self._put(path, value, ttl, "create")
        elif prev_value is not None or prev_index is not None:
            self._check_root(path)
            answer = self._change(self._compared(path, prev_value, prev_index), value, ttl, "compareAndSwap")
        elif prev_exist:
            answer = self._update(path, value, ttl)
        else:
            answer = self._put(path, value, ttl, "set")
        return Response(answer.action) if no_value_on_success else answer

    def create(self, key: str, value: str, *, ttl: TTL = None) -> Response:
        return self.set(key, value, ttl=ttl, prev_exist=False)

    def update(self, key: str, value: str, *, ttl: TTL = None) -> Response:
        return self.set(key, value, ttl=ttl, prev_exist=True)

    def create_in_order(self, directory: str, value: str, *, ttl: TTL = None) -> Response:
        return self._put(join(clean(directory), f"{self.index:020}"), value, ttl, "create")

    def refresh(self, key: str, ttl: TTL, *, prev_value: str | None = None, prev_index: int | None = None) -> Response:
        path = clean(key)
        if prev_value is not None or prev_index is not None:
            return self._change(self._compared(path, prev_value, prev_index), None, ttl, "compareAndSwap")
        return self._update(path, None, ttl)

    def mkdir(self, key: str, *, ttl: TTL = None, prev_exist: bool | None = False) -> Response:
        if prev_exist:
            return self._update(clean(key), "", ttl)
        return self._put(clean(key), None, ttl, "set" if prev_exist is None else "create")

    def delete(
        self,
        key: str,
        *,
        recursive: bool = False,
        dir: bool = False,
        prev_value: str | None = None,
        prev_index: int | None = None,
    ) -> Response:
        if prev_value == "":
            raise refusal(201, '"prevValue" cannot be empty')
        path = clean(key)
        if prev_value is not None or prev_index is not None:
            return self._remove(self._compared(path, prev_value, prev_index), "compareAndDelete")
        self._check_root(path)
        entry = self.find(path)
        if entry.dir and not (dir or recursive):
            raise self._refusal(102, path)
        if entry.children and not recursive:
            raise self._refusal(108, path)
        return self._remove(entry, "delete")

    def expire(self, key: str) -> Response:
        """The TTL of a key is over."""
        return self._remove(self.find(clean(key)), "expire")

    def _put(self, path: str, value: str | None, ttl: TTL, action: Action) -> Response:
        """Write anew, in place of a file if it is a set, and make the directories above."""
        if action == "set" and (hindrance := self._hindrance(path)) is not None:
            raise hindrance
        self._check_root(path)
        directory = self.root
        for name in path.split("/")[1:-1]:
            if not directory.dir:
                raise self._refusal(104, directory.path)
            if name not in directory.children:
                directory.children[name] = Entry(join(directory.path, name), self.index)
            directory = directory.children[name]
        if not directory.dir:
            raise self._refusal(104, directory.path)
        name = path.rpartition("/")[2]
        before = directory.children.get(name)
        if before is not None and action == "create":
            raise self._refusal(105, path)
        if before is not None and before.dir:
            raise self._refusal(102, path)
        entry = directory.children[name] = Entry(path, self.index, value, self._expiration(ttl))
        return self._happened(action, entry.show(self.now), before)

    def _update(self, path: str, value: str | None, ttl: TTL) -> Response:
        """Write what exists; a value of `None` refreshes, and is no event."""
        self._check_root(path)
        entry = self.find(path)
        if not entry.dir:
            return self._change(entry, value, ttl, "update")
        if value:
            raise self._refusal(102, path)
        if not self._updates_directories:
            raise refusal(300, f"nodePath /1{path} : Not a file ()")
        before = entry.show(self.now)
        entry.expiration = self._expiration(ttl)
        after = replace(entry.show(self.now), modified_index=self.index)  # so says the answer; the store forgets it
        return self._happened("update", after, before, silent=value is None)

    def _change(self, entry: Entry, value: str | None, ttl: TTL, action: Action) -> Response:
        before = entry.show(self.now)
        if value is not None:
            entry.value = value
        entry.modified = self.index
        entry.expiration = self._expiration(ttl)
        return self._happened(action, entry.show(self.now), before, silent=value is None)

    def _remove(self, entry: Entry, action: Action) -> Response:
        del self.find(parent_of(entry.path)).children[entry.path.rpartition("/")[2]]
        node = Node(entry.path, None, entry.dir, (), entry.created, self.index)
        before = entry.show(self.now)
        if action == "expire":
            before = replace(before, ttl=0)
        return self._happened(action, node, before, removed=frozenset(entry.paths()))

    def _happened(
        self,
        action: Action,
        node: Node,
        before: Entry | Node | None,
        *,
        silent: bool = False,
        removed: frozenset[str] = frozenset(),
    ) -> Response:
        event = Response(action, node, before.show(self.now) if isinstance(before, Entry) else before)
        if not silent:
            self.history.append(Happening(event, removed))
        return event

    def _hindrance(self, path: str) -> APIError | None:
        """A set reads the key first, and then minds whatever is no mere absence."""
        try:
            self.find(path)
        except KeyNotFoundError:
            return None
        except APIError as error:
            return error
        return None

    def _compared(self, path: str, prev_value: str | None, prev_index: int | None) -> Entry:
        entry = self.find(path)
        if entry.dir:
            raise self._refusal(102, path if path != "/" else "")
        value_fails = prev_value is not None and prev_value != entry.value
        index_fails = prev_index is not None and prev_index != entry.modified
        value_cause = f"[{prev_value or ''} != {entry.value}]"
        index_cause = f"[{prev_index or 0} != {entry.modified}]"
        if value_fails and index_fails:
            raise self._refusal(101, f"{value_cause} {index_cause}")
        if value_fails or index_fails:
            raise self._refusal(101, value_cause if value_fails else index_cause)
        return entry

    def _check_root(self, path: str) -> None:
        if path == "/":
            raise self._refusal(107, "/")

    def _expiration(self, ttl: TTL) -> datetime | None:
        if ttl is None:
            return None
        seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
        return self.now + timedelta(seconds=math.ceil(seconds))

    def _refusal(self, code: int, cause: str = "") -> APIError:
        return refusal(code, cause, self.index)


def refusal(code: int, cause: str = "", index: int = 0) -> APIError:
    """What the server answers instead; where it has not asked its store, the index is 0."""
    cls, message, status = _REFUSALS[code]
    return cls(code, message, cause, index, status)


class Expected:
    """What a watcher must give: every event of its key after an index, each once, in order.

    Args:
        store: Where it happens.
        key: The key.
        recursive: Whether all below it is watched, too.
        after: The index after which events count.
    """

    def __init__(self, store: StoreModel, key: str, recursive: bool, after: int) -> None:
        self._store = store
        self._path = clean(key)
        self._recursive = recursive
        self._after = after
        self._given = 0

    @property
    def owed(self) -> Response | None:
        """The next event that must come, if there is one."""
        return next((event for _, event, certain in self._coming() if certain), None)

    def given(self, index: int) -> Response:
        """The event that the watcher should have given when it gave the one at an index."""
        for position, event, certain in self._coming():
            assert event.node is not None
            if event.node.modified_index == index:
                self._given = position + 1
                return event
            assert not certain, f"the watch of {self._path!r} left out {event}, and gave one at index {index}"
        raise AssertionError(f"the watch of {self._path!r} gave an event at index {index} that is none of its own")

    def _coming(self) -> Iterator[tuple[int, Response, bool]]:
        for position, (event, removed) in enumerate(self._store.history[self._given :], self._given):
            assert event.node is not None
            if event.node.modified_index > self._after:
                certain = self._concerns(event, removed)
                if certain is not None:
                    yield position, event, certain

    def _concerns(self, event: Response, removed: frozenset[str]) -> bool | None:
        """Whether the event must come (true), may come (false), or must not come (none).

        The end of a directory comes to watchers of what it held; to those of a key below it that did not exist, it
        comes from the server's history only.
        """
        assert event.node is not None
        path, own = event.node.key, self._path.rstrip("/")
        if path == self._path:
            return True
        if path.startswith(f"{own}/"):
            return True if self._recursive and "/_" not in path[len(own) :] else None
        if removed and event.node.dir and own.startswith(f"{path}/"):
            return own in removed
        return None


def assert_same(actual: Response, wanted: Response, slack: float, *, ordered: bool = True) -> None:
    """Compare all but times exactly, those within some seconds.

    What the headers say is no part of it: an event has the headers of the wait that brought it.
    """
    for one, other in ((actual.node, wanted.node), (actual.prev_node, wanted.prev_node)):
        if one is not None and other is not None:
            _assert_same_times(_sorted(one), _sorted(other), slack)
    assert _timeless(actual, ordered) == _timeless(wanted, ordered)


def _assert_same_times(actual: Node, wanted: Node, slack: float) -> None:
    assert (actual.expiration is None) == (wanted.expiration is None), f"{actual} is not {wanted}"
    assert (actual.ttl is None) == (wanted.ttl is None), f"{actual} is not {wanted}"
    if actual.expiration is not None and wanted.expiration is not None:
        assert abs((actual.expiration - wanted.expiration).total_seconds()) <= slack, f"{actual} is not {wanted}"
    if actual.ttl is not None and wanted.ttl is not None:
        assert abs(actual.ttl - wanted.ttl) <= 1 + 2 * slack, f"{actual} is not {wanted}"
    for one, other in zip(actual.nodes, wanted.nodes, strict=False):  # how many they are is compared later
        _assert_same_times(one, other, slack)


def _timeless(response: Response, ordered: bool) -> Response:
    node, prev_node = (
        None if node is None else _without_times(node if ordered else _sorted(node))
        for node in (response.node, response.prev_node)
    )
    return Response(response.action, node, prev_node)


def _without_times(node: Node) -> Node:
    return replace(node, ttl=None, expiration=None, nodes=tuple(map(_without_times, node.nodes)))


def _sorted(node: Node) -> Node:
    return replace(node, nodes=tuple(sorted(map(_sorted, node.nodes), key=lambda child: child.key)))
