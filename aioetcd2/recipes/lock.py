"""A lock that many processes share."""

from __future__ import annotations

from ..keys import KeysAPI
from ._exclusive import Exclusive
from ._places import Holder, holder_of
from .held import Held

__all__ = ["Lock"]


class Lock(Exclusive[Held]):
    """A lock at a path: one holder at a time, first come, first served.

    No two `Held` of a path are `valid` at the same moment, whatever fails, as long as the wall clocks of the cluster's
    members agree to within `max(0.5, ttl / 10)` seconds, and nobody but these recipes writes below the path. Each
    holder's `token` is higher than those before it, for as long as the cluster lives.

    Each who waits or holds has one key below the path, one open watch, and sends `3 / ttl` requests a second. Those who
    wait watch the one before them, so that a release wakes one of them. A process that dies frees the next one after
    2/3 `ttl` to `ttl` + 0.6 s.

    A loss cancels the block, once; the block then raises `LockLostError`. An error of its own wins, and so does a
    cancellation from outside (before Python 3.11 not one that comes while the loss is on its way). Not reentrant. One
    `Lock` may be entered by many tasks at once; each waits for itself.

    It rests on keys with a TTL that are made once (`prevExist=false`) and refreshed on a condition (`prevIndex`).

    Args:
        keys: The keys of the cluster: `client.keys`.
        path: A directory that is for this lock alone; it comes into being if need be.
        ttl: Seconds after which the lock of a process that died is free; 3 and more. In them, less the margin above,
            the holder must reach the cluster.
        name: What others see; host and process ID by default.
        wait: `False` = raise `LockHeldError` where another is first.
        cancel: `False` = a loss only sets `Held.lost`; the block still raises at its end.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: `ttl` is below 3, or `name` can't be written as UTF-8.

    Examples:
        >>> async with Lock(client.keys, "/locks/db", ttl=15) as held:
        ...     held.check()
        ...     await db.write(..., fencing_token=held.token)
    """

    def __init__(
        self,
        keys: KeysAPI,
        path: str,
        *,
        ttl: float = 15.0,
        name: str | None = None,
        wait: bool = True,
        cancel: bool = True,
    ) -> None:
        super().__init__(keys, path, ttl, name, wait, cancel, Held)

    async def holder(self) -> Holder | None:
        """Who holds it, or is just about to; `None` = no one. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return holder_of(nodes[0]) if nodes else None

    async def waiting(self) -> list[Holder]:
        """Who waits for it, in order. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return [holder_of(node) for node in nodes[1:]]
