"""The files of a subtree, kept in step with its events: a dictionary and a list in order. No I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from msgspec import Struct

from ..models import Node, Response


class Change(Struct, frozen=True, gc=False):
    """What has happened to one file of a `Tree`.

    A directory that was deleted or has expired is a change for each file in it, all with one `index`. After lost events
    the changes are the difference: what happened in between is not known.

    Attributes:
        key: Its full key.
        before: As it was; `None` = it was not there.
        after: As it is; `None` = it is gone.
        index: The index of the event; of the look, where events were lost; and that of the copy for the content with
            which `changes()` begins.
    """

    key: str
    before: Node | None
    after: Node | None
    index: int


def files_of(node: Node | None) -> Iterable[Node]:
    """The files of what was read: those below a directory, or the one that was found in its place."""
    if node is None:
        return ()
    return node.leaves() if node.dir else (node,)


class Copy:
    """The files of a subtree, as far as its events were told.

    Args:
        nodes: The files to begin with.

    Attributes:
        files: Each file by its key, without its TTL, which changes without an event.
        keys: Their keys in order.
        version: Another number whenever a key has come or gone.
    """

    __slots__ = ("files", "keys", "version")

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.files: dict[str, Node] = {node.key: _lasting(node, None) for node in nodes}
        self.keys: list[str] = sorted(self.files)
        self.version = 0

    def span(self, directory: str) -> tuple[int, int]:
        """Where the keys below a directory are in `keys`: from the first to behind the last."""
        above = directory.rstrip("/")
        return bisect_left(self.keys, f"{above}/"), bisect_left(self.keys, f"{above}0")  # 0 comes next after /

    def walk(self, directory: str) -> Iterator[str]:
        """The keys below a directory, in order.

        Raises:
            RuntimeError: A key has come or gone meanwhile.
        """
        version = self.version
        first, last = self.span(directory)
        for place in range(first, last):
            if self.version != version:
                raise RuntimeError("the tree has changed during the iteration; iterate over list(...) to await in it")
            yield self.keys[place]

    def take(self, event: Response) -> list[Change]:
        """Follow an event, and say what it has changed."""
        node = event.node
        if node is None:
            return []
        if event.deleted:
            return self._end(node.key, node.modified_index) or self._end_below(node.key, node.modified_index)
        if node.dir:  # in the place of a file, perhaps
            return self._end(node.key, node.modified_index)
        before = self.files.get(node.key)
        after = _lasting(node, before)
        self.files[after.key] = after
        if before is None:
            insort(self.keys, after.key)
            self.version += 1
        return [Change(after.key, before, after, node.modified_index)]

    def replace(self, nodes: Iterable[Node], index: int) -> list[Change]:
        """Take over the files that were seen at an index, and say what is different: first those that are gone."""
        past = self.files
        files: dict[str, Node] = {}
        came: list[Change] = []
        for node in nodes:
            before = past.get(node.key)
            if before is not None and _is_same(before, node):
                files[before.key] = before
            else:
                after = files[node.key if before is None else before.key] = _lasting(node, before)
                came.append(Change(after.key, before, after, index))
        gone = [Change(key, past[key], None, index) for key in self.keys if key not in files]
        came.sort(key=_key_of)
        if gone or len(files) != len(past):
            self.keys = sorted(files)
            self.version += 1
        self.files = files
        return gone + came

    def is_as(self, nodes: Iterable[Node]) -> bool:
        """Whether these are its files."""
        count = 0
        for node in nodes:
            ours = self.files.get(node.key)
            if ours is None or not _is_same(ours, node):
                return False
            count += 1
        return count == len(self.files)

    def _end(self, key: str, index: int) -> list[Change]:
        if key not in self.files:
            return []
        place = bisect_left(self.keys, key)
        return self._cut(place, place + 1, index)

    def _end_below(self, directory: str, index: int) -> list[Change]:
        return self._cut(*self.span(directory), index)

    def _cut(self, first: int, last: int, index: int) -> list[Change]:
        gone = self.keys[first:last]
        if gone:
            del self.keys[first:last]
            self.version += 1
        return [Change(key, self.files.pop(key), None, index) for key in gone]


def _key_of(change: Change) -> str:
    return change.key


def _is_same(ours: Node, seen: Node) -> bool:
    """Whether a file that was seen again is the one that is known: a refresh moves its `modified_index` alone."""
    return ours.created_index == seen.created_index and ours.value == seen.value


def _lasting(node: Node, before: Node | None) -> Node:
    """A file without its TTL, under the very text that is its key already."""
    if before is None and node.expiration is None and node.ttl is None:
        return node
    key = node.key if before is None else before.key
    return Node(key, node.value, created_index=node.created_index, modified_index=node.modified_index)
