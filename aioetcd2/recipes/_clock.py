"""The clock by which recipes believe: it never goes back, and runs on while this machine is suspended."""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def now() -> float:
        """Seconds since this machine was started, suspended or not."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    now = time.monotonic
