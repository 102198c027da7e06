"""How many nodes a watched subtree has: a deletion leaves no other trace."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from .models import Node, Response

DELETIONS = ("delete", "expire", "compareAndDelete")


class Census(Struct, frozen=True):
    """How many nodes there were at an index: what tells an undisturbed subtree from one in which keys were deleted."""

    index: int
    count: int


def walk(node: Node | None, recursive: bool) -> Iterator[Node]:
    """A node, and all below it."""
    pending = [] if node is None else [node]
    while pending:
        each = pending.pop()
        yield each
        if recursive:
            pending.extend(each.nodes)


def count(node: Node | None, recursive: bool) -> int:
    """The number of nodes of a subtree."""
    return sum(1 for _ in walk(node, recursive))


def after(census: Census, event: Response, key: str, recursive: bool) -> Census | None:
    """The census after an event; `None` where the event does not tell how many nodes came or went."""
    node, before = event.node, event.prev_node
    if node is None or node.modified_index <= census.index:
        return census
    gone = event.action in DELETIONS
    if not gone and before is not None and before.dir == node.dir:
        return census
    own = node.key.rstrip("/")
    if gone and len(own) <= len(key):
        return Census(node.modified_index, 0)
    if not recursive:
        return Census(node.modified_index, 1)
    if gone and before is not None and not before.dir:
        return Census(node.modified_index, census.count - 1)
    if not gone and before is None and census.count and own.rpartition("/")[0] == key:
        return Census(node.modified_index, census.count + 1)
    return None
