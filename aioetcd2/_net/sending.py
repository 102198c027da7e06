"""What stands between aiohttp and the wire as a request is sent: once, over a fit connection, our credentials only."""

from __future__ import annotations

import math
import re
import select
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

import aiohttp
from multidict import istr

from .causes import UNSENT, words_of

WRITE_IDLE = 0.5
"""Seconds for which a connection may have been idle that is to carry a write: what is in between reaps later ones."""

READ_SIZE = 120 * 1024
"""Bytes that a connection reads at once, at most. For 128 KiB and more the C library maps memory, and gives it back:
of asyncio's own 256 KiB, each read costs two page faults and three system calls, however small the answer is."""

_KEEP_ALIVE = istr("Keep-Alive")
_TOLD = re.compile(r"\b(timeout|max)\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class UnfitError(Exception):
    """The connection that aiohttp chose is not fit for the request, of which nothing was sent: it takes another."""


class Life:
    """What is known of a connection that may be used again.

    Attributes:
        address: Its address on the other side; empty where it has none.
        born: When it was made, monotonic.
        uses: How many answers it has brought.
        hears: Whether the other side has closed it, or said what nobody asked for; asked while it is idle.
        answered_at: When the last answer began, monotonic.
    """

    __slots__ = ("_idle", "_most", "address", "answered_at", "born", "hears", "uses")

    def __init__(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.born = time.monotonic()
        self.uses = 0
        self.hears = _ear_for(transport)
        self.answered_at = 0.0
        self._idle = math.inf
        self._most = math.inf

    def is_over(self, idle: float) -> bool:
        """Whether it has been idle for longer than some seconds, or for as long as the server has said."""
        since = time.monotonic() - self.answered_at
        return since > idle or since > self._idle or self.uses >= self._most

    def is_told(self, keep_alive: str) -> None:
        """A header of an answer tells for how long the connection will be kept, perhaps."""
        told = {name.lower(): int(number) for name, number in _TOLD.findall(keep_alive)}
        if "timeout" in told:
            self._idle = told["timeout"] - min(1.0, told["timeout"] / 2)  # by then, a request has to be there
        self._most = told.get("max", self._most)


_LIFE = "_aioetcd2_life"
"""Where a connection keeps it: a connector of the caller's may serve several clients."""


class Connections:
    """The connections that one client has made, and what may be wrong with one that is idle.

    Args:
        avoided: Addresses, and when each was found to be bad: no connection goes there that was made before.

    Attributes:
        told: Whether a server has ever said for how long it keeps one.
    """

    def __init__(self, avoided: Mapping[str, float]) -> None:
        self._made: WeakSet[Any] = WeakSet()
        self.avoided = avoided
        self.told = False

    @property
    def open(self) -> int:
        """How many are open."""
        return sum(each.connected for each in self._made)

    def add(self, protocol: Any, transport: Any) -> None:
        """Take in a new one."""
        self._made.add(protocol)
        setattr(protocol, _LIFE, Life(transport))

    def answered(self, response: Any) -> str:
        """An answer has begun: take note of what it says of its connection. Returns the address that it came from."""
        life: Life = response.life
        life.uses += 1
        life.answered_at = time.monotonic()
        told = response.headers.get(_KEEP_ALIVE)
        if told is not None:
            self.told = True
            life.is_told(told)
        return life.address


class FitRequest(aiohttp.ClientRequest):
    """A request that travels over a connection that is fit for it: aiohttp keeps them for 15 s, whatever servers say.

    Attributes:
        connections: Among which it is sent.
        chooses: Whether it may be refused by `UnfitError`.
        once: Whether it is sent once, so that aiohttp does not send it again where its connection proves to be closed.
        fresh: Whether it takes no connection that has carried another request.
        reuses: Whether its connection has carried another request.
    """

    connections: Connections
    chooses = False
    once = False
    fresh = False
    reuses = False

    @classmethod
    def among(cls, connections: Connections) -> type[FitRequest]:
        """The requests of one client; aiohttp makes them, and hands nothing else on to them."""
        return type(cls.__name__, (cls,), {"connections": connections})

    def send(self, conn: Any) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Send it over a connection, or raise `UnfitError`."""
        protocol = conn.protocol
        life: Life | None = getattr(protocol, _LIFE, None)
        if life is None:
            self.connections.add(protocol, conn.transport)
            if hasattr(conn.transport, "max_size"):  # that of asyncio without TLS
                conn.transport.max_size = READ_SIZE
        elif self.chooses:
            if self._is_unfit(life):
                conn.transport.abort()
                raise UnfitError
            self.reuses = True
        if self.once and self.body:
            conn.add_callback(partial(_drop_what_is_unsent, conn.transport))
        return aiohttp.ClientRequest.send(self, conn)

    def _is_unfit(self, life: Life) -> bool:
        avoided = self.connections.avoided
        if avoided and life.born < avoided.get(life.address, 0.0):
            return True
        if not self.once:
            return life.is_over(math.inf)
        return self.fresh or life.is_over(WRITE_IDLE) or bool(life.hears())


class FreedResponse(aiohttp.ClientResponse):
    """An answer whose connection is freed at once when it is given up, and not after a farewell of TLS.

    Attributes:
        life: What is known of its connection.
    """

    life: Life

    def start(self, connection: Any) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Read its header, from a connection over which its request was sent."""
        self.life = getattr(connection.protocol, _LIFE)
        return aiohttp.ClientResponse.start(self, connection)

    def close(self) -> None:
        """Give it up."""
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


def _drop_what_is_unsent(transport: Any) -> None:
    """Let nothing be flushed of a request whose connection goes back, or is closed."""
    if transport.get_write_buffer_size():
        transport.abort()


def _ear_for(transport: Any) -> Callable[[], object]:
    """What is true once the other side has closed an idle connection, or said what nobody asked for."""
    connection = transport.get_extra_info("socket")
    number = -1 if connection is None else connection.fileno()
    if number < 0:  # nobody can tell
        return lambda: True
    if not hasattr(select, "poll"):  # Windows
        return lambda: select.select([number], [], [], 0)[0]
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return partial(poll.poll, 0)


async def choose(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A client middleware that has aiohttp choose again until the connection is fit; a new one always is."""
    assert isinstance(request, FitRequest)
    request.chooses = True
    while True:
        try:
            return await handler(request)
        except UnfitError:
            continue


class Lost(Exception):
    """The connection broke after the request. aiohttp sends again on errors of its own, and not on this one."""


class SendOnce:
    """A client middleware that keeps aiohttp from sending a request twice, and knows whether it was sent.

    aiohttp sends PUT and DELETE again by itself when the connection drops, whatever the server did with the first.

    Args:
        fresh: Whether it may travel over a new connection only.
    """

    __slots__ = ("_fresh", "_request")

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        self._request: FitRequest | None = None

    @property
    def sent(self) -> bool:
        """Whether a byte of it may have left: aiohttp makes the response object as it hands over the first one."""
        return self._request is not None and self._request.response is not None

    @property
    def was_reaped(self) -> bool:
        """Whether a connection was kept for it that proved to be closed, as far as can be told from a lost one."""
        return self._request is not None and self._request.reuses

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, FitRequest)
        self._request = request
        request.chooses = request.once = True
        request.fresh = self._fresh
        while True:
            try:
                return await handler(request)
            except UnfitError:
                continue
            except UNSENT:
                raise
            except aiohttp.ClientConnectionError as error:
                raise Lost(words_of(error)) from error


class Authorize:
    """A client middleware that has the last word on credentials, where aiohttp may take them from a `.netrc`.

    A trusted endpoint gets ours; where we have none, it gets those of the `.netrc`. Any other endpoint gets nothing.
    """

    __slots__ = ("_headers", "_trusted")

    def __init__(self, headers: Mapping[str, str], trusted: bool) -> None:
        self._headers = headers
        self._trusted = trusted

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._trusted:
            request.headers.update(self._headers)
        else:
            request.headers.popall("Authorization", None)
        return await handler(request)
