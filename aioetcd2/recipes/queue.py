"""A queue of work that many processes share."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType

import msgspec

from ..errors import (
    ClusterError,
    CompareFailedError,
    ErrorCode,
    EtcdError,
    KeyNotFoundError,
    NodeExistsError,
    NotDirError,
)
from ..keys import KeysAPI
from ._arguments import check_name, check_path, check_text
from ._backlog import Backlog
from ._clock import now
from ._gate import Block
from ._lease import LeaseGoneError, check_ttl, maybe_applied
from ._patience import Patience
from ._places import Place
from ._tasks import finished, first, stopped
from .held import Held
from .tree import Tree

__all__ = ["Item", "Queue"]


class _Envelope(msgspec.Struct):
    """What is written in an item."""

    value: str
    attempts: int = 0


_envelope = msgspec.json.Decoder(_Envelope)


class Item(Held):
    """An item of a queue that a worker has in hand, and nobody else while it is `valid`.

    Attributes:
        key: The key of the claim.
        token: The `created_index` of that key: higher for each later worker at the same item.
        name: The name of the item, as `Queue.put` has returned it.
        value: What was put.
        attempt: How often it was given to a worker, this time counted. It may count more, where a worker was stopped
            just before it got the item.
        lost: Set once the claim is lost; not when the block has ended.
    """

    __slots__ = ("_index", "attempt", "value")

    def __init__(self, place: Place, name: str, envelope: _Envelope, index: int) -> None:
        super().__init__(place, name)
        self.value: str = envelope.value
        self.attempt: int = envelope.attempts
        self._index = index


class Queue:
    """A queue at a path: what was put is given to one worker after another until one has done it, the oldest first.

    **At least once.** An item is there until the block of a worker has ended well. It is done twice only where a claim
    was lost in between (the block raises `LockLostError` then), where an error or a cancellation ends the block after
    the work was done, or where the answer to a `put` was lost. Let the work bear that, or write `token` along.

    A worker *claims* an item by a key beside it, which is kept alive as that of a `Lock`; so an item of a worker that
    died is free after 2/3 `ttl` to `ttl` + 0.6 s. Where a block raises, the item is for the next one, at its old place
    in the order: look at `attempt`, and put aside what always fails.

    All workers of one `Queue` share one watch and one copy of what is in it (`Tree`): a worker who waits sends nothing,
    and one who takes an item lists nothing. The copy is there while somebody is in a block of `take`, or waits for one,
    and until the end of the `async with` of the queue itself, if there is one: enter the queue where workers come and
    go, or each that comes alone lists it anew. To put needs no copy.

    Of several processes, each takes one of the first few items (at most 64) at random while they get in each other's
    way, so that the order is not exact there. A worker is not given what another task of its process has in hand.

    Meant for thousands of items, not for millions: etcd's v2 API has no paging. An item costs five writes.

    It rests on keys that are made once (`prevExist=false`), and written on a condition (`prevIndex`).

    Args:
        keys: The keys of the cluster: `client.keys`.
        path: A directory that is for this queue alone; it comes into being if need be.
        ttl: Seconds after which the item of a process that died is free; 3 and more. In them, less
            `max(0.5, ttl / 10)`, a worker must reach the cluster.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: `ttl` is below 3.

    Examples:
        >>> async with Queue(client.keys, "/queues/mail") as queue:
        ...     await queue.put("ann@example.com")
        ...     async with queue.take() as item:
        ...         await send(item.value)
    """

    def __init__(self, keys: KeysAPI, path: str, *, ttl: float = 30.0) -> None:
        self._keys = keys
        self._path = check_path(path)
        self._ttl = check_ttl(ttl)
        self._hurried = keys.within(self._ttl / 6)
        self._name = check_name(None)
        self._what = f"queue {self._path}"
        self._patience = Patience(self._what, self._ttl / 6)
        self._users = 0
        self._ours: dict[str, Place | None] = {}
        self._backlog = Backlog(self._path, self._ours, self._ttl)
        self._idle = RuntimeError(f"{self._what} is not followed")
        self._backlog.end(self._idle)
        self._follower: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Queue {self._path}: {len(self._ours)} items in hand>"

    async def put(self, value: str) -> str:
        """Add an item, and return its name.

        Where the answer is lost, it is put again under the same name, for as long as `ttl`. So it is one item, unless a
        worker has done it meanwhile: then it is done twice. A cancellation waits for the answer, but not for long; the
        item may be there then.

        Args:
            value: Any text.

        Raises:
            TypeError: It is no text.
            ValueError: It can't be written as UTF-8.
            ClusterError: No endpoint has taken it. It may be there all the same, where `maybe_applied`.
            APIError: The cluster refuses (`UnauthorizedError`); the path leads through a file (`NotDirError`).
            V2DisabledError: The cluster does not serve the v2 API.
            ClientClosedError: The client is closed.
        """
        check_text("a value", value)
        name = secrets.token_hex(8)
        await finished(self._put(name, _written(_Envelope(value))), self._ttl / 6)
        return name

    def take(self) -> AbstractAsyncContextManager[Item]:
        """Wait for an item, and have it for a block: `async with queue.take() as item`.

        Ended well, the item is deleted, and then the claim. Ended with an error or a cancellation, only the claim is
        deleted, and the item is for the next one.

        A loss of the claim cancels the block, once; the block then raises `LockLostError`. An error of its own wins,
        and so does a cancellation from outside. A block that has ended well, and can't delete the item while it still
        has the claim, raises `LockLostError` as well: the item may be done again.

        An outage of the cluster is waited out, but for the first request. On entering, it raises:

        - `ClusterError`: no endpoint answered the first request;
        - `APIError`: the cluster refuses (`UnauthorizedError`), or the path is a file (`NotDirError`);
        - `V2DisabledError`: the cluster does not serve the v2 API;
        - `ClientClosedError`: the client is closed.
        """
        return _Taking(self)

    async def size(self) -> int:
        """How many items there are: those that wait, and those that workers are at. A list of them, with quorum.

        Raises:
            EtcdError: As for any read.
        """
        try:
            response = await self._keys.get(f"{self._path}/items", quorum=True)
        except KeyNotFoundError:
            return 0
        if response.node is None or not response.node.dir:
            hint = "the items of a queue are in one"
            raise NotDirError(ErrorCode.NOT_DIR, "Not a directory", response.key, response.index, hint=hint)
        return sum(not node.dir for node in response.nodes)

    # --- the copy ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Queue:
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._go()

    async def _go(self) -> None:
        """One less needs the copy."""
        self._users -= 1
        if self._users == 0 and self._follower is not None:
            self._backlog.end(self._idle)
            await stopped(self._follower)

    def _follow(self) -> None:
        """Have a copy from now on, unless there is one."""
        if self._backlog.error is not None:
            self._backlog = Backlog(self._path, self._ours, self._ttl)
            self._follower = asyncio.create_task(self._keep_up(self._backlog), name=self._what)

    async def _keep_up(self, backlog: Backlog) -> None:
        try:
            async with Tree(self._keys, self._path, limit=sys.maxsize) as tree:
                async for change in tree.changes():
                    backlog.take(change)
        except Exception as error:
            backlog.end(error)

    # --- an item -----------------------------------------------------------------------------------------------------

    async def _put(self, name: str, text: str) -> None:
        """Make an item; its name is random, so what is there is ours."""
        patience = Patience(f"{self._what}: put", self._ttl / 6)
        end = now() + self._ttl
        while True:
            try:
                await self._keys.create(self._item(name), text)
            except NodeExistsError:
                return
            except EtcdError as error:
                is_open = maybe_applied(error) or (patience.last is not None and isinstance(error, ClusterError))
                if not is_open or now() >= end:
                    raise
                await patience.after(error)
            else:
                return

    async def _next(self) -> Item:
        """An item that is claimed."""
        while True:
            self._follow()
            name = await self._backlog.pick()
            try:
                item = await self._claimed(name)
            except ClusterError as error:
                await self._patience.after(error)
            else:
                self._patience.over()
                self._backlog.spread(apart=item is None)
                if item is not None:
                    return item

    async def _claimed(self, name: str) -> Item | None:
        """Claim an item; `None` where another was faster, or has done it.

        Raises:
            EtcdError: It is not claimed.
        """
        what = f"{self._what}: {name}"
        patience = Patience(what, self._ttl / 6)
        place = Place(self._keys, f"{self._path}/claims", self._name, self._ttl, what, patience, contested=name)
        try:
            await place.take()
        except (NodeExistsError, LeaseGoneError):
            self._backlog.lost(name)
            return None
        except BaseException:
            self._backlog.put_back(name)
            raise
        self._backlog.claimed(name, place)
        place.hold(None)
        item: Item | None = None
        is_done = False
        try:
            item = await self._begun(place, name)
            is_done = item is None
        finally:
            if item is None or not place.valid:
                await self._leave(place, name, briefly=True, done=is_done)
        return item if place.reason is None else None

    async def _begun(self, place: Place, name: str) -> Item | None:
        """Count the attempt, by a write that only succeeds while the item is there; `None` where it is not."""
        node = self._backlog.items.get(name)
        with suppress(KeyNotFoundError):
            while node is not None:
                envelope = _read(node.value)
                envelope.attempts += 1
                try:
                    written = await self._hurried.set(
                        self._item(name), _written(envelope), prev_index=node.modified_index
                    )
                except CompareFailedError:  # the copy was behind, or a try of ours that failed was carried out
                    node = (await self._hurried.get(self._item(name), quorum=True)).node
                else:
                    return Item(place, name, envelope, written.modified_index)
        return None

    async def _end(self, item: Item) -> None:
        """Delete an item that is done, as long as nobody has begun with it since.

        Raises:
            LockLostError: The claim was lost before that was certain.
        """
        patience = Patience(f"{self._what}: {item.name}", self._ttl / 6)
        is_open = False
        while True:
            try:
                await self._hurried.delete(self._item(item.name), prev_index=item._index)
            except KeyNotFoundError:
                if is_open:
                    item.check()
                    return
                item._place.end("its item was deleted by another")
            except CompareFailedError:
                item._place.end("its item was written by another")
            except ClusterError as error:
                is_open = is_open or maybe_applied(error)
                await first(patience.after(error), item.lost.wait())
            else:
                return
            item.check()

    async def _leave(self, place: Place, name: str, *, briefly: bool, done: bool) -> None:
        try:
            await place.leave(briefly=briefly)
        finally:
            self._backlog.put_back(name, done=done)

    def _item(self, name: str) -> str:
        return f"{self._path}/items/{name}"


class _Taking(AbstractAsyncContextManager[Item]):
    """The block of a worker at one item."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._block: Block[Item] | None = None

    async def __aenter__(self) -> Item:
        queue = self._queue
        await queue.__aenter__()
        try:
            item = await queue._next()
        except BaseException:
            await queue._go()
            raise
        self._block = Block(item, asyncio.current_task())
        return item

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, queue = self._block, self._queue
        assert block is not None
        item = block.held
        loss = block.end()
        was_ours = block.takes_back(error)
        is_done = False
        try:
            if error is None and loss is None:
                await finished(queue._end(item), item._place.grace)
                is_done = True
        except asyncio.CancelledError as cancellation:
            error = cancellation
            raise
        finally:
            # a claim that stays hinders no one where the item is done
            briefly = is_done or isinstance(error, asyncio.CancelledError)
            try:
                await queue._leave(item._place, item.name, briefly=briefly, done=is_done)
            finally:
                await queue._go()
        if loss is not None and (error is None or was_ours):
            raise loss from error


def _written(envelope: _Envelope) -> str:
    """An item's text."""
    return msgspec.json.encode(envelope).decode()


def _read(text: str | None) -> _Envelope:
    """What is in an item; one that was put by hand is its value."""
    try:
        return _envelope.decode(text or "")
    except msgspec.DecodeError:
        return _Envelope(text or "")
