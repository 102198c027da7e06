"""Watching: every event after a point, each once, in order, or one clear error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from types import TracebackType

from ._v2.watch_engine import WatchEngine
from .errors import ClientClosedError
from .models import Response

__all__ = ["Watcher"]


class Watcher:
    """The events of a key, or of a directory and all below it; made by `client.keys.watch()`.

    An async iterator of `Response`, and an async context manager that enters once the server has registered the
    watch: a write that starts after that is seen.

    The watcher resumes by itself whatever the network and the members do. It raises where that is impossible:
    `EventIndexClearedError` where the server no longer holds the events and something under the key has changed, an
    `APIError` where it is refused (`UnauthorizedError`), `ClusterError` where no endpoint can be reached for the first
    registration. Later outages are waited out; a deadline is the caller's `asyncio.timeout()`.

    Cancelling `next()` loses no event: the next `next()` gives it. One task at a time may wait.

    It rests on etcd's streams and long polls (`wait=true`, `waitIndex`), and on the last 1,000 events that a member
    keeps. Nothing is read ahead of `next()` but what the connection holds, so that a slow consumer costs no memory; one
    that falls behind by more than the server keeps gets `EventIndexClearedError`.

    Example:
        >>> async for event in client.keys.watch("/services", recursive=True):
        ...     print(event.action, event.node.key, event.node.value)
    """

    __slots__ = ("__weakref__", "_engine", "_entered", "_waiting")

    def __init__(self, engine: WatchEngine) -> None:
        self._engine = engine
        self._waiting = False
        self._entered = False

    @property
    def index(self) -> int | None:
        """Where to resume: `watch(after_index=watcher.index)`. `None` before the first registration."""
        return self._engine.index

    async def __aenter__(self) -> Watcher:
        self._begin()
        self._entered = True
        try:
            while not self._engine.registered:
                await self._engine.advance()
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._waiting = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Response]:
        return _Iteration(self)

    async def __anext__(self) -> Response:
        engine = self._engine
        if engine.has_event:
            return engine.pop()
        try:
            return await self.next()
        except ClientClosedError:
            if engine.closed and not engine.client_closed:
                raise StopAsyncIteration from None
            raise

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError):  # half built, or after the end of the event loop
            self._engine.abort()

    async def next(self) -> Response:
        """Wait for the next event.

        Raises:
            EventIndexClearedError: Events are lost; the next call goes on behind them.
            APIError: The watch was refused.
            ClusterError: No endpoint could be reached to register it for the first time.
            InvalidResponseError: All that could be reached for that are no etcd.
            ClientClosedError: The watcher or its client is closed.
        """
        self._begin()
        engine = self._engine
        try:
            while not engine.has_event:
                await engine.advance()
        finally:
            self._waiting = False
        return engine.pop()

    async def aclose(self) -> None:
        """Stop watching, and free the connection at once. Idempotent."""
        await self._engine.aclose()

    def _rest(self) -> None:
        """Free the connection until the next event is asked for, but for a watcher that `async with` closes."""
        if not self._entered and not self._waiting:
            self._engine.rest()

    def _begin(self) -> None:
        if self._engine.closed:
            raise ClientClosedError("the watcher is closed")
        if self._waiting:
            raise RuntimeError("another task is waiting in this watcher; make one watcher for each")
        self._waiting = True


class _Iteration:
    """One `async for` over a watcher: when it is over, the watcher rests."""

    __slots__ = ("_watcher",)

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __aiter__(self) -> _Iteration:
        return self

    def __anext__(self) -> Coroutine[None, None, Response]:
        return self._watcher.__anext__()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # after the end of the event loop
            self._watcher._rest()
