"""Keys in memory as `LossyKeys` are, with the history that watches read, and with others who write there, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from aioetcd2 import CompareFailedError, Node, NodeExistsError, NotFileError, Response
from aioetcd2.models import Action

from .lossy_keys import Clock, LossyKeys


class SharedKeys(LossyKeys):
    """Keys whose every write has a condition: there is no other.

    Args:
        clock: What time it is.

    Attributes:
        events: The history: a refresh makes no event.
        history: Whether the server still holds it.
        on_watch: What happens right before a watch is registered, once.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.events: list[Response] = []
        self.history = True
        self.on_watch: Callable[[], object] | None = None
        self.watchers: list[History] = []
        self.happened = asyncio.Event()

    async def create(self, key: str, value: str, *, ttl: float) -> Response:
        return await self._write("create", lambda: self._put("create", key, value, None))

    async def set(self, key: str, value: str, *, ttl: float, prev_index: int) -> Response:
        return await self._write("set", lambda: self._put("compareAndSwap", key, value, prev_index))

    async def refresh(self, key: str, ttl: float, *, prev_index: int) -> Response:
        def apply() -> Response:
            node = self._compared(key, prev_index)
            self.index += 1
            self.nodes[key] = self._node(key, node.value, node.created_index)
            return Response("compareAndSwap", self.nodes[key], index=self.index)

        return await self._write("refresh", apply)

    async def delete(self, key: str, *, prev_index: int) -> Response:  # type: ignore[override]  # no delete without a condition may come here
        return await self._write("delete", lambda: self._drop(key, prev_index))

    def watch(self, key: str, *, after_index: int, resync: bool) -> History:
        assert resync
        self.sent.append(f"watch {key}")
        if self.on_watch is not None:
            happens, self.on_watch = self.on_watch, None
            happens()
        self.watchers.append(History(self, key, after_index))
        return self.watchers[-1]

    # --- what others do -----------------------------------------------------------------------------------------------

    def put(self, key: str, value: str) -> None:
        """Another takes the key over, as a registration does."""
        node = self.nodes.get(key)
        if node is None:
            self._put("create", key, value, None)
        else:
            self._put("compareAndSwap", key, value, node.modified_index)

    def drop(self, key: str) -> None:
        """Another deletes the key."""
        self._drop(key, self.nodes[key].modified_index)

    # --- what happens -------------------------------------------------------------------------------------------------

    def _put(self, action: Action, key: str, value: str, prev_index: int | None) -> Response:
        if prev_index is None and key in self.nodes:
            raise NodeExistsError(105, "Key already exists", key, self.index)
        before = None if prev_index is None else self._compared(key, prev_index)
        self.index += 1
        self.nodes[key] = self._node(key, value, before.created_index if before else self.index)
        return self._happens(Response(action, self.nodes[key], index=self.index))

    def _drop(self, key: str, prev_index: int) -> Response:
        self._compared(key, prev_index)
        self.index += 1
        del self.nodes[key]
        return self._happens(Response("compareAndDelete", self._node(key, None, 0), index=self.index))

    def _compared(self, key: str, prev_index: int) -> Node:
        node = self._there(key)
        if node.dir:
            raise NotFileError(102, "Not a file", key, self.index)
        if node.modified_index != prev_index:
            raise CompareFailedError(101, "Compare failed", f"[{prev_index} != {node.modified_index}]", self.index)
        return node

    def _node(self, key: str, value: str | None, created: int) -> Node:
        return Node(key, value, created_index=created, modified_index=self.index)

    def _happens(self, event: Response) -> Response:
        self.events.append(event)
        self.happened.set()
        self.happened = asyncio.Event()
        return event


class History:
    """A watcher of one key."""

    def __init__(self, store: SharedKeys, key: str, after: int) -> None:
        self.index = after
        self.closed = False
        self._store = store
        self._key = key
        self._lost = not store.history

    async def __aenter__(self) -> History:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    async def next(self) -> Response:
        if self._lost:
            self._lost = False
            self.index = self._store.index
            return Response("resync", self._store.nodes.get(self._key), index=self.index)
        while True:
            for event in self._store.events:
                if event.modified_index > self.index and event.key == self._key:
                    self.index = event.modified_index
                    return event
            await self._store.happened.wait()
