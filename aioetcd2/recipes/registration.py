"""A key that is there for as long as a block of code runs: a service in a registry."""

from __future__ import annotations

import asyncio
from types import TracebackType

from ..keys import KeysAPI
from ._arguments import check_path, check_text
from ._lease import check_ttl
from ._scheduler import Entry, scheduler_of
from ._shared import SharedLease
from ._tasks import finished

__all__ = ["Registration"]


class Registration:
    """A key that exists while the block runs.

    At entry the key is made, or taken over with a condition: the last to register wins, and what a crashed predecessor
    has left is no obstacle. Then it is refreshed, each time on the condition that nobody has written it since. Where it
    is gone, it is made again. Where another has written it, it is theirs: `registered` is false, there is one WARNING,
    and it is made again when it is gone. At the end it is removed, but only if it is still ours, so that an old process
    never removes its successor's key, be the value the same.

    Nothing that fails is raised into the block: there is one WARNING an outage, and it is tried again. A process that
    died leaves the key for `ttl` seconds at most, and half a second in which etcd notices.

    There is no task for each. Those of one event loop and one `client.keys` have at most 16 refreshes in flight
    together; a thousand with a TTL of 60 s send 50 requests a second. **Each refresh takes one of the 1,000 events that
    etcd keeps for watches**, of the whole store: make `ttl` as long as a dead process may be listed.

    It rests on keys with a TTL, on compare-and-swap by `prevIndex`, and on refreshes, which make no event.

    Args:
        keys: The keys of the cluster: `client.keys`. Use the same object for all registrations of a client.
        key: The key. Its directories come into being with it.
        value: Its value.
        ttl: Seconds that the key outlives its process by; 3 and more.
        refresh: Seconds from one refresh to the next, give or take a tenth, the first one sooner; at most half of the
            TTL. `None` = a third of it.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: `ttl` is below 3, `refresh` is not above 0 and at most `ttl / 2`, `key` is the root, or `value`
            can't be written as UTF-8.

    Examples:
        >>> async with Registration(client.keys, "/services/web/a", "10.0.0.1:80", ttl=60) as registration:
        ...     await serve()
    """

    def __init__(self, keys: KeysAPI, key: str, value: str, *, ttl: float = 60.0, refresh: float | None = None) -> None:
        self._keys = keys
        self._key = _check_key(key)
        self._value = check_text("a value", value)
        self._ttl = check_ttl(ttl)
        self._period = self._ttl / 3 if refresh is None else _check_refresh(refresh, self._ttl)
        self._entry: Entry | None = None

    def __repr__(self) -> str:
        state = "registered" if self.registered else "not registered"
        return f"<{type(self).__name__} {self._key}: {state}>"

    @property
    def key(self) -> str:
        """The key."""
        return self._key

    @property
    def value(self) -> str:
        """The value that the key has, or is to have."""
        return self._value

    @property
    def registered(self) -> bool:
        """Whether the key is there and ours, as far as is known: kept alive in time, and not seen to be another's."""
        return self._entry is not None and self._entry.is_there

    async def ready(self) -> None:
        """Wait until the key is there, ours, and has the value that was given last. Outages are waited out.

        Raises:
            ClientClosedError: The client is closed.
            RuntimeError: The block has not begun, or has ended meanwhile.
        """
        await self._entered().until_current()

    async def update(self, value: str) -> None:
        """Give the key another value, on the condition that it is still ours, and wait until it has it.

        From now on this value is registered, whatever becomes of this call. An outage is waited out; and where the key
        is another's, so is that.

        Args:
            value: The new value.

        Raises:
            TypeError: It is no text.
            ValueError: It can't be written as UTF-8.
            ClientClosedError: The client is closed.
            RuntimeError: The block has not begun, or has ended meanwhile.
        """
        entry = self._entered()
        self._value = entry.lease.value = check_text("a value", value)
        entry.change()
        await entry.until_current()

    async def __aenter__(self) -> Registration:
        if self._entry is not None:
            raise RuntimeError(f"registration {self._key}: it is entered already; make another one")
        lease = SharedLease(self._keys, self._key, self._value, self._ttl)
        self._entry = entry = Entry(self._keys, lease, self._period, scheduler_of(self._keys))
        try:
            await finished(entry.enter(), entry.grace)
        except BaseException:
            self._entry = None
            await finished(entry.leave(briefly=True), entry.grace)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry, self._entry = self._entered(), None
        await finished(entry.leave(briefly=isinstance(error, asyncio.CancelledError)), entry.grace)

    def _entered(self) -> Entry:
        if self._entry is None:
            raise RuntimeError(f"registration {self._key}: its block is not running")
        return self._entry


def _check_key(key: str) -> str:
    """A key that is not the root; whether it can be one, its first request tells.

    Raises:
        TypeError: It is no text.
        ValueError: It is the root.
    """
    if (path := check_path(key, "a key")) == "/":
        raise ValueError("the root is a directory, and no key to register")
    return path


def _check_refresh(refresh: float, ttl: float) -> float:
    if isinstance(refresh, bool) or not isinstance(refresh, (int, float)):
        raise TypeError(f"refresh is a number of seconds, not {type(refresh).__name__}")
    if not 0 < refresh <= ttl / 2:
        raise ValueError(f"refresh is above 0 and at most half of the TTL, which is {ttl:g} s, not {refresh}")
    return float(refresh)
