"""How long ago a watch was last heard, also while it is not registered."""

from __future__ import annotations

import asyncio
import time

from ..watch import Watcher
from ._clock import now

EACH = 1.0
"""Seconds after which it is asked again: an outage begins without a word, and takes what was known with it."""


class Age:
    """Counts from the last sign of life of a watch.

    Args:
        watcher: The watch, which has just begun.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._known: float | None = None
        self._apart = now() - time.monotonic()  # grows where the machine is suspended
        self._heard = now()
        self._timer: asyncio.TimerHandle | None = None
        self._ask_again()

    def stop(self) -> None:
        """Ask no more; it grows from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def seconds(self) -> float:
        """How long ago that was."""
        self._ask()
        return now() - self._heard

    def is_above(self, seconds: float) -> bool:
        """Whether it is more than so many seconds; cheap where it was not when it was asked last."""
        return now() - self._heard > seconds and self.seconds > seconds

    def _ask(self) -> None:
        known = self._watcher.last_heard
        if known is not None and known != self._known:
            self._known = known
            self._heard = max(self._heard, known + self._apart)  # as if no suspension came before it, to be sure
        self._apart = now() - time.monotonic()

    def _ask_again(self) -> None:
        self._ask()
        self._timer = asyncio.get_running_loop().call_later(EACH, self._ask_again)
