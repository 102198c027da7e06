"""Keys: get, set, compare-and-swap, create, refresh, delete, watch."""

from __future__ import annotations

import math
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING

from ._net.request import check_seconds, check_text
from ._v2.requests import PREFIX
from .models import Response
from .watch import Watcher

if TYPE_CHECKING:
    from .client import Client

__all__ = ["KeysAPI"]

MAX_TTL = 7_000_000_000
"""Somewhat above this the server's clock overflows, and it makes the key permanent without a word."""


class KeysAPI:
    """The keys of a cluster; `client.keys`.

    Every call raises, besides what it names itself: `ClusterError` where no endpoint answered, `UnauthorizedError`,
    `InvalidFieldError` and other `APIError`s as the server says, `V2DisabledError`, `ClientClosedError`; and before
    anything is sent, `TypeError` and `ValueError` for a key, a value or an option that the server would misread.

    A key is any text. A leading slash is added where it is missing, repeated slashes fold into one; every other
    character reaches the server as given. Keys below a segment that begins with `_` are hidden from listings.

    A `get` goes on to the next endpoint when one fails. A write is sent once: it goes on only where the failed endpoint
    certainly never got it, and otherwise it raises, with `ClusterError.maybe_applied` true. With
    `Client(repeat_writes=True)` writes without a condition (`set`, `update`, `refresh`, `mkdir(prev_exist=None)`) go on
    as well.

    No client can take back a write that is under way. A member that was frozen carries out what it was sent once it
    goes on, after all that was written meanwhile. Where the order matters, write with a condition (`prev_index`).

    Args:
        client: The client that sends the requests.
        prefix: Where the server has its keys, `/v2/keys`; a longer one, as `/v2/keys/app`, confines these keys to a
            subtree.

    Examples:
        >>> await client.keys.set("/config/port", "8080", ttl=60)
        >>> (await client.keys.get("/config/port")).value
        '8080'
    """

    def __init__(self, client: Client, prefix: str = PREFIX) -> None:
        self._engine = client._keys_engine(prefix)
        self._quorum = client._quorum

    def within(self, seconds: float) -> KeysAPI:
        """The same keys, where each try at an endpoint gets less time: for a lease that has to be kept by then.

        It counts as `header_timeout` does, for each endpoint anew: it is no deadline of a call, and an endpoint that
        misses it has failed. A watch keeps to the client's header timeout. Costs nothing worth saving: make one for
        each call, if you like.

        Args:
            seconds: The most for each try; the client's `header_timeout`, and that of an outer `within()`, still hold.

        Raises:
            TypeError: It is no number.
            ValueError: It is zero or less, or has no end.

        Examples:
            >>> await client.keys.within(0.5).refresh("/lease", 5, prev_index=index)
        """
        hurried = copy(self)
        hurried._engine = self._engine.within(check_seconds("seconds", seconds))
        return hurried

    async def get(
        self, key: str, *, recursive: bool = False, sort: bool = False, quorum: bool | None = None
    ) -> Response:
        """Read a key, or list a directory.

        An answer older than what this client has already seen (a follower that lags) is asked for again with quorum.

        Args:
            key: The key.
            recursive: List the whole subtree, not only the directory's own children.
            sort: List in the order of the keys; otherwise in no order.
            quorum: Let the whole cluster answer, so that the read is linearizable; it needs a quorum and takes the
                time of a write. `None` = as the client was told.

        Raises:
            KeyNotFoundError: There is no such key.
        """
        return await self._engine.get(key, recursive, sort, self._quorum if quorum is None else quorum)

    async def set(
        self,
        key: str,
        value: str,
        *,
        ttl: float | timedelta | None = None,
        prev_value: str | None = None,
        prev_index: int | None = None,
        prev_exist: bool | None = None,
        no_value_on_success: bool = False,
    ) -> Response:
        """Write a key; its directories come into being with it. With a condition this is a compare-and-set.

        Args:
            key: The key.
            value: The new value.
            ttl: Seconds until the key expires, fractions rounded up. `None` = never, and takes away a TTL it had.
            prev_value: Only if this is the value now. The server can't compare with an empty one
                (`PrevValueRequiredError`).
            prev_index: Only if this is the key's `modified_index` now.
            prev_exist: Only if the key exists (`True`: an update, which keeps `created_index`) or does not (`False`).
            no_value_on_success: Ask for an answer without the node (etcd 3.1 and later).

        Raises:
            CompareFailedError: The condition does not hold.
            NodeExistsError: `prev_exist` is false and the key exists.
            KeyNotFoundError: The condition needs the key, and there is none.
            NotFileError: The key is a directory.
            NotDirError: A part of the path is a file.
        """
        check_text("value", value)
        seconds = _seconds(ttl)
        _check_conditions(prev_value, prev_index)
        if prev_exist is not None and not prev_exist and (prev_value is not None or prev_index is not None):
            raise ValueError("prev_exist=False and a previous value or index exclude each other")
        return await self._engine.set(key, value, seconds, prev_value, prev_index, prev_exist, no_value_on_success)

    async def create(self, key: str, value: str, *, ttl: float | timedelta | None = None) -> Response:
        """Write a key that does not exist; sent at most once.

        Args:
            key: The key.
            value: Its value.
            ttl: Seconds until it expires; `None` = never.

        Raises:
            NodeExistsError: The key exists; this call has not made it.
        """
        return await self.set(key, value, ttl=ttl, prev_exist=False)

    async def update(self, key: str, value: str, *, ttl: float | timedelta | None = None) -> Response:
        """Write a key that exists; it keeps its `created_index`.

        Args:
            key: The key.
            value: Its new value.
            ttl: Seconds until it expires; `None` = never, and takes away a TTL it had.

        Raises:
            KeyNotFoundError: There is no such key.
        """
        return await self.set(key, value, ttl=ttl, prev_exist=True)

    async def create_in_order(self, directory: str, value: str, *, ttl: float | timedelta | None = None) -> Response:
        """Write a new key whose name the server makes from the index, so that names sort as they were made.

        Sent at most once.

        Args:
            directory: Where the key goes; it comes into being if need be.
            value: Its value.
            ttl: Seconds until it expires; `None` = never.

        Raises:
            NotDirError: `directory` is a file.
        """
        return await self._engine.create_in_order(directory, check_text("value", value), _seconds(ttl))

    async def refresh(
        self,
        key: str,
        ttl: float | timedelta,
        *,
        prev_index: int | None = None,
        prev_value: str | None = None,
    ) -> Response:
        """Give a key a new TTL, and leave its value; no watch fires.

        Keep a lease alive with a condition. What was sent may be carried out late, by a member that was frozen for a
        while. Without a condition such a late copy shortens or stretches the TTL that was given since, perhaps that of
        another owner; with one, it is refused.

        A refresh moves the key's `modified_index`, which is the next one's `prev_index`. It makes no event, but takes
        one of the 1,000 places in the history. With a condition, etcd 2.3.0 to 2.3.6 wipe the value.

        Args:
            key: The key.
            ttl: Seconds from now, fractions rounded up.
            prev_index: Only if this is the key's `modified_index` now.
            prev_value: Only if this is the value now; not empty, for the server would not compare it.

        Raises:
            KeyNotFoundError: There is no such key; it has expired, perhaps.
            CompareFailedError: The condition does not hold.
            NotFileError: The key is a directory, and there is a condition.
            ValueError: `prev_value` is empty.
        """
        seconds = _check_ttl(ttl)
        _check_conditions(prev_value, prev_index)
        if prev_value == "":
            raise ValueError("prev_value of a refresh is not empty: the server does not compare it; use prev_index")
        return await self._engine.refresh(key, seconds, prev_value, prev_index)

    async def mkdir(
        self, key: str, *, ttl: float | timedelta | None = None, prev_exist: bool | None = False
    ) -> Response:
        """Make a directory.

        Args:
            key: The directory.
            ttl: Seconds until it expires with all it holds; `None` = never.
            prev_exist: `False` = only if the key does not exist. `True` = update an existing directory, its TTL
                that is; the server empties a file of that name. `None` = no condition; the server then replaces a
                file of that name by an empty directory.

        Raises:
            NodeExistsError: The key exists.
            KeyNotFoundError: There is no such key, and `prev_exist` is true.
            NotFileError: There is such a directory, and `prev_exist` is `None`.
            RaftInternalError: `prev_exist` is true; etcd 3.5 can't update a directory.
        """
        return await self._engine.mkdir(key, _seconds(ttl), prev_exist)

    async def delete(
        self,
        key: str,
        *,
        recursive: bool = False,
        dir: bool = False,
        prev_value: str | None = None,
        prev_index: int | None = None,
    ) -> Response:
        """Delete a key; sent at most once. With a condition this is a compare-and-delete.

        Args:
            key: The key.
            recursive: Delete a directory with all it holds.
            dir: Delete a directory that is empty.
            prev_value: Only if this is the value now.
            prev_index: Only if this is the key's `modified_index` now.

        Raises:
            KeyNotFoundError: There is no such key.
            CompareFailedError: The condition does not hold.
            NotFileError: It is a directory, and neither `recursive` nor `dir` was given.
            DirNotEmptyError: The directory is not empty, and `recursive` was not given.
        """
        _check_conditions(prev_value, prev_index)
        return await self._engine.delete(key, recursive, dir, prev_value, prev_index)

    def watch(
        self, key: str, *, recursive: bool = False, after_index: int | None = None, resync: bool = False
    ) -> Watcher:
        """Watch a key, or a directory with all below it: every event, each once, in order.

        Nothing is sent before the watcher is entered or asked for its first event.

        Args:
            key: The key; it need not exist.
            recursive: Watch everything below it as well, but for hidden keys.
            after_index: Begin with the first event after this index: `index` of a response, or of an earlier watcher.
                `None` = begin when the watch is registered.
            resync: Where the server no longer holds all events since then, give one `Response` with the action
                `resync` and the subtree as it is now, and go on; otherwise raise `EventIndexClearedError`.
        """
        after = None if after_index is None else _check_index("after_index", after_index, 0)
        return Watcher(*self._engine.watch(key, recursive, after, resync))


def _check_index(name: str, value: int, least: int) -> int:
    """Return an index that the server can hold.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below `least`, or more than the server can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not least <= value < 2**64:
        raise ValueError(f"{name} is between {least} and 2**64 - 1, not {value}")
    return int(value)


def _check_ttl(ttl: float | timedelta) -> int:
    """A TTL in whole seconds, fractions rounded up.

    Raises:
        TypeError: It is neither a number nor a timedelta.
        ValueError: It is zero or less (the server would expire the key at once), or beyond what the server can hold.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"ttl is seconds or a timedelta, not {type(ttl).__name__}")
    if not 0 < seconds <= MAX_TTL:
        raise ValueError(f"ttl is above 0 and at most {MAX_TTL} seconds, not {ttl}")
    return math.ceil(seconds)


def _seconds(ttl: float | timedelta | None) -> int | None:
    return None if ttl is None else _check_ttl(ttl)


def _check_conditions(prev_value: str | None, prev_index: int | None) -> None:
    if prev_value is not None:
        check_text("prev_value", prev_value)
    if prev_index is not None:
        _check_index("prev_index", prev_index, 1)
