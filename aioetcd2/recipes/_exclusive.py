"""A turn of one at a time: each waits for the one before it."""

from __future__ import annotations

from typing import TypeVar

from ..errors import ClusterError, LockHeldError
from ._gate import Gate
from ._order import name_of
from ._patience import Patience
from ._places import Place, holder_of
from ._tasks import first
from .held import Held

HeldT = TypeVar("HeldT", bound=Held)


class Exclusive(Gate[HeldT]):
    """A gate that lets one through at a time; a release wakes one of those who wait."""

    async def _turn(self, place: Place, patience: Patience) -> int | None:
        while (standing := await self._standing(place, patience)) is not None:
            nodes, index = standing
            ahead = [node for node in nodes if node.created_index < place.token]
            if not ahead:
                return index
            if not self._wait:
                raise LockHeldError(self._path, holder_of(ahead[0]))
            before = f"{self._path}/{name_of(ahead[-1].key)}"
            watcher = self._keys.watch(before, after_index=index, resync=True)
            try:
                await first(watcher.next(), place.ended.wait())
            except ClusterError as error:
                await patience.after(error)
            finally:
                await watcher.aclose()
        return None
