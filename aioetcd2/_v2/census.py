"""How many nodes a watched subtree has: a deletion leaves no other trace."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..models import Node, Response

DELETIONS = ("delete", "expire", "compareAndDelete")


class Census(Struct, frozen=True):
    """How many nodes there were at an index: what tells an undisturbed subtree from one in which keys were deleted.

    Attributes:
        index: Events up to this one are counted in.
        count: How many nodes.
        base: The index at which they were all counted.
    """

    index: int
    count: int
    base: int


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


def take_census(index: int, node: Node | None, recursive: bool) -> Census:
    """Count the nodes of a subtree as it was at an index."""
    return Census(index, count(node, recursive), index)


def after(known: Census, event: Response, key: str, recursive: bool) -> Census | None:
    """The census after an event; `None` where the event does not tell how many nodes came or went."""
    node, before = event.node, event.prev_node
    if node is None or node.modified_index <= known.index:
        return known
    gone = event.action in DELETIONS
    if not gone and before is not None and before.dir == node.dir:
        return known
    own = node.key.rstrip("/")
    number = None
    if gone and len(own) <= len(key):
        number = 0
    elif not recursive:
        number = 1
    elif gone and before is not None and not before.dir:
        number = known.count - 1
    elif not gone and before is None and not node.dir and known.count and own.rpartition("/")[0] == key:
        number = known.count + 1
    return None if number is None else Census(node.modified_index, number, known.base)


def is_missing_some(known: Census, node: Node | None, recursive: bool) -> bool:
    """Whether nodes may have been deleted since a census.

    A directory that was made since may have come without an event, with a hidden key inside, and would hide a deletion.
    """
    if any(each.dir and each.created_index > known.base for each in walk(node, recursive)):
        return True
    return count(node, recursive) != known.count
