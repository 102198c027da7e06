"""A lock that many processes share."""

from __future__ import annotations

from ..errors import ClusterError, LockHeldError
from ..keys import KeysAPI
from ._gate import Gate
from ._patience import Patience
from ._places import Holder, Place, holder_of
from ._tasks import first
from .held import Held

__all__ = ["Lock"]


class Lock(Gate[Held]):
    """A lock at a path: one holder at a time, first come, first served.

    No two `Held` of a path are `valid` at the same moment, whatever fails, as long as the wall clocks of the cluster's
    members agree to within `max(0.5, ttl / 10)` seconds, and nobody but these recipes writes below the path. Each
    holder's `token` is higher than those before it, for as long as the cluster lives.

    Each who waits or holds has one key below the path, one open watch, and sends `3 / ttl` requests a second. Those who
    wait watch the one before them, so that a release wakes one of them. A process that dies frees the next one after
    2/3 `ttl` to `ttl` + 0.6 s.

    A loss cancels the block, once; the block then raises `LockLostError`. An error of its own wins, and so does a
    cancellation from outside. Not reentrant. One `Lock` may be entered by many tasks at once; each waits for itself.

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

    async def acquire(self) -> Held:
        """Wait for the lock, for a holder that is no block; there is no body to be cancelled.

        An outage of the cluster is waited out, but for the first request.

        Raises:
            LockHeldError: Another is first, and `wait` is false.
            ClusterError: No endpoint answered the first request.
            APIError: The cluster refuses (`UnauthorizedError`); the path leads through a file (`NotDirError`).
            V2DisabledError: The cluster does not serve the v2 API.
            ClientClosedError: The client is closed.
        """
        return await self._acquire()

    async def release(self, held: Held) -> None:
        """Let the next one have it. Does nothing where it is lost or was released before.

        While the cluster is away, it is tried for as long as the key would live.

        Args:
            held: What `acquire()` has returned.
        """
        await self._release(held)

    async def holder(self) -> Holder | None:
        """Who holds it, or is just about to; `None` = no one. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return holder_of(nodes[0]) if nodes else None

    async def waiting(self) -> list[Holder]:
        """Who waits for it, in order. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return [holder_of(node) for node in nodes[1:]]

    async def _turn(self, place: Place, patience: Patience) -> int | None:
        while (standing := await self._standing(place, patience)) is not None:
            nodes, index = standing
            ahead = [node for node in nodes if node.created_index < place.token]
            if not ahead:
                return index
            if not self._wait:
                raise LockHeldError(self._path, holder_of(ahead[0]))
            watcher = self._keys.watch(ahead[-1].key, after_index=index, resync=True)
            try:
                await first(watcher.next(), place.ended.wait())
            except ClusterError as error:
                await patience.after(error)
            finally:
                await watcher.aclose()
        return None
