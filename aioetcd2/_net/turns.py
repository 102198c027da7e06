"""How many may do something at once, the others waiting in order: as many as the server bears."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import OrderedDict
from types import TracebackType

QUICK = 0.25
"""The part of the header timeout in which an answer shows that more can be asked at once."""


MAX_CONNECTIONS = 256
MAX_CONNECTIONS_WITH_CREDENTIALS = 16
"""How many exchanges go on at once; with credentials at first, for each costs the server 70 ms of its CPU."""


class Turns:
    """Turns that some have at once, the others waiting in order.

    While somebody waits, there is one more with each success that came quickly; there are half as many at a time-out.

    Args:
        first: How many may have a turn at first.
        most: How many may have one at the most.

    Example:
        >>> async with turns.take():
        ...     await register()
    """

    def __init__(self, first: int, most: int = sys.maxsize) -> None:
        self._most = most
        self._allowed = first
        self._bearable = sys.maxsize
        self._taken = 0
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._halved_at = -math.inf

    @property
    def allowed(self) -> int:
        """How many may have a turn at once."""
        return min(self._allowed, self._bearable)

    def take(self) -> Turn:
        """A turn to wait for and to take."""
        return Turn(self)

    def begin(self) -> bool:
        """Take a turn, if one is free: nobody waits then, for it would have been handed on."""
        if self._taken >= self._allowed or self._taken >= self._bearable:
            return False
        self._taken += 1
        return True

    async def wait(self) -> None:
        """Wait for a turn, and have it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except BaseException:
            if self._waiting.pop(turn, self) is self and not turn.cancelled():  # it has come meanwhile
                self.end()
            raise

    def end(self) -> None:
        """Give a turn back."""
        self._taken -= 1
        if self._waiting:
            self._hand_on()
        elif not self._taken:
            self._bearable = sys.maxsize

    def succeeded(self, *, quickly: bool = True) -> None:
        """The server bore it; where it was quick, and somebody waits, one more."""
        if quickly and self._waiting:
            self._allowed = min(self._most, self._allowed + 1)
            self._hand_on()

    def timed_out(self, began: float = math.inf) -> None:
        """The server did not bear it: half as many.

        Args:
            began: When it began, by the monotonic clock: many that time out together say it once.
        """
        if began > self._halved_at:
            self._halved_at = time.monotonic()
            self._allowed = max(1, self._allowed // 2)

    def is_too_many(self) -> bool:
        """This process can't bear as many as have a turn now: one less, while others wait; false for the last one."""
        self._bearable = max(1, self._taken - 1)
        return self._taken > 1

    def open(self) -> None:
        """Let all have a turn who wait for one, and whoever comes."""
        self._most = self._allowed = self._bearable = sys.maxsize
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and self._taken < self.allowed:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


class Turn:
    """One turn; an async context manager. It can be given back before its end."""

    __slots__ = ("_held", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False

    async def __aenter__(self) -> Turn:
        if not self._turns.begin():
            await self._turns.wait()
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Let another have it. Idempotent."""
        if self._held:
            self._held = False
            self._turns.end()


def turns_for_calls(most: int | None, *, with_credentials: bool) -> Turns:
    """Turns for as many calls as may be under way at once; `None` = as many as servers are known to bear."""
    if with_credentials:
        return Turns(most or MAX_CONNECTIONS_WITH_CREDENTIALS, most or MAX_CONNECTIONS)
    return Turns(most or MAX_CONNECTIONS, most or MAX_CONNECTIONS)
