"""Many keys that one client keeps alive in one event loop: a few requests at a time, and no task for each.

A process that wakes for each request alone pays for it up to three times: turns that are some time off come together.

A key is *due*, *running* or *planned*. Where all endpoints are out of reach, one of those that are due tries for all.
"""

from __future__ import annotations

import asyncio
import random
from weakref import WeakSet

from ..errors import APIError, ClientClosedError, EtcdError
from ..keys import KeysAPI
from ._clock import now
from ._patience import Pauses, logger
from ._shared import LeaseTakenError, SharedLease
from ._tasks import stopped

AT_ONCE = 16
"""Refreshes in flight."""

JITTER = 0.1

LONGEST_PAUSE = 2.0
"""Seconds from one try of a key to the next while it fails."""

TOGETHER = 0.25
"""Seconds from some turns that come at once to the next ones. What comes before `LONGEST_PAUSE` is over comes alone."""

LONGEST_PAUSE_IN_OUTAGE = 0.5
"""Seconds from one try of any key to the next while nothing answers."""

LEAVING = 10.0
"""Seconds in an outage for which keys that are left are tried to be removed; all together, not each."""


class Entry:
    """One key, from the time it is put there until it is left.

    Args:
        keys: The keys of the cluster.
        lease: The key.
        period: Seconds from one refresh to the next.
        scheduler: Gives it its turns.
    """

    def __init__(self, keys: KeysAPI, lease: SharedLease, period: float, scheduler: Scheduler) -> None:
        self.lease = lease
        self.what = f"registration {lease.key}"
        self.pauses = Pauses(min(lease.ttl / 6, LONGEST_PAUSE))
        self.timer: asyncio.TimerHandle | None = None
        self.left = False
        self._keys = keys
        self._period = period
        self._scheduler = scheduler
        self._watching: asyncio.Task[None] | None = None
        self._closed: ClientClosedError | None = None
        self._changed = asyncio.Event()

    @property
    def is_there(self) -> bool:
        """Whether the key is there and ours, as far as is known."""
        return self._closed is None and self.lease.node is not None and self.lease.remaining() > 0

    @property
    def waits_for_another(self) -> bool:
        """Whether the key is another's, or the client is closed: there are no turns then."""
        return self._watching is not None or self._closed is not None

    async def enter(self) -> None:
        """Put the key there."""
        await self.lease.create()
        self._scheduler.plan(self, self._first())

    async def leave(self, *, briefly: bool) -> None:
        """Delete the key if it is ours, and stop all that goes on for it.

        Args:
            briefly: Try once.
        """
        self.left = True
        self._changed.set()
        running = self._scheduler.forget(self)
        try:
            if running is not None:
                await asyncio.wait([running], timeout=self.grace)
        finally:
            await stopped(*(task for task in (running, self._watching) if task is not None))
            self._scheduler.over(self)
        pauses = Pauses(LONGEST_PAUSE_IN_OUTAGE)
        while self._watching is None and self._scheduler.may_still_leave and self.lease.until_expired() > 0:
            try:
                await self.lease.delete()
                return
            except ClientClosedError:
                return
            except EtcdError as error:
                self._scheduler.fails_to_leave(self, error)
                if briefly or isinstance(error, APIError):
                    return
            await asyncio.sleep(pauses.next())

    def change(self) -> None:
        """The value that it should have may be another one now."""
        if not self.lease.is_current:
            self._scheduler.hurry(self)

    @property
    def grace(self) -> float:
        """Seconds that the end of a request is waited for after a cancellation."""
        return self.lease.ttl / 6

    async def turn(self) -> float | None:
        """Do for the key what is to be done now; the seconds until the next turn, if there is one."""
        before, smooth = self.lease.node, self.pauses.taken == 0
        try:
            await self.lease.refresh()
        except LeaseTakenError as taken:
            logger.warning("%s: another has written it; it is made again when it is gone", self.what)
            self._watching = asyncio.create_task(self._watch(taken.index), name=f"{self.what}: watch")
            return None
        except ClientClosedError as error:
            self._closed = error
            raise
        finally:
            self._changed.set()
        after = self.lease.node
        if smooth and before and after and before.created_index == after.created_index:
            return self._period * random.uniform(1 - JITTER, 1 + JITTER)
        return self._first()

    def refused(self) -> float:
        """The seconds until the next turn after one that was refused: there is no hurry."""
        return self._period * random.uniform(1 - JITTER, 1 + JITTER)

    def _first(self) -> float:
        """What begins together is spread over a period."""
        return random.uniform(0.0, self._period)

    async def until_current(self) -> None:
        """Wait until the key is there with the value that it should have.

        Raises:
            ClientClosedError: It never will be.
            RuntimeError: It has been left.
        """
        while not (self.is_there and self.lease.is_current):
            if self._closed is not None:
                raise self._closed
            if self.left:
                raise RuntimeError(f"{self.what}: its block has ended")
            self._changed.clear()
            await self._changed.wait()

    async def _watch(self, index: int) -> None:
        """Wait until another's key is gone."""
        pauses = Pauses(LONGEST_PAUSE)
        while True:
            try:
                async with self._keys.watch(self.lease.key, after_index=index, resync=True) as watcher:
                    self._scheduler.succeeded(self)
                    while not ((event := await watcher.next()).deleted or event.node is None):
                        index = watcher.index or index
                    break
            except ClientClosedError as error:
                self._closed = error
                self._changed.set()
                return
            except EtcdError as error:
                self._scheduler.failed(self, error)
                await asyncio.sleep(pauses.next())
        self._watching = None
        self._scheduler.hurry(self)


