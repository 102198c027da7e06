"""A key that this process keeps alive, and how long it may believe that the key is there.

What is known of the key is the answer of the last write that was certainly carried out. What was sent since, and has no
answer, is open: it may be carried out at once, later, or never. A quorum read settles it, for no write of ours is
carried out twice: each has a condition that the first copy uses up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..errors import CompareFailedError, EtcdError, KeyNotFoundError, NodeExistsError
from ..keys import KeysAPI
from ..models import Node, Response
from ._clock import now

LEAST_TTL = 3.0
"""Below it, three tries and the margin do not fit into a TTL of whole seconds."""


class LeaseGoneError(Exception):
    """The key is not ours any more: it was deleted, it expired, or another has written it."""


def check_ttl(ttl: float) -> float:
    """A TTL that can be kept.

    Raises:
        TypeError: It is no number.
        ValueError: It is below 3 s.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl is a number of seconds, not {type(ttl).__name__}")
    if not ttl >= LEAST_TTL:
        raise ValueError(f"ttl is at least {LEAST_TTL:g} seconds, not {ttl}: a shorter one can't be kept alive in time")
    return float(ttl)


def margin_of(ttl: float) -> float:
    """How much earlier than the key expires this process stops to believe in it.

    etcd expires a key by the leader's wall clock, at a time that the wall clock of the member which took the write has
    stamped. The members' clocks may differ by as much.
    """
    return max(0.5, ttl / 10)


def maybe_applied(error: EtcdError) -> bool:
    """Whether a write that failed so may have been carried out."""
    return bool(getattr(error, "maybe_applied", False))


class Lease:
    """A key made once and kept alive, whose name or, where others know that, whose value only this process knows.

    Args:
        keys: The keys of the cluster.
        key: The key.
        value: Its value.
        ttl: Its TTL in seconds; checked.
        contested: Others make this key, too, with other values: one that is there is theirs.
        clock: Seconds.
    """

    def __init__(
        self,
        keys: KeysAPI,
        key: str,
        value: str,
        ttl: float,
        *,
        contested: bool = False,
        clock: Callable[[], float] = now,
    ) -> None:
        self.key = key
        self.value = value
        self.ttl = ttl
        self.node: Node | None = None
        """As it was when the last write that is known to be carried out had been."""
        self._keys = keys.within(ttl / 6)
        self._contested = contested
        self._clock = clock
        self._kept = -float("inf")
        self._open: float | None = None

    @property
    def interval(self) -> float:
        """Seconds from one keep-alive to the next."""
        return self.ttl / 3

    @property
    def next_due(self) -> float:
        """When the next keep-alive is to be sent, by the clock."""
        return self._kept + self.interval

    def remaining(self) -> float:
        """Seconds for which the key is certainly there, unless somebody deletes it."""
        return max(0.0, self._kept + self.ttl - margin_of(self.ttl) - self._clock())

    def until_expired(self) -> float:
        """Seconds until the key is gone if nobody keeps it alive, as far as this machine's clock can tell."""
        return max(0.0, max(self._kept, self._open or self._kept) + self.ttl - self._clock())

    async def create(self) -> None:
        """Make the key. Called again after an error it goes on from there: there is never a second key.

        Raises:
            NodeExistsError: It is contested, and another has made it.
            LeaseGoneError: Likewise.
            EtcdError: It is not known to be there. It may be, where `maybe_applied(error)`.
        """
        if self._open is not None and await self._settle():
            return
        try:
            await self._write(self._keys.create(self.key, self.value, ttl=self.ttl))
        except EtcdError:
            if self._open is None or not await self._settle():
                raise

    async def refresh(self) -> None:
        """Keep the key alive.

        Raises:
            LeaseGoneError: It is not ours any more.
            EtcdError: It is not known to be kept alive.
        """
        assert self.node is not None
        if self._open is not None and await self._settle():
            return
        try:
            await self._write(self._keys.refresh(self.key, self.ttl, prev_index=self.node.modified_index))
        except KeyNotFoundError:
            raise LeaseGoneError("its key is gone: it expired or was deleted") from None
        except CompareFailedError:
            if not await self._settle():
                raise

    async def delete(self) -> None:
        """Delete the key, wherever it is in its life, and no one else's.

        Raises:
            EtcdError: It is not known to be gone.
        """
        with suppress(KeyNotFoundError, CompareFailedError):
            await self._keys.delete(self.key, prev_value=self.value if self._contested else None)

    async def _write(self, call: Awaitable[Response]) -> None:
        """Send a write. Until its fate is known it is open, whatever becomes of this task."""
        sent, before = self._clock(), self._open
        self._open = sent if before is None else before
        try:
            response = await call
        except EtcdError as error:
            copied = CompareFailedError if self._contested else (NodeExistsError, CompareFailedError)
            if not maybe_applied(error) and not isinstance(error, copied):
                self._open = before  # those two: perhaps a copy of this very request came first
            raise
        self._applied(sent, response.node)

    def _applied(self, sent: float, node: Node | None) -> None:
        self.node = node
        self._kept = sent
        self._open = None

    async def _settle(self) -> bool:
        """Find out whether a write that is open was carried out; what it did counts from the first that is open.

        Raises:
            LeaseGoneError: The key was ours, and is not any more.
            EtcdError: It is not known.
        """
        assert self._open is not None
        try:
            node = (await self._keys.get(self.key, quorum=True)).node
        except KeyNotFoundError:
            if self.node is None:
                return False
            raise LeaseGoneError("its key is gone: it expired or was deleted") from None
        known = self.node
        if node is None or node.value != self.value or (known and node.created_index != known.created_index):
            raise LeaseGoneError("another has written its key")
        if known and node.modified_index == known.modified_index:
            return False
        self._applied(self._open, node)
        return True
