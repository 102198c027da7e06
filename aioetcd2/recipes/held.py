"""What a holder has in hand, and how it learns that it has it no more."""

from __future__ import annotations

import asyncio

from ..errors import LockLostError
from ._places import Place

__all__ = ["Held"]


class Held:
    """A lock that is held; or a share of a semaphore, or the leadership of an election.

    Made by `Lock.acquire()` and by `async with`.

    Attributes:
        key: The key that stands for it.
        token: The `created_index` of that key. Of a lock and of an election: higher for each later holder of the path,
            for as long as the cluster lives. Let what you write to refuse a lower one than it has seen.
        name: What the holder calls itself.
        lost: Set once it is lost; not when it is released. After a stall of the process it is set late: ask `valid`.
    """

    __slots__ = ("_place", "key", "lost", "name", "token")

    _error: type[LockLostError] = LockLostError

    def __init__(self, place: Place, name: str) -> None:
        self.key: str = place.key
        self.token: int = place.token
        self.name: str = name
        self.lost: asyncio.Event = place.ended
        self._place = place

    def __repr__(self) -> str:
        state = f"{self.remaining():.1f} s left" if self.valid else self.reason or _LATE
        return f"<{type(self).__name__} {self.key} token={self.token}: {state}>"

    @property
    def valid(self) -> bool:
        """Whether it is held now. Asks the clock, and is right at once after the process or its loop stood still."""
        return self._place.valid

    @property
    def reason(self) -> str | None:
        """Why it is not held any more; `None` while it is, as far as the event loop has noticed."""
        return self._place.reason

    def remaining(self) -> float:
        """Seconds for which it is held if nothing is heard of the cluster from now on; 0.0 when it is not held."""
        return self._place.remaining()

    def check(self) -> None:
        """Go on, or not: to be called right before each act that needs the lock. Awaits nothing.

        Nothing can be done about what happens between this and the act itself but to send `token` along.

        Raises:
            LockLostError: It is not held any more.
        """
        if not self._place.valid:
            raise self._loss()

    def _loss(self) -> LockLostError:
        return self._error(self.key, self.token, self.reason or _LATE)


_LATE = "it was not kept alive in time, for this process stood still"
