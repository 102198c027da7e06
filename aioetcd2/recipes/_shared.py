"""A key with a name that others know, too: kept alive, made again when it is gone, and never taken from a successor.

Another can write the very value that is ours, as the next process of a service does. So a value tells whose a key is
only where it differs. What tells it otherwise: whoever takes a key over makes an event, and a refresh makes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from async_timeout import timeout

from ..errors import CompareFailedError, KeyNotFoundError, NodeExistsError, NotFileError
from ..keys import KeysAPI
from ..models import Node, Response
from ._clock import now
from ._lease import Lease, LeaseGoneError
from ._patience import Pauses

ROUNDS = 5
"""Others can write between a read and a write of ours. So often in a row they do it on purpose."""

LOOK = 1.0
"""The most seconds that an event of the history is waited for. It comes together with the header of the answer."""


class LeaseTakenError(LeaseGoneError):
    """Another has written the key, and it is theirs.

    Args:
        index: The index of the cluster at which that was seen.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__("another has written its key")


class SharedLease(Lease):
    """A key that is taken over from whoever left it, and given up to whoever takes it over.

    `value` can be changed at any time; the next `refresh()` writes it.
    """

    def __init__(self, keys: KeysAPI, key: str, value: str, ttl: float, *, clock: Callable[[], float] = now) -> None:
        super().__init__(keys, key, value, ttl, clock=clock)
        self._found: Node | None = None
        """What another had left there."""
        self._sent: set[str] = set()
        """The values of the writes that are open."""

    @property
    def is_current(self) -> bool:
        """Whether the key has the value that it should."""
        return self.node is not None and self.node.value == self.value

    async def create(self) -> None:
        """Put the key there, whatever is there now: the last one to do so wins.

        Raises:
            NotFileError: It is a directory.
            EtcdError: It is not known to be there. It may be, until `delete()`.
        """
        pauses = Pauses(self.ttl / 6)
        while True:
            try:
                self._found = (await self._keys.get(self.key, quorum=True)).node
            except KeyNotFoundError:
                self._found = None
            if self._found is not None and self._found.dir:
                raise NotFileError(102, "Not a file", self.key, hint="it is a directory; register a key below it")
            try:
                return await self._write(self._put(self._found))
            except (NodeExistsError, CompareFailedError, KeyNotFoundError):  # another did something meanwhile
                await asyncio.sleep(pauses.next())

    async def refresh(self) -> None:
        """Keep the key alive, with the value that it should have; make it again where it is gone.

        Raises:
            LeaseTakenError: Another has written it.
            EtcdError: It is not known to be kept alive.
        """
        crossed = 0
        while crossed < ROUNDS:
            doubtful = self._open is not None
            if doubtful:
                await self._find_out(ours_by_default=True)
            value = self.value
            try:
                if self.node is not None and self.is_current:
                    await self._write(self._keys.refresh(self.key, self.ttl, prev_index=self.node.modified_index))
                else:
                    await self._write(self._put(self.node))
            except KeyNotFoundError:
                self.node = None
                crossed += 1
            except (NodeExistsError, CompareFailedError) as error:
                crossed += 1
                if not doubtful and isinstance(error, NodeExistsError):
                    raise self._taken(error.index) from None
                if not doubtful:
                    await self._find_out(ours_by_default=False)
            except NotFileError as error:
                raise self._taken(error.index) from None
            else:
                if self.is_current:
                    return
                crossed += value == self.value  # otherwise it was changed meanwhile
        raise LeaseGoneError("others write and delete its key all the time")

    async def delete(self) -> None:
        """Delete the key if it is ours.

        Raises:
            EtcdError: It is not known to be gone.
        """
        for _ in range(ROUNDS):
            doubtful = self._open is not None
            try:
                if doubtful:
                    await self._find_out(ours_by_default=False)
                if self.node is not None:
                    await self._keys.delete(self.key, prev_index=self.node.modified_index)
                return
            except (KeyNotFoundError, NotFileError, LeaseTakenError):
                return
            except CompareFailedError:
                if not doubtful:
                    return

    def _put(self, there: Node | None) -> Awaitable[Response]:
        self._sent.add(self.value)
        if there is None:
            return self._keys.create(self.key, self.value, ttl=self.ttl)
        return self._keys.set(self.key, self.value, ttl=self.ttl, prev_index=there.modified_index)

    def _applied(self, sent: float, node: Node | None) -> None:
        super()._applied(sent, node)
        self._sent.clear()
        self._found = None

    def _taken(self, index: int) -> LeaseTakenError:
        self.node = self._open = None
        self._sent.clear()
        return LeaseTakenError(index)

    async def _find_out(self, *, ours_by_default: bool) -> None:
        """Find out what became of the writes that are open.

        Args:
            ours_by_default: Whose the key is where the server no longer holds the events that would tell.

        Raises:
            LeaseTakenError: Another has written it.
            EtcdError: It is not known.
        """
        assert self._open is not None
        try:
            response = await self._keys.get(self.key, quorum=True)
        except KeyNotFoundError:
            self.node = self._found = None
            return
        node, before = response.node, self.node or self._found
        if node is None or (before is not None and node.modified_index == before.modified_index):
            return
        possible = self._sent if self.node is None else {*self._sent, self.node.value}
        if node.value not in possible or (self.node is not None and node.created_index != self.node.created_index):
            raise self._taken(response.index)
        if self.node is not None and await self._rewritten(self.node.modified_index, ours_by_default):
            raise self._taken(response.index)
        self._applied(self._open, node)

    async def _rewritten(self, index: int, ours_by_default: bool) -> bool:
        """Whether there was a write after this index that is none of ours."""
        async with self._keys.watch(self.key, after_index=index, resync=True) as watcher:
            try:
                async with timeout(min(LOOK, self.ttl / 6)):
                    while True:
                        event = await watcher.next()
                        if event.action == "resync":
                            return not ours_by_default
                        if event.node is None or event.node.value not in self._sent:
                            return True
            except asyncio.TimeoutError:
                return False