class Scheduler:
    """Gives turns to the keys of one client in one event loop. Made by `scheduler_of()`.

    Args:
        keys: The keys of the client.
    """

    def __init__(self, keys: KeysAPI) -> None:
        self.keys = keys
        self.loop = asyncio.get_running_loop()
        self._due: dict[Entry, None] = {}
        self._running: dict[Entry, asyncio.Task[None]] = {}
        self._failing: dict[Entry, type[BaseException]] = {}
        self._outage = False
        self._phase = random.uniform(0.0, TOGETHER)  # not that of other processes
        self._pauses = Pauses(LONGEST_PAUSE_IN_OUTAGE)
        self._pause: asyncio.TimerHandle | None = None
        self._leaving_until: float | None = None

    # --- turns -------------------------------------------------------------------------------------------------------

    def plan(self, entry: Entry, seconds: float) -> None:
        """Give it a turn later, at about that time."""
        if entry.left:
            return
        at = self.loop.time() + seconds
        if seconds > LONGEST_PAUSE:
            at = self._phase + TOGETHER * round((at - self._phase) / TOGETHER)
        entry.timer = self.loop.call_at(at, self.hurry, entry)

    def hurry(self, entry: Entry) -> None:
        """Give it a turn as soon as there is one. One that runs looks at its value again before it ends."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if not entry.left and not entry.waits_for_another and entry not in self._running:
            self._due[entry] = None
            self._go_on()

    def forget(self, entry: Entry) -> asyncio.Task[None] | None:
        """Give it no more turns; the one that it has now, if it has."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        self._due.pop(entry, None)
        self._failing.pop(entry, None)
        return self._running.get(entry)

    def over(self, entry: Entry) -> None:
        """Its turn is over, if it had one."""
        self._running.pop(entry, None)
        self._go_on()

    def _go_on(self) -> None:
        while self._due and self._pause is None and len(self._running) < (1 if self._outage else AT_ONCE):
            entry = next(iter(self._due))
            del self._due[entry]
            self._running[entry] = self.loop.create_task(self._run(entry), name=entry.what)

    async def _run(self, entry: Entry) -> None:
        pause: float | None
        try:
            pause = await entry.turn()
        except Exception as error:
            pause = self.failed(entry, error)
        else:
            self.succeeded(entry)
        if pause is not None:
            self.plan(entry, pause)
        self.over(entry)

    # --- outages -----------------------------------------------------------------------------------------------------

    def succeeded(self, entry: Entry) -> None:
        """The cluster has done what was asked for this key."""
        self._answered()
        entry.pauses = entry.pauses.anew()
        if self._failing.pop(entry, None) is not None and not self._failing:
            logger.info("%s: succeeded again, and so did all others", entry.what)

    def failed(self, entry: Entry, error: Exception) -> float | None:
        """Something has failed for this key; the seconds until its next turn."""
        self._warn(entry, error)
        if isinstance(error, ClientClosedError):
            return None
        if isinstance(error, EtcdError) and not isinstance(error, APIError):
            self._outage = True
            if self._pause is None:
                self._pause = self.loop.call_later(self._pauses.next(), self._pause_is_over)
            return entry.pauses.next()
        self._answered()
        return entry.refused()

    def _answered(self) -> None:
        self._outage = False
        self._leaving_until = None
        self._pauses = self._pauses.anew()

    def _pause_is_over(self) -> None:
        self._pause = None
        self._go_on()

    def _warn(self, entry: Entry, error: Exception) -> None:
        """Log what fails in a way in which nothing has failed so far."""
        kind = type(error)
        if kind not in self._failing.values():
            then = "is kept alive no more" if isinstance(error, ClientClosedError) else "trying again until it succeeds"
            logger.warning("%s: %s: %s", entry.what, then, error)
        self._failing[entry] = kind

    # --- leaving -----------------------------------------------------------------------------------------------------

    @property
    def may_still_leave(self) -> bool:
        """Whether there is time left for those that leave in an outage."""
        return self._leaving_until is None or now() < self._leaving_until

    def fails_to_leave(self, entry: Entry, error: EtcdError) -> None:
        """A key could not be removed."""
        logger.debug("%s: could not be removed: %s", entry.what, error)
        if self._leaving_until is None:
            self._leaving_until = now() + LEAVING
            logger.warning("%s: could not be removed, and perhaps others neither: %s", entry.what, error)


_schedulers: WeakSet[Scheduler] = WeakSet()
"""Those that registrations hold; no longer."""


def scheduler_of(keys: KeysAPI) -> Scheduler:
    """The scheduler of a client in the running loop."""
    loop = asyncio.get_running_loop()
    for scheduler in _schedulers:
        if scheduler.keys is keys and scheduler.loop is loop:
            return scheduler
    scheduler = Scheduler(keys)
    _schedulers.add(scheduler)
    return scheduler
