"""A live copy of a subtree in memory."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TypeVar, overload
from weakref import WeakSet

from ..errors import (
    ClientClosedError,
    ClusterError,
    ErrorCode,
    KeyNotFoundError,
    NotDirError,
    TreeStaleError,
)
from ..keys import KeysAPI
from ..models import Node, Response
from ..watch import Watcher
from ._age import Age
from ._changes import Changes
from ._copy import Change, Copy, files_of

__all__ = ["Change", "Tree"]

T = TypeVar("T")

MANY_SLASHES = re.compile("/+")

PATIENCE = 1.0
"""Seconds after which `reach` looks whether there is anything to come at all; jittered."""


class Tree(Mapping[str, Node]):
    """A live copy of a subtree in memory: a read-only mapping of its files by full key, in the order of the keys.

    An async context manager: once it is entered, the copy is complete, and follows the cluster until the block ends.
    Reads are dictionary look-ups; nothing is awaited, locked or copied. What other tasks see is always the subtree as
    it was at one index, never half of a change.

    It is one recursive `get`, and one recursive watch that goes on at the index of that answer. Where the server no
    longer holds the events since then (401), the copy becomes what is there now, and the changes are the difference.

    - A refresh (`refresh=true`) makes no event. So the nodes have no `ttl` and no `expiration`, and their
      `modified_index` is that of the last event, or older than the key's: compare with `prev_value`, not `prev_index`.
    - Hidden keys (`_name`) below the prefix are not in it. Directories are not in it either, empty ones leave no trace.
    - A prefix that is not there is an empty tree. A file that takes the place of the prefix later is in the copy under
      its own key.

    While the cluster is away the copy stays as it is, and `age` grows; there is one WARNING for the whole client. What
    the cluster refuses meanwhile (`UnauthorizedError`, `V2DisabledError`, a closed client) ends the copy: from then on
    all reads, `reach` and `changes` raise that error.

    Args:
        keys: The keys of the cluster, `client.keys`.
        prefix: The directory; it need not exist. `/` is everything.
        limit: How many changes a reader of `changes()` may be behind. Those of one event count as one.
        stale_after: Seconds of `age` beyond which reads raise `TreeStaleError`; `None` = never, which costs reads
            nothing. A quiet cluster is heard every `probe_interval` of the client, so give it more than that and its
            `header_timeout` together.

    Raises:
        TypeError: `limit` is no int, or `stale_after` no number.
        ValueError: `limit` is below 1, or `stale_after` is not above 0.

    Examples:
        >>> async with Tree(client.keys, "/config") as tree:
        ...     print(tree["/config/db/host"].value, tree.value("/config/db/port", "5432"))
        ...     async for change in tree.changes():
        ...         print(change.key, change.before, change.after)
    """

    def __init__(self, keys: KeysAPI, prefix: str, *, limit: int = 10_000, stale_after: float | None = None) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit is an int, not {type(limit).__name__}")
        if limit < 1:
            raise ValueError(f"limit is at least 1, not {limit}")
        if isinstance(stale_after, bool) or not isinstance(stale_after, (int, float, type(None))):
            raise TypeError(f"stale_after is a number of seconds, not {type(stale_after).__name__}")
        if stale_after is not None and not stale_after > 0:
            raise ValueError(f"stale_after is above 0 seconds, not {stale_after}")
        self._keys = keys
        self._prefix = prefix
        self._limit = limit
        self._stale_after = stale_after
        self._copy = Copy()
        self._error: Exception | None = RuntimeError(f"the tree of {prefix} is not entered: async with Tree(...)")
        self._files: Mapping[str, Node] = _Checked(self)
        self._entered = False
        self._watcher: Watcher | None = None
        self._age: Age | None = None
        self._task: asyncio.Task[None] | None = None
        self._readers: WeakSet[Changes] = WeakSet()
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looking = asyncio.Lock()
        self._proved = 0  # there was nothing to do up to this index

    def __repr__(self) -> str:
        words = f"{len(self._copy.keys)} files" if self._error is None else str(self._error)
        return f"<Tree of {self._prefix}: {words}>"

    # --- reads --------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Node:
        return self._files[key]

    def __contains__(self, key: object) -> bool:
        return key in self._files

    def __len__(self) -> int:
        self._check()
        return len(self._copy.keys)

    def __iter__(self) -> Iterator[str]:
        self._check()
        return self._copy.walk("/")

    @overload
    def value(self, key: str) -> str | None: ...
    @overload
    def value(self, key: str, default: T) -> str | T: ...
    def value(self, key: str, default: T | None = None) -> str | T | None:
        """The value of a file, or something else where there is none.

        Args:
            key: The full key.
            default: What to return where there is no such file.

        Raises:
            TreeStaleError: The copy is older than `stale_after`.
            EtcdError: What has ended the copy.
        """
        node = self._files.get(key)
        return default if node is None or node.value is None else node.value

    def below(self, prefix: str) -> Mapping[str, Node]:
        """The files below a directory, by full key: a view that stays live, and copies nothing.

        Args:
            prefix: The full key of the directory; it need not exist. `/` is all of the copy.
        """
        return _Below(self, prefix)

    @property
    def index(self) -> int:
        """Everything up to this index is in the copy. It moves with what happens in the subtree, or is waited for.

        Raises:
            RuntimeError: The tree is not entered.
        """
        if self._watcher is None:
            self._check_end()
            return 0
        return max(self._watcher.index or 0, self._proved)

    @property
    def age(self) -> float:
        """Seconds since the watch was last heard: an event, its registration, or an answer to a probe of its endpoint.

        Time in which this machine was suspended counts. While all is well it stays below the client's `probe_interval`
        and what a probe takes.

        Raises:
            RuntimeError: The tree is not entered.
        """
        if self._age is None:
            self._check()
            return 0.0
        return self._age.seconds

    # --- what is to come ----------------------------------------------------------------------------------------------

    async def reach(self, index: int) -> None:
        """Wait until everything up to an index is in the copy: `await tree.reach(response.index)` after a write.

        That of a write below the prefix is reached with its event. For another index, as that of a refresh or of a key
        elsewhere, no event may come: after about a second the subtree is read anew, and where that is at the index or
        behind it, and no different from the copy, there is nothing to wait for. The deadline is the caller's
        `asyncio.timeout()`.

        Args:
            index: The index of a response.

        Raises:
            TypeError: It is no int.
            ClientClosedError: The block of the tree has ended, or the client is closed.
            EtcdError: What has ended the copy.
        """
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"index is an int, not {type(index).__name__}")
        self._check_end()
        while self.index < index:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[arrival] = index
            try:
                await asyncio.wait((arrival,), timeout=PATIENCE * random.uniform(0.75, 1.25))
            finally:
                del self._waiting[arrival]
            self._check_end()
            if not arrival.done():
                async with self._looking:
                    if self.index < index:
                        await self._look()

    def changes(self, *, from_now: bool = False) -> AsyncIterator[Change]:
        """Each change, once, in order, from the moment of this call on; any number of readers may do so.

        It ends with the block of the tree. A reader that is no longer used costs nothing.

        Args:
            from_now: Leave out the present content, with which it begins otherwise: a change from nothing for each
                file, in the order of the keys. Applied in order, the changes then give the copy.

        Raises:
            TreeBehindError: From the iterator: it was more than `limit` changes behind, and is over. The copy goes on;
                begin again with another `changes()`.
            RuntimeError: The tree is not entered.
            EtcdError: What has ended the copy; from the iterator once the changes before it were read.
        """
        self._check_end()
        index = self.index
        files = [] if from_now else list(map(self._copy.files.__getitem__, self._copy.keys))
        reader = Changes((Change(node.key, None, node, index) for node in files), self._limit)
        self._readers.add(reader)
        return reader

    # --- its life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Tree:
        if self._entered:
            raise RuntimeError(f"the tree of {self._prefix} was entered before; make a new one")
        self._entered = True
        try:
            index, node = await self._list()
            watcher = self._keys.watch(self._prefix, recursive=True, after_index=index, resync=True)
            await watcher.__aenter__()
        except BaseException:
            self._entered = False
            raise
        self._copy = Copy(files_of(node))
        self._watcher = watcher
        self._age = Age(watcher)
        self._error = None
        self._show()
        self._task = asyncio.create_task(self._follow(watcher), name=f"tree of {self._prefix}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, watcher = self._task, self._watcher
        assert task is not None
        assert watcher is not None
        if self._error is None:
            self._end(ClientClosedError(f"the block of the tree of {self._prefix} has ended"), told=False)
        task.cancel()
        try:
            await watcher.aclose()
        finally:
            await _ended(task)

    async def _follow(self, watcher: Watcher) -> None:
        try:
            while True:
                self._take(await watcher.next())
        except Exception as error:
            self._end(error)

    def _take(self, event: Response) -> None:
        if event.action == "resync":
            changes = self._copy.replace(files_of(event.node), event.index)
            self._proved = 0  # it may be another life of the store
            self._show()
        elif event.modified_index > self._proved:
            changes = self._copy.take(event)
        else:
            return
        if changes:
            for reader in self._readers:
                reader.put(changes)
        if self._waiting:
            self._wake(self.index)

    def _end(self, error: Exception, *, told: bool = True) -> None:
        """Follow no more; readers of changes are told why, or that this is all."""
        self._error = error
        self._show()
        if self._age is not None:
            self._age.stop()
        for reader in self._readers:
            reader.end(error if told else None)
        self._wake(max(self._waiting.values(), default=0))

    def _wake(self, index: int) -> None:
        for arrival, wanted in self._waiting.items():
            if wanted <= index and not arrival.done():
                arrival.set_result(None)

    def _show(self) -> None:
        """Let reads go to the files themselves, or by a check first."""
        unchecked = self._error is None and self._stale_after is None
        self._files = self._copy.files if unchecked else _Checked(self)

    async def _list(self) -> tuple[int, Node | None]:
        """The subtree, and the index at which it is so.

        Raises:
            NotDirError: There is a file in its place.
        """
        try:
            response = await self._keys.get(self._prefix, recursive=True)
        except KeyNotFoundError as absent:
            return absent.index, None
        if response.node is not None and not response.node.dir:
            hint = "a tree is of a directory"
            raise NotDirError(ErrorCode.NOT_DIR, "Not a directory", response.key, response.index, hint=hint)
        return response.index, response.node

    async def _look(self) -> None:
        """Read the subtree anew: where it is as it is in the copy, what happened up to then has left nothing to do."""
        with suppress(ClusterError, NotDirError):
            index, node = await self._list()
            if self._copy.is_as(files_of(node)):
                self._proved = max(self._proved, index)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_end(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _check(self) -> None:
        """Whether the copy may be read.

        Raises:
            Exception: What has ended it.
            TreeStaleError: It is older than it may be.
        """
        self._check_end()
        if self._stale_after is not None and self._age is not None and self._age.is_above(self._stale_after):
            raise TreeStaleError(self._prefix, self._age.seconds, self._stale_after)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for the end of a cancelled task, also where this one is cancelled meanwhile."""
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


class _Checked(Mapping[str, Node]):
    """The files of a tree, for reads that need a check first."""

    __slots__ = ("_tree",)

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def __getitem__(self, key: str) -> Node:
        self._tree._check()
        return self._tree._copy.files[key]

    def __len__(self) -> int:
        return len(self._tree)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)


class _Below(Mapping[str, Node]):
    """The files of a tree below a directory."""

    __slots__ = ("_directory", "_tree")

    def __init__(self, tree: Tree, directory: str) -> None:
        self._tree = tree
        self._directory = MANY_SLASHES.sub("/", f"/{directory}/")

    def __repr__(self) -> str:
        return f"<{self._tree!r} below {self._directory}>"

    def __getitem__(self, key: str) -> Node:
        node = self._tree[key]
        if not key.startswith(self._directory):
            raise KeyError(key)
        return node

    def __len__(self) -> int:
        self._tree._check()
        first, last = self._tree._copy.span(self._directory)
        return last - first

    def __iter__(self) -> Iterator[str]:
        self._tree._check()
        return self._tree._copy.walk(self._directory)
