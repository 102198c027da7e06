"""Keys: get, set, compare-and-swap, create, refresh, delete, watch."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Protocol

from . import _response
from ._failover import Failover
from ._hub import WatchHub
from ._request import MANY_SLASHES, Replay, Request, build, check_index, check_text, check_ttl, quote_key
from ._wait import request_for
from .errors import APIError
from .models import Response
from .watch import Watcher

__all__ = ["KeysAPI"]

PREFIX = "/v2/keys"


class Caller(Protocol):
    """What the keys need of a client."""

    _failover: Failover
    _watches: WatchHub
    _quorum: bool


class KeysAPI:
    """The keys of a cluster; `client.keys`.

    Every call raises, besides what it names itself: `ClusterError` where no endpoint answered, `UnauthorizedError`,
    `InvalidFieldError` and other `APIError`s as the server says, `V2DisabledError`, `ClientClosedError`; and before
    anything is sent, `TypeError` and `ValueError` for a key, a value or an option that the server would misread.

    A key is any text. A leading slash is added where it is missing, repeated slashes fold into one; every other
    character reaches the server as given. Keys below a segment that begins with `_` are hidden from listings.

    A `set`, `update`, `refresh` or `get` goes on to the next endpoint when one fails. What is not safe to repeat
    (`create`, conditions, `delete`, `create_in_order`, `mkdir`) is sent at most once: where its answer is lost,
    `ClusterError.maybe_applied` is true.

    Args:
        client: The client that sends the requests.
        prefix: Where the server has its keys; a longer one confines these keys to a subtree.

    Example:
        >>> await client.keys.set("/config/port", "8080", ttl=60)
        >>> (await client.keys.get("/config/port")).node.value
        '8080'
    """

    def __init__(self, client: Caller, prefix: str = PREFIX) -> None:
        self._failover = client._failover
        self._watches = client._watches
        self._quorum = client._quorum
        self._prefix = quote_key(prefix).rstrip("/")
        self._root = MANY_SLASHES.sub("/", f"/{prefix}").rstrip("/").partition(PREFIX)[2]

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
        request = _read(self._path(key), recursive, sort, self._quorum if quorum is None else quorum)
        return await self._failover.read(request)

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
        form = [("value", check_text("value", value))]
        if ttl is not None:
            form.append(("ttl", check_ttl(ttl)))
        conditions = _conditions(prev_value, prev_index)
        if prev_exist is not None:
            if conditions and not prev_exist:
                raise ValueError("prev_exist=False and a previous value or index exclude each other")
            form.append(("prevExist", "true" if prev_exist else "false"))
        if no_value_on_success:
            form.append(("noValueOnSuccess", "true"))
        return await self._put(key, form + conditions, one_shot=bool(conditions) or prev_exist is False)

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
        form = [("value", check_text("value", value))]
        if ttl is not None:
            form.append(("ttl", check_ttl(ttl)))
        return await self._write(build("POST", self._path(directory), form=form, replay=Replay.IF_UNSENT))

    async def refresh(self, key: str, ttl: float | timedelta) -> Response:
        """Give a key a new TTL, and leave its value; no watch fires.

        Args:
            key: The key.
            ttl: Seconds from now, fractions rounded up.

        Raises:
            KeyNotFoundError: There is no such key; it has expired, perhaps.
        """
        form = [("refresh", "true"), ("prevExist", "true"), ("ttl", check_ttl(ttl))]
        return await self._put(key, form, one_shot=False)

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
        form = [("dir", "true")]
        if ttl is not None:
            form.append(("ttl", check_ttl(ttl)))
        if prev_exist is not None:
            form.append(("prevExist", "true" if prev_exist else "false"))
        return await self._put(key, form, one_shot=prev_exist is False)

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
        query = [(name, "true") for name, wanted in (("recursive", recursive), ("dir", dir)) if wanted]
        query += _conditions(prev_value, prev_index)
        return await self._write(build("DELETE", self._path(key), query=query, replay=Replay.IF_UNSENT))

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
        after = None if after_index is None else int(check_index("after_index", after_index, 0))
        path = self._path(key)
        request_for(path, True, 2**63, stream=True)
        return Watcher(self._watches, path, f"{self._root}/{key}", recursive, after, resync)

    def _path(self, key: str) -> str:
        return self._prefix + quote_key(key)

    async def _put(self, key: str, form: list[tuple[str, str]], *, one_shot: bool) -> Response:
        replay = Replay.IF_UNSENT if one_shot else Replay.ALWAYS
        return await self._write(build("PUT", self._path(key), form=form, replay=replay))

    async def _write(self, request: Request) -> Response:
        try:
            response = await self._failover.call(request, _response.keys)
        except APIError as refusal:
            self._failover.saw(refusal.index)
            raise
        self._failover.saw(response.index)
        return response


@lru_cache(maxsize=512)
def _read(path: str, recursive: bool, sort: bool, quorum: bool) -> Request:
    flags = {"recursive": recursive, "sorted": sort, "quorum": quorum}
    return build("GET", path, query=[(name, "true") for name, wanted in flags.items() if wanted])


def _conditions(prev_value: str | None, prev_index: int | None) -> list[tuple[str, str]]:
    conditions: list[tuple[str, str]] = []
    if prev_value is not None:
        conditions.append(("prevValue", check_text("prev_value", prev_value)))
    if prev_index is not None:
        conditions.append(("prevIndex", check_index("prev_index", prev_index, 1)))
    return conditions
