"""Waiting for a turn among the places of a path, and a block of code that ends when the place does."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, TypeVar

from ..errors import ClusterError, KeyNotFoundError, LockLostError, NotDirError
from ..keys import KeysAPI
from ..models import Node
from ._arguments import check_name, check_path
from ._lease import check_ttl
from ._order import in_order, name_of
from ._patience import Patience, logger
from ._places import Place
from .held import Held

HeldT = TypeVar("HeldT", bound=Held)


class Gate(ABC, Generic[HeldT]):
    """A path at which places wait for their turn.

    Args:
        keys: The keys of the cluster.
        path: The directory of the places.
        ttl: Seconds that a place outlives its process by.
        name: Who is waiting, for people.
        wait: Whether to wait at all.
        cancel: Whether a loss cancels the block.
        held: What a holder gets.
    """

    def __init__(
        self,
        keys: KeysAPI,
        path: str,
        ttl: float,
        name: str | None,
        wait: bool,
        cancel: bool,
        held: type[HeldT],
    ) -> None:
        self._keys = keys
        self._path = check_path(path)
        self._ttl = check_ttl(ttl)
        self._name = check_name(name)
        self._wait = wait
        self._cancel = cancel
        self._held = held
        self._what = f"{type(self).__name__.lower()} {self._path}"
        self._blocks: dict[asyncio.Task[object] | None, Block[HeldT]] = {}

    @abstractmethod
    async def _turn(self, place: Place, patience: Patience) -> int | None:
        """Wait until it is this place's turn; the index at which it was. `None` if the place has ended meanwhile."""

    async def acquire(self) -> HeldT:
        """Wait for the turn, for a holder that is no block; there is no body to be cancelled.

        An outage of the cluster is waited out, but for the first request.

        Raises:
            LockHeldError: Another is first, and `wait` is false.
            ClusterError: No endpoint answered the first request.
            APIError: The cluster refuses (`UnauthorizedError`); the path leads through a file (`NotDirError`).
            V2DisabledError: The cluster does not serve the v2 API.
            ClientClosedError: The client is closed.
        """
        patience = Patience(self._what, self._ttl / 6)
        place = self._place(patience)
        await place.take()
        while True:
            try:
                index = await self._turn(place, patience)
                if index is not None:
                    await place.believed()
                    if place.reason is None:
                        place.hold(index)
                        return self._held(place, self._name)
            except BaseException:
                await place.leave(briefly=True)
                raise
            await place.leave()
            if place.refusal is not None:
                raise place.refusal
            logger.warning("%s: lost its place while it waited, and takes one at the end: %s", self._what, place.reason)
            place = await self._taken_anew(patience)

    async def release(self, held: HeldT) -> None:
        """Let the next one have it. Does nothing where it is lost or was released before.

        While the cluster is away, it is tried for as long as the key would live.

        Args:
            held: What `acquire()` has returned.
        """
        await held._place.leave()

    async def _taken_anew(self, patience: Patience) -> Place:
        while True:
            place = self._place(patience)
            try:
                await place.take()
            except ClusterError as error:
                await patience.after(error)
            else:
                return place

    def _place(self, patience: Patience) -> Place:
        return Place(self._keys, self._path, self._name, self._ttl, self._what, patience)

    # --- who is there ------------------------------------------------------------------------------------------------

    async def _listed(self, quorum: bool) -> tuple[list[Node], int]:
        """The places now, and the index of the answer."""
        try:
            response = await self._keys.get(self._path, quorum=quorum)
        except KeyNotFoundError as absent:
            return [], absent.index
        if response.node is None or not response.node.dir:
            raise NotDirError(104, "Not a directory", self._path, response.index, hint="the path of a recipe is one")
        return in_order(response.nodes), response.index

    async def _standing(self, place: Place, patience: Patience) -> tuple[list[Node], int] | None:
        """The places, with this one among them; `None` if it has ended.

        An answer from before this place was made tells nothing. In any later one, all that are before it are there:
        they can go, and never come.
        """
        while place.reason is None:
            try:
                nodes, index = await self._listed(quorum=False)
                if index < place.token:
                    nodes, index = await self._listed(quorum=True)
            except ClusterError as error:
                if not self._wait:
                    raise
                await patience.after(error)
                continue
            patience.over()
            if any(name_of(node.key) == name_of(place.key) for node in nodes):
                return nodes, index
            place.end("its key is gone: it expired or was deleted")
        return None

    # --- a block of code ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> HeldT:
        task = asyncio.current_task()
        if task in self._blocks:
            raise RuntimeError(f"{self._what}: this task is in it already, and would wait for itself")
        held = await self.acquire()
        self._blocks[task] = Block(held, task if self._cancel else None)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        if task not in self._blocks and len(self._blocks) == 1:
            (task,) = self._blocks  # entered by a task that is no more, as fixtures are
        block = self._blocks.pop(task)
        loss = block.end()
        was_ours = block.takes_back(error)
        await block.held._place.leave(briefly=isinstance(error, asyncio.CancelledError))
        if loss is not None and (error is None or was_ours):
            raise loss from error


class Block(Generic[HeldT]):
    """The body of an `async with`, which is cancelled once if the place ends before it.

    Args:
        held: What it holds.
        task: Its task; `None` = it is not to be cancelled.
    """

    def __init__(self, held: HeldT, task: asyncio.Task[object] | None) -> None:
        self.held = held
        self._task = task
        self._cancelled = False
        self._cancellations = 0
        if task is not None:
            if sys.version_info >= (3, 11):
                self._cancellations = task.cancelling()
            held._place.on_end = self._cancel

    def _cancel(self) -> None:
        assert self._task is not None
        self._cancelled = self._task.cancel(f"{self.held.key} is not held any more: {self.held.reason}")

    def end(self) -> LockLostError | None:
        """It is over, and will not be cancelled any more; the error if it was lost."""
        self.held._place.on_end = None
        return None if self.held.valid else self.held._loss()

    def takes_back(self, error: BaseException | None) -> bool:
        """Take back the cancellation, if there was one; whether this error is it, and no one else's."""
        if not self._cancelled or self._task is None:
            return False
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancellations:
            return False
        return isinstance(error, asyncio.CancelledError)
