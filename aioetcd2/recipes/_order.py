"""The places of a path in their order, by a list and the events after it."""

from __future__ import annotations

from collections.abc import Iterable

from ..models import Node, Response


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """The places among the nodes of a directory, the first one first."""
    return sorted((node for node in nodes if not node.dir), key=lambda node: node.created_index)


def name_of(key: str) -> str:
    """The last part of a key: the name of a place within its path."""
    return key.rpartition("/")[2]


class Order:
    """The places of a path. A place can vanish at any time; a new one goes to the end.

    Args:
        path: The directory as it was asked for; the server's keys may have more before it.
        nodes: Its places, by a list.
    """

    def __init__(self, path: str, nodes: Iterable[Node]) -> None:
        self._path = path
        self._nodes = {node.key: node for node in in_order(nodes)}

    def places(self) -> list[Node]:
        """All of them, the first one first."""
        return in_order(self._nodes.values())

    def apply(self, event: Response) -> None:
        """Take over an event of a recursive watch of the path."""
        node = event.node
        if event.action == "resync":
            self._nodes = {each.key: each for each in in_order(node.nodes if node else ())}
        elif node is None:
            pass
        elif event.deleted:
            self._nodes = {key: each for key, each in self._nodes.items() if not _covers(node.key, key)}
        elif node.key.rpartition("/")[0].endswith(self._path):
            self._nodes[node.key] = node


def _covers(key: str, other: str) -> bool:
    """Whether what happens to a key as a whole happens to the other one, too."""
    return other == key or key == "/" or other.startswith(f"{key}/")
