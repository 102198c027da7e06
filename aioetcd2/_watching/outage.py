"""One outage for all watches of a client: one of them tries, the others wait for its word; one line as it begins."""

from __future__ import annotations

import asyncio
import random

from .._net.reporter import Reporter
from ..errors import EtcdError

BASE = 0.075
CAP = 1.5
"""Seconds of a pause: doubled with each failure in a row up to the cap, and jittered; none after the first."""

CALM = 2 * CAP
"""Seconds without another failure after which an outage is over: a server may accept waits and end each at once."""


def pause_after(troubles: int) -> float:
    """Seconds to wait after so many failures in a row."""
    if troubles <= 1:
        return 0.0
    return min(CAP, BASE * 2.0 ** min(troubles, 16)) * random.uniform(0.5, 1.0)


class Outage:
    """The gate through which watches go that have lost their stream, each with attempts of its own.

    The first to come tries alone. If it gets an answer, whatever that is, the gate stands open for all who wait; if it
    fails, the next one tries after a pause, and if it gives up, at once.

    Args:
        reporter: Told when an outage begins, and when it is over.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told = False
        self._calming: asyncio.TimerHandle | None = None
        self._troubles = 0
        self._next = 0.0
        self._pilot: object = None
        self._waiting: set[asyncio.Future[bool]] = set()

    async def enter(self, attempt: object) -> None:
        """Wait until this attempt may be made."""
        loop = asyncio.get_running_loop()
        while self._pilot is not None:
            turn: asyncio.Future[bool] = loop.create_future()
            self._waiting.add(turn)
            try:
                if await turn:
                    return
            finally:
                self._waiting.discard(turn)
        self._pilot = attempt
        try:
            await asyncio.sleep(max(0.0, self._next - loop.time()))
        except BaseException:
            self.leave(attempt)
            raise

    def leave(self, attempt: object) -> None:
        """This attempt is over: another one may be made."""
        if self._pilot is attempt:
            self._pilot = None
            self._wake(answered=False)

    def failed(self, attempt: object, key: str, error: EtcdError) -> None:
        """This attempt was in vain."""
        if self._pilot is not attempt:
            return
        self._troubles += 1
        self._next = asyncio.get_running_loop().time() + pause_after(self._troubles + 1)  # it has tried every endpoint
        if self._troubles > 1:
            self.lasts(key, error)
        self.leave(attempt)

    def answered(self, key: str) -> None:
        """Somebody got an answer: the gate stands open, and where no failure follows the outage is over."""
        if self._told and self._calming is None:
            self._calming = asyncio.get_running_loop().call_later(CALM, self._over, key)
        if self._pilot is None and not self._troubles:
            return
        self._pilot = None
        self._troubles = 0
        self._next = 0.0
        self._wake(answered=True)

    def lasts(self, key: str, error: EtcdError) -> None:
        """A watch can't go on for now: one line for the whole outage, however many watches."""
        self._stay()
        if not self._told:
            self._told = True
            self._reporter.watches_interrupted(key, error)

    async def pause(self, key: str, troubles: int, error: EtcdError) -> None:
        """Take breath after so many failures of one watch in a row."""
        if troubles > 1:
            self.lasts(key, error)
        await asyncio.sleep(pause_after(troubles))

    def close(self) -> None:
        """Say no more."""
        self._stay()

    def _stay(self) -> None:
        if self._calming is not None:
            self._calming.cancel()
            self._calming = None

    def _over(self, key: str) -> None:
        self._told = False
        self._calming = None
        self._reporter.watches_resumed(key)

    def _wake(self, *, answered: bool) -> None:
        for turn in list(self._waiting):
            if not turn.done():
                turn.set_result(answered)
