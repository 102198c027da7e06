"""A lock with several holders."""

from __future__ import annotations

from ..errors import ClusterError, LockHeldError
from ..keys import KeysAPI
from ..watch import Watcher
from ._gate import Gate
from ._order import Order, name_of
from ._patience import Patience
from ._places import Holder, Place, holder_of
from ._tasks import first
from .held import Held

__all__ = ["Semaphore"]


class Semaphore(Gate[Held]):
    """A semaphore at a path: at most `limit` holders at a time, first come, first served.

    What is said of `Lock` holds here, too: belief, loss, fairness, what is left behind. Only that `token` is an
    identity and **no fence**: an older holder with a lower one is still right.

    Any of the holders may go first. So each who waits watches the directory, and reckons from the events, without a
    request.

    Args:
        keys: The keys of the cluster: `client.keys`.
        path: A directory that is for this semaphore alone; it comes into being if need be.
        limit: How many may hold it at a time, by this process's reckoning; let all use the same.
        ttl: Seconds after which the share of a process that died is free; 3 and more.
        name: What others see; host and process ID by default.
        wait: `False` = raise `LockHeldError` where it is full.
        cancel: `False` = a loss only sets `Held.lost`; the block still raises at its end.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: `limit` is below 1, `ttl` is below 3, or `name` can't be written as UTF-8.

    Examples:
        >>> async with Semaphore(client.keys, "/semaphores/reports", 3) as held:
        ...     await make_report()
    """

    def __init__(
        self,
        keys: KeysAPI,
        path: str,
        limit: int,
        *,
        ttl: float = 15.0,
        name: str | None = None,
        wait: bool = True,
        cancel: bool = True,
    ) -> None:
        super().__init__(keys, path, ttl, name, wait, cancel, Held)
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit is an int, not {type(limit).__name__}")
        if limit < 1:
            raise ValueError(f"limit is at least 1, not {limit}")
        self._limit = limit

    async def holders(self) -> list[Holder]:
        """Who holds it, or is just about to, in order. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return [holder_of(node) for node in nodes[: self._limit]]

    async def waiting(self) -> list[Holder]:
        """Who waits for it, in order. A read with quorum."""
        nodes, _ = await self._listed(quorum=True)
        return [holder_of(node) for node in nodes[self._limit :]]

    async def _turn(self, place: Place, patience: Patience) -> int | None:
        while (standing := await self._standing(place, patience)) is not None:
            nodes, index = standing
            order = Order(self._path, nodes)
            if self._has_room(order, place):
                return index
            if not self._wait:
                raise LockHeldError(self._path, holder_of(nodes[0]))
            watcher = self._keys.watch(self._path, recursive=True, after_index=index, resync=True)
            try:
                await first(self._room(watcher, order, place), place.ended.wait())
            except ClusterError as error:
                await patience.after(error)
            else:
                return watcher.index
            finally:
                await watcher.aclose()
        return None

    async def _room(self, watcher: Watcher, order: Order, place: Place) -> None:
        """Wait until there is room, or the place has ended."""
        while place.reason is None and not self._has_room(order, place):
            order.apply(await watcher.next())
            if not any(name_of(node.key) == name_of(place.key) for node in order.places()):
                place.end("its key is gone: it expired or was deleted")

    def _has_room(self, order: Order, place: Place) -> bool:
        return sum(node.created_index < place.token for node in order.places()) < self._limit
