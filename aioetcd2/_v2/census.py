"""How many nodes a watched subtree has: a deletion leaves no other trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from ..models import Node, Response


class _Tally(NamedTuple):
    nodes: int
    newest: int
    directories: Mapping[str, int]
    newest_directory: int


class Subtree:
    """What a look has seen: a node, perhaps with all below it. One serves many watches, and is counted once.

    Args:
        node: The node; `None` = there was none.
        recursive: Whether all below it was looked at, too.
        cluster: Which cluster it is of; empty = not known.
        life: Which life of the cluster's store, as far as the client knows.
    """

    __slots__ = ("_recursive", "_tally", "cluster", "life", "node")

    def __init__(self, node: Node | None, recursive: bool, cluster: str = "", life: int | None = None) -> None:
        self.node = node
        self.cluster = cluster
        self.life = life
        self._recursive = recursive
        self._tally: _Tally | None = None

    def walk(self) -> Iterator[Node]:
        """All its nodes."""
        pending = [] if self.node is None else [self.node]
        while pending:
            each = pending.pop()
            yield each
            if self._recursive:
                pending.extend(each.nodes)

    @property
    def is_whole_directory(self) -> bool:
        """Whether it is a directory with all below it."""
        return self.node is not None and self.node.dir and self._recursive

    @property
    def count(self) -> int:
        """How many nodes."""
        return self._counted.nodes

    @property
    def newest(self) -> int:
        """The index at which one of them changed for the last time; 0 = there are none."""
        return self._counted.newest

    @property
    def directories(self) -> Mapping[str, int]:
        """Its directories, and the indexes at which they were created."""
        return self._counted.directories

    def directories_since(self, index: int) -> Iterator[str]:
        """The directories that were created after an index."""
        counted = self._counted
        if counted.newest_directory > index:
            yield from (path for path, created in counted.directories.items() if created > index)

    @property
    def _counted(self) -> _Tally:
        if self._tally is None:
            count = newest = 0
            directories: dict[str, int] = {}
            for each in self.walk():
                count += 1
                newest = max(newest, each.modified_index)
                if each.dir:
                    directories[_path(each)] = each.created_index
            newest, directories = msgspec.json.decode(  # copied: a text of a large answer keeps the memory around it
                msgspec.json.encode((newest, directories)), type=tuple[int, dict[str, int]]
            )
            self._tally = _Tally(count, newest, directories, max(directories.values(), default=0))
        return self._tally


class Census:
    """How many nodes there were at an index, in step with the events of a watch since then.

    It knows the directories, too: an event does not say which of those above its key came to be with it.

    Args:
        index: The index at which the nodes were counted.
        tree: What was counted.
        key: The key that is watched, without a slash at its end.
        recursive: Whether all below it is watched, too.

    Attributes:
        index: Events up to this one are counted in.
        count: How many nodes.
    """

    __slots__ = ("_base", "_before", "_key", "_made", "_recursive", "count", "index")

    def __init__(self, index: int, tree: Subtree, key: str, recursive: bool) -> None:
        self.index = self._base = index
        self.count = tree.count
        self._before = tree.directories
        self._made: set[str] = set()
        self._key = key
        self._recursive = recursive

    def follow(self, event: Response) -> bool:
        """Count an event in; false where it does not tell how many nodes came or went."""
        node, before = event.node, event.prev_node
        if node is None or node.modified_index <= self.index:
            return True
        gone = event.deleted
        path = _path(node)
        if not gone and before is not None and before.dir == node.dir:
            pass
        elif gone and len(path) <= len(self._key):
            self.count = 0
            self._before = {}
            self._made.clear()
        elif gone and before is not None and not before.dir:
            self.count -= 1
        elif gone or (before is not None and self._recursive):
            return False
        elif before is not None:
            self.count = 1
        else:
            self.count += self._made_with(path) if node.dir else 1 + self._made_with(_above(path))
        self.index = node.modified_index
        return True

    def is_missing_some(self, tree: Subtree) -> bool:
        """Whether nodes may have been deleted since the census.

        A directory that was made since may have come without an event, with a hidden key inside, and would hide a
        deletion.
        """
        return tree.count != self.count or any(path not in self._made for path in tree.directories_since(self._base))

    def _made_with(self, path: str) -> int:
        """How many directories came to be, from this one upwards to the key that is watched."""
        made = 0
        while len(path) >= len(self._key) and path not in self._before and path not in self._made:
            self._made.add(path)
            made += 1
            path = _above(path)
        return made


def _path(node: Node) -> str:
    return node.key.rstrip("/")


def _above(path: str) -> str:
    return path.rpartition("/")[0]
