"""How many may register at once: as many as the server bears."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

FIRST = 16
MOST = 128


class Turns:
    """Turns that some take at once, the others waiting in order.

    There are more with each success that came quickly, and half as many at a time-out. Those that were taken before say
    nothing new by timing out as well.

    Example:
        >>> async with turns.take():
        ...     await register()
    """

    def __init__(self, first: int = FIRST, most: int = MOST) -> None:
        self._most = most
        self._allowed = float(first)
        self._taken = 0
        self._halved = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def allowed(self) -> int:
        """How many may have a turn at once."""
        return int(self._allowed)

    def take(self) -> Turn:
        """A turn to wait for and to take."""
        return Turn(self)

    def succeeded(self, *, quickly: bool = True) -> None:
        """The server bore it; where it was quick, one more next time."""
        if quickly:
            self._allowed = min(self._most, self._allowed + 1)
            self._wake()

    def timed_out(self, turn: Turn) -> None:
        """The server did not bear it: half as many, unless that is known since this turn was taken."""
        if turn.taken_after == self._halved:
            self._halved += 1
            self._allowed = max(1.0, self._allowed / 2)

    async def _acquire(self) -> int:
        while self._taken >= self.allowed:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except BaseException:
                turn.cancel()
                self._wake()
                raise
        self._taken += 1
        return self._halved

    def _release(self) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        free = self.allowed - self._taken
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


class Turn:
    """One turn; an async context manager. It can be given back before its end.

    Attributes:
        taken_after: How often their number was halved before it was taken.
    """

    __slots__ = ("_held", "_turns", "taken_after")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False
        self.taken_after = 0

    async def __aenter__(self) -> Turn:
        self.taken_after = await self._turns._acquire()
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
            self._turns._release()
