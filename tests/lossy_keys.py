"""Keys in memory whose writes meet the fates that a network has for them; for what is built on `KeysAPI` alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from aioetcd2 import (
    ClusterError,
    CompareFailedError,
    ConnectError,
    HeaderTimeoutError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    NodeExistsError,
    Response,
)

A = "http://a:2379"

DONE = "done"
UNSENT = "unsent"
"""It never arrived, and the caller is told so."""
ANSWER_LOST = "answer lost"
"""It was carried out, and the caller is told that nobody knows."""
DROPPED = "dropped"
"""It was never carried out, and the caller is told that nobody knows."""
LATE = "late"
"""It is carried out when the store is told to (`thaw`), and the caller is told that nobody knows."""
TWICE = "twice"
"""A copy of it comes first; the caller gets the answer to the second one."""


class LossyKeys:
    """A few keys, and the fates of the next writes.

    Args:
        clock: What time it is; each call takes `took` seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.took = 0.0
        self.nodes: dict[str, Node] = {}
        self.index = 0
        self.fates: deque[str] = deque()
        self.late: list[Callable[[], object]] = []
        self.sent: list[str] = []
        self.seconds: float | None = None

    @property
    def keys(self) -> KeysAPI:
        return cast("KeysAPI", self)

    def within(self, seconds: float) -> LossyKeys:
        self.seconds = seconds
        return self

    async def get(self, key: str, *, quorum: bool = False) -> Response:
        self.sent.append(f"get {key}{' quorum' if quorum else ''}")
        self.clock.now += self.took
        return Response("get", self._there(key), index=self.index)

    async def create(self, key: str, value: str, *, ttl: float) -> Response:
        def apply() -> Response:
            if key in self.nodes:
                raise NodeExistsError(105, "Key already exists", key, self.index)
            self.index += 1
            self.nodes[key] = Node(key, value, created_index=self.index, modified_index=self.index)
            return Response("create", self.nodes[key], index=self.index)

        return await self._write("create", apply)

    async def refresh(self, key: str, ttl: float, *, prev_index: int) -> Response:
        def apply() -> Response:
            node = self._there(key)
            if node.modified_index != prev_index:
                raise CompareFailedError(101, "Compare failed", f"[{prev_index} != {node.modified_index}]", self.index)
            self.index += 1
            self.nodes[key] = Node(key, node.value, created_index=node.created_index, modified_index=self.index)
            return Response("compareAndSwap", self.nodes[key], index=self.index)

        return await self._write("refresh", apply)

    async def delete(self, key: str, *, prev_value: str | None = None) -> Response:
        def apply() -> Response:
            node = self._there(key)
            if prev_value is not None and node.value != prev_value:
                raise CompareFailedError(101, "Compare failed", f"[{prev_value} != {node.value}]", self.index)
            self.index += 1
            return Response("delete", self.nodes.pop(key), index=self.index)

        return await self._write("delete", apply)

    def thaw(self) -> None:
        """Carry out what came late."""
        for apply in self.late:
            try:
                apply()
            except (NodeExistsError, CompareFailedError, KeyNotFoundError):
                continue
        self.late.clear()

    def _there(self, key: str) -> Node:
        if key not in self.nodes:
            raise KeyNotFoundError(100, "Key not found", key, self.index)
        return self.nodes[key]

    async def _write(self, what: str, apply: Callable[[], Response]) -> Response:
        self.sent.append(what)
        fate = self.fates.popleft() if self.fates else DONE
        await asyncio.sleep(0)
        if fate == UNSENT:
            raise ClusterError(what, [ConnectError(A, "refused")])
        if fate in (ANSWER_LOST, TWICE):
            apply()
        if fate == LATE:
            self.late.append(apply)
        self.clock.now += self.took
        if fate in (DONE, TWICE):
            return apply()
        raise ClusterError(what, [HeaderTimeoutError(A, "no answer", maybe_applied=True)])


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
