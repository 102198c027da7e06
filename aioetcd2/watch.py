"""Watching: every event after a point, each once, in order, or one clear error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import ClientClosedError
from .models import Response

if TYPE_CHECKING:
    from ._watching.driver import Driver
    from ._watching.steps import Machine

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

    Examples:
        >>> async for event in client.keys.watch("/services", recursive=True):
        ...     print(event.action, event.key, event.prev_value)
    """

    __slots__ = ("__weakref__", "_driver", "_entered", "_machine", "_waiting")

    def __init__(self, driver: Driver, machine: Machine) -> None:
        self._driver = driver
        self._machine = machine
        self._waiting = False
        self._entered = False

    @property
    def index(self) -> int | None:
        """Where to resume: `watch(after_index=watcher.index)`. `None` before the first registration."""
        return self._machine.position.index

    @property
    def last_heard(self) -> float | None:
        """When this watch was last known to be alive, in seconds of `time.monotonic()`.

        The time of its last event, of its registration, or of the last probe that its endpoint has answered, whichever
        came last; `None` while it is not registered.
        """
        return self._driver.last_heard

    async def __aenter__(self) -> Watcher:
        self._begin()
        self._entered = True
        try:
            while not self._machine.registered and not self._machine.position.has_event:
                await self._driver.advance()
            if not self._machine.registered:
                self._machine.position.raise_error()
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
        if self._machine.position.has_event:
            return self._taken()
        try:
            return await self.next()
        except ClientClosedError:
            if self._driver.closed and not self._driver.client_closed:
                raise StopAsyncIteration from None
            raise

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError):  # half built, or after the end of the event loop
            self._driver.abort()

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
        try:
            while not self._machine.position.has_event:
                await self._driver.advance()
        finally:
            self._waiting = False
        return self._taken()

    def _taken(self) -> Response:
        event = self._machine.position.pop()
        self._driver.tally.events += 1
        return event

    async def aclose(self) -> None:
        """Stop watching, and free the connection at once. Idempotent."""
        await self._driver.aclose()

    def _rest(self) -> None:
        """Free the connection until the next event is asked for, but for a watcher that `async with` closes."""
        if not self._entered and not self._waiting:
            self._driver.rest()

    def _begin(self) -> None:
        if self._driver.closed:
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
