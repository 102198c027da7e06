"""Places in the order of a path: one key for each who wants to be there, kept alive, first come, first served.

A place is taken, waits, is held, and is left; or it ends, once and for all, whatever the network does after that:

- *taking*: its name is known before it is sent, so that a quorum read tells whether it was made. An error or a
  cancellation deletes it.
- *waiting*: it is there, for it is kept alive at a third of its TTL. What ends it: a keep-alive finds it gone, or
  written by another, or is refused.
- *held*: it is there until `Lease.remaining()` is over, and nobody has a place before it. What ends it: that time is
  over; its watch says that somebody has deleted or written it; the client is closed.
- *left*: it is deleted, or it expires.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime, timezone

import msgspec

from ..errors import APIError, ClientClosedError, ClusterError, ClusterMismatchError, EtcdError, V2DisabledError
from ..keys import KeysAPI
from ..models import Node
from ._clock import now
from ._lease import Lease, LeaseGoneError
from ._patience import Patience
from ._tasks import finished, first, stopped


class Holder(msgspec.Struct, frozen=True):
    """Who has a place in the order of a path.

    Attributes:
        name: What they call themselves.
        token: The `created_index` of their place; it orders the places.
        since: When they took the place, by their own clock and in UTC; for people only. `None` where the place was
            not made by these recipes.
    """

    name: str
    token: int
    since: datetime | None


class _Card(msgspec.Struct):
    """What is written in a place: for people, and what tells it from any other."""

    name: str
    since: datetime
    id: str = ""


_card = msgspec.json.Decoder(_Card)


def holder_of(node: Node) -> Holder:
    """Who has this place."""
    value = node.value or ""
    try:
        card = _card.decode(value)
    except msgspec.DecodeError:
        return Holder(value, node.created_index, None)
    return Holder(card.name, node.created_index, card.since)


class Place:
    """One place of this process.

    Args:
        keys: The keys of the cluster.
        path: The directory of the places.
        name: Who wants it, for people.
        ttl: Seconds that it outlives this process by, checked.
        what: What it is for, for the log.
        patience: Of those who want it.
        contested: The name of the key, which others want as well; by default it is random, and only known here.
    """

    def __init__(
        self,
        keys: KeysAPI,
        path: str,
        name: str,
        ttl: float,
        what: str,
        patience: Patience,
        *,
        contested: str | None = None,
    ) -> None:
        card = _Card(name, datetime.now(timezone.utc).replace(microsecond=0), secrets.token_hex(8))
        value = msgspec.json.encode(card).decode()
        self.lease = Lease(keys, f"{path}/{contested or card.id}", value, ttl, contested=contested is not None)
        self.ended = asyncio.Event()
        """Set when it is over for a reason other than that it was left."""
        self.reason: str | None = None
        self.refusal: EtcdError | None = None
        """What the cluster said to a place that waited, and waits no more."""
        self.on_end: Callable[[], None] | None = None
        self._keys = keys
        self._what = what
        self._patience = patience
        self._held = False
        self._keeping = patience.of_another()
        self._kept = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def key(self) -> str:
        """The key."""
        return self.lease.key

    @property
    def token(self) -> int:
        """What orders it among the others; it is taken."""
        assert self.lease.node is not None
        return self.lease.node.created_index

    @property
    def valid(self) -> bool:
        """Whether it is certainly there, as far as clocks can tell."""
        return self.reason is None and self.lease.remaining() > 0

    def remaining(self) -> float:
        """Seconds for which it is certainly there."""
        return 0.0 if self.reason is not None else self.lease.remaining()

    # --- a life ------------------------------------------------------------------------------------------------------

    async def take(self) -> None:
        """Make the key, and begin to keep it alive.

        Raises:
            NodeExistsError: It is contested, and another has it.
            LeaseGoneError: Likewise.
            EtcdError: It could not be made; nothing is left of it that a cluster within reach could know of.
        """
        try:
            await finished(self.lease.create(), self.grace)
        except BaseException:
            await self.leave(briefly=True)
            raise
        self._tasks.append(asyncio.create_task(self._keep(), name=f"{self._what}: keep-alive"))

    async def believed(self) -> None:
        """Wait until it is valid, or has ended; it may have been out of sight for a while."""
        while not self.ended.is_set() and not self.valid:
            self._kept.clear()
            await first(self._kept.wait(), self.ended.wait())

    def hold(self, index: int | None) -> None:
        """From now on its end is a loss.

        Args:
            index: At this index of the cluster it was there, and its turn; it is watched from there on. `None` = its
                holder watches it, and tells what is there (`seen`).
        """
        self._held = True
        if index is not None:
            self._tasks.append(asyncio.create_task(self._watch(index), name=f"{self._what}: watch"))
        self._arm()

    def seen(self, node: Node | None) -> None:
        """What is there after it was made. It ends where that is not what was made."""
        known = self.lease.node
        if known and node and node.created_index == known.created_index and node.value == self.lease.value:
            return
        self.end("its key was deleted, or written by another")

    def end(self, reason: str) -> None:
        """It is over. The first reason counts."""
        if self.reason is not None:
            return
        self.reason = reason
        self.ended.set()
        self._disarm()
        self._cancel_tasks()
        if self.on_end is not None:
            self.on_end()

    async def leave(self, *, briefly: bool = False) -> None:
        """Delete it, unless it has ended; a cancellation waits for that, but not for long.

        Args:
            briefly: Try once; otherwise until it would have expired.
        """
        if self._held:
            self._end_if_over()
        over = self.reason is not None
        if not over:
            self.reason = "it was released"
        self._disarm()
        self._cancel_tasks()  # they end while the key is deleted, which nobody should wait for
        try:
            if not over:
                await finished(self._delete(briefly), self.grace)
        finally:
            await stopped(*self._tasks)

    @property
    def grace(self) -> float:
        """Seconds that the end of a request is waited for after a cancellation."""
        return self.lease.ttl / 6

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _delete(self, briefly: bool) -> None:
        patience = self._patience.of_another()
        while self.lease.until_expired() > 0:
            try:
                await self.lease.delete()
            except ClusterError as error:
                if briefly:
                    return
                await patience.after(error)
            except EtcdError:
                return  # nothing more can be done, it will expire
            else:
                return

    # --- what goes on meanwhile --------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep the key alive until that is impossible."""
        patience = self._keeping
        while self.reason is None:
            await asyncio.sleep(max(0.0, self.lease.next_due - now()))
            deadline = now() + self.lease.remaining()
            try:
                await self.lease.refresh()
            except LeaseGoneError as error:
                self.end(str(error))
            except ClientClosedError:
                self.end("its client is closed")
            except ClusterMismatchError as error:
                self.end(f"the cluster is another one: {error}")
            except (APIError, V2DisabledError) as error:
                if self._held:
                    await patience.after(error)
                else:
                    self.refusal = error
                    self.end(str(error))
            except EtcdError as error:
                await patience.after(error)
            else:
                patience.over()
            if self._held and now() >= deadline:
                self._end_too_late()
            self._kept.set()

    async def _watch(self, index: int) -> None:
        """Learn at once when somebody deletes or writes the key."""
        patience = self._patience.of_another()
        while self.reason is None:
            try:
                async with self._keys.watch(self.key, after_index=index, resync=True) as watcher:
                    patience.over()
                    while self.reason is None:
                        event = await watcher.next()
                        self.seen(event.node if event.action == "resync" else None)
                        index = watcher.index or index
            except ClientClosedError:
                self.end("its client is closed")
            except EtcdError as error:
                await patience.after(error)

    # --- the deadline ------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.lease.remaining(), self._check)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        """The timer of the loop knows nothing of keep-alives and of suspensions."""
        self._end_if_over()
        if self.reason is None:
            self._arm()

    def _end_if_over(self) -> None:
        if self.lease.remaining() <= 0:
            self._end_too_late()

    def _end_too_late(self) -> None:
        cause = self._keeping.last
        self.end("it was not kept alive in time" + (f": {cause}" if cause else ", for this process stood still"))
