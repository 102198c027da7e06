"""A leader among many, whom everybody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import msgspec

from ..errors import ClusterError, LeadershipLostError
from ..keys import KeysAPI
from ..models import Node
from ._exclusive import Exclusive
from ._order import Order
from ._patience import Patience
from ._places import holder_of
from .held import Held

__all__ = ["Election", "Leader", "Term"]


class Leader(msgspec.Struct, frozen=True):
    """Who leads, or would.

    Attributes:
        name: What it calls itself.
        token: The token of its term; higher for each later leader.
    """

    name: str
    token: int


class Term(Held):
    """The time for which one leads: a `Held`, whose loss is a `LeadershipLostError`."""

    __slots__ = ()

    _error = LeadershipLostError


class Election:
    """An election at a path: one leader at a time, and the others wait in the order in which they came.

    To lead is to hold a `Lock`: no two terms are `valid` at the same moment, and what is said of locks holds here, too.
    Candidates and bystanders use the same path.

    Args:
        keys: The keys of the cluster: `client.keys`.
        path: A directory that is for this election alone; it comes into being if need be.
        name: What others see of this candidate: an address, perhaps.
        ttl: Seconds after which a leader that died is followed by the next; 3 and more.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: `ttl` is below 3, or `name` can't be written as UTF-8.

    Examples:
        >>> election = Election(client.keys, "/leaders/scheduler", name="10.0.0.7:8080")
        >>> async with election.lead() as term:
        ...     while True:
        ...         term.check()
        ...         await schedule(fencing_token=term.token)
    """

    def __init__(self, keys: KeysAPI, path: str, *, name: str, ttl: float = 15.0) -> None:
        self._keys = keys
        self._candidacy = _Candidacy(keys, path, ttl, name, True, True, Term)

    def lead(self) -> AbstractAsyncContextManager[Term]:
        """Wait to be the leader, and lead for as long as the block runs.

        A loss cancels the block, once; it then raises `LeadershipLostError`. Entering raises what
        `Lock.acquire()` does.
        """
        return self._candidacy

    async def leader(self) -> Leader | None:
        """Who leads, or is just about to; `None` = no one. A read with quorum."""
        return _first_of(await self._candidacy.listed())

    async def candidates(self) -> list[Leader]:
        """The leader, and who would follow, in order. A read with quorum."""
        return [_leader(node) for node in await self._candidacy.listed()]

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Who leads now, and then every change, in order; `None` while no one does. It never ends by itself.

        One list with quorum, and one recursive watch from its index on. Where events are lost it gives the leader as it
        is then. Equal ones in succession are given once. Outages are waited out, but for the first request.

        Raises:
            ClusterError: No endpoint answered the list.
            APIError: The cluster refuses (`UnauthorizedError`).
            ClientClosedError: The client is closed.
        """
        nodes, index = await self._candidacy.listed_at()
        order = Order(self._candidacy.path, nodes)
        last = _first_of(order.places())
        yield last
        patience = Patience(f"observation of {self._candidacy.path}", 2.0)
        while True:
            watcher = self._keys.watch(self._candidacy.path, recursive=True, after_index=index, resync=True)
            try:
                async for event in watcher:
                    patience.over()
                    order.apply(event)
                    index = watcher.index or index
                    if (now := _first_of(order.places())) != last:
                        last = now
                        yield now
            except ClusterError as error:
                await patience.after(error)


class _Candidacy(Exclusive[Term]):
    """The places of an election."""

    @property
    def path(self) -> str:
        """The directory of the places."""
        return self._path

    async def listed(self) -> list[Node]:
        """The places now, by quorum."""
        return (await self._listed(quorum=True))[0]

    async def listed_at(self) -> tuple[list[Node], int]:
        """The places now, by quorum, and the index of the answer."""
        return await self._listed(quorum=True)


def _leader(node: Node) -> Leader:
    holder = holder_of(node)
    return Leader(holder.name, holder.token)


def _first_of(nodes: list[Node]) -> Leader | None:
    return _leader(nodes[0]) if nodes else None
