"""How far a watcher has come: what it has heard, what of that was asked for yet, and how many keys there are."""

from __future__ import annotations

from .._net.request import MANY_SLASHES
from ..errors import EtcdError, EventIndexClearedError
from ..models import _DELETIONS, Response
from .census import Census, Subtree
from .stream import index_of


class Position:
    """What one watcher knows.

    Args:
        key: The key that is watched, as it was given.
        recursive: Whether all below it is watched, too.
        after_index: The index after which events are wanted; `None` = after the first registration.

    Attributes:
        key: The key as the server names it, without a slash at its end.
        cursor: The index up to which everything has been heard; `None` before the first registration.
        census: How many keys there are; `None` = not known.
        pending: The events that were heard, and not given away yet, and errors among them.
    """

    __slots__ = ("_below", "_delivered", "_recursive", "census", "cursor", "key", "pending")

    def __init__(self, key: str, recursive: bool, after_index: int | None) -> None:
        self.key = MANY_SLASHES.sub("/", f"/{key}").rstrip("/")
        self._below = f"{self.key}/"
        self._recursive = recursive
        self._delivered: int | None = None
        self.cursor = after_index
        self.census: Census | None = None
        self.pending: list[Response | EtcdError] = []  # a thousand watchers feel the size of a deque

    @property
    def index(self) -> int | None:
        """The index up to which every event was given away."""
        return self._delivered if self.pending else self.cursor

    @property
    def has_event(self) -> bool:
        """Whether an event is there to be given away, or an error."""
        return bool(self.pending)

    def raise_error(self) -> None:
        """Raise what is to be given away next, if it is an error.

        Raises:
            EtcdError: It is.
        """
        if self.pending and isinstance(self.pending[0], EtcdError):
            self.pop()

    @property
    def reached(self) -> int:
        """The cursor; 0 where there is none."""
        return self.cursor or 0

    def begin(self, index: int) -> None:
        """Begin at an index, where none was given."""
        if self.cursor is None and index > 0:
            self.cursor = index

    def take(self, event: Response) -> bool:
        """Move on to an event; false if it was known already."""
        node = event.node
        if node is None or node.modified_index <= self.reached:
            return False
        if self._concerns(node.key, event.action):
            if self.census is not None and not self.census.follow(event):
                self.census = None
            self._add(event)
        self.cursor = node.modified_index
        return True

    def skip(self, index: int, tree: Subtree) -> None:
        """Move on to what was there at an index, whatever happened before."""
        self.cursor = index
        self.count(index, tree)

    def count(self, index: int, tree: Subtree) -> None:
        """Keep the number of keys there were at an index."""
        self.census = Census(index, tree, self.key, self._recursive)

    def resync(self, index: int, tree: Subtree) -> None:
        """Move on likewise, with an event that says so."""
        self._add(Response("resync", tree.node, index=index))
        self.skip(index, tree)

    def pop(self) -> Response:
        """Give away the oldest event.

        Raises:
            EtcdError: It is an error.
        """
        event = self.pending.pop(0)
        if isinstance(event, EtcdError):
            if isinstance(event, EventIndexClearedError):
                self._delivered = event.index
            raise event
        self._delivered = event.index if event.action == "resync" else index_of(event)
        return event

    def tell(self, error: EtcdError) -> None:
        """Have an error among the events."""
        if not self.pending:
            self._delivered = self.cursor
        self.pending.append(error)

    def give_up(self) -> None:
        """Go back to what was given away."""
        self.cursor = self.index
        self.pending.clear()

    def may_have_missed(self, tree: Subtree) -> bool:
        """Whether anything under the key may have changed after the cursor, going by what is there now.

        A node that is still the same proves that nothing happened to it; below it a deletion leaves no trace but a
        smaller number of keys.
        """
        if self.cursor is None or tree.newest > self.cursor:
            return True
        if tree.node is not None and not tree.is_whole_directory:
            return False
        return self.census is None or self.census.is_missing_some(tree)

    def _add(self, event: Response) -> None:
        if not self.pending:
            self._delivered = self.cursor
        self.pending.append(event)

    def _concerns(self, key: str, action: str) -> bool:
        """Whether an event is one of this watch; what the server hands out from its history is not always."""
        if key.startswith(self._below):
            return self._recursive and "/_" not in key[len(self.key) :]
        return key == self.key or (action in _DELETIONS and self.key.startswith(f"{key.rstrip('/')}/"))
