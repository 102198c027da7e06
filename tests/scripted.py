"""An etcd in memory whose streams, refusals and silences are scripted, for what takes a network too long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from multidict import CIMultiDict, CIMultiDictProxy

from aioetcd2 import (
    ClusterError,
    ConnectError,
    ConnectionLostError,
    Health,
    HTTPResult,
    KeyNotFoundError,
    Node,
    Response,
    Version,
)
from aioetcd2._net.failover import Failover
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Request
from aioetcd2._v2.identity import Call, Identity
from aioetcd2._v2.keys import surroundings_of
from aioetcd2._watching.surroundings import Surroundings

from .misbehaver import key_event

ONE = "http://one:1"
TWO = "http://two:2"
END = b""
"""The end of a stream; nothing comes after it."""


def line(index: int, key: str = "/a", **more: Any) -> bytes:
    """An event as a stream brings it."""
    return json.dumps(key_event(key, index, **more)).encode() + b"\n"


class Stream:
    """A stream of some pieces, more of which can come; an error among them is raised."""

    def __init__(self, *pieces: bytes | Exception, index: int = 10, cluster: str = "c1", endpoint: str = ONE) -> None:
        self.pieces = list(pieces)
        self.closed = 0
        self.given = False
        self.address: str | None = None
        headers = CIMultiDict({"X-Etcd-Index": str(index), "X-Etcd-Cluster-Id": cluster})
        self.head = HTTPResult(200, CIMultiDictProxy(headers), b"", endpoint)
        self._more = asyncio.Event()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        while not self.pieces:
            if self.closed:
                raise ConnectionLostError(self.head.endpoint, "it was closed")
            self._more.clear()
            await self._more.wait()
        if self.pieces[0] == END:
            return END
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def feed(self, *pieces: bytes | Exception) -> None:
        """Let more come."""
        self.pieces += pieces
        self._more.set()

    def close(self) -> None:
        self.closed += 1
        self._more.set()


class Wanted(NamedTuple):
    """A wait that was asked for."""

    endpoint: str
    query: str
    patient: bool


class Failing(NamedTuple):
    """Endpoints that are asked in vain, and what comes in the end, after some seconds."""

    endpoints: tuple[str, ...]
    outcome: Stream | Exception
    took: float = 0.0


class Seen(Identity):
    """An identity that keeps what it was told, and asks for nothing again."""

    def __init__(self) -> None:
        super().__init__(Reporter())
        self.indexes: list[int] = []

    def reached(self, index: int, raft_index: int = 0, raft_term: int = 0) -> None:
        self.indexes.append(index)

    async def read(self, call: Call, request: Request) -> Response:
        return await call(request)


def surroundings(etcd: Etcd, probe_interval: float, header_timeout: float | None) -> Surroundings:
    """What watches share, with a scripted etcd under it."""
    failover = cast(Failover, etcd)
    reporter = Reporter()
    return surroundings_of(
        failover, etcd.identity, reporter, probe_interval=probe_interval, header_timeout=header_timeout
    )


class Etcd:
    """Takes the place of the failover under the watchers.

    Streams come from `script`, one outcome for each wait that is asked for; when it has run out they hang. Long polls
    for history are answered from `history`, reads from `state`, probes from `health`. What was asked is kept. A read
    with quorum is at `quorum`, or at the highest index that anybody has seen.
    """

    def __init__(self, *script: Stream | Exception | Failing) -> None:
        self.script = list(script)
        self.history: list[int] = []
        self.state: tuple[int, Node | None] | Exception = (10, None)
        self.quorum: int | None = None
        self.passes: Callable[[float], None] = lambda seconds: None
        self.health: Health | Exception = Health(True)
        self.version = "3.5.1"
        self.unreachable: set[str] = set()
        self.closed = False
        self.has_choice = True
        self.waits: list[Wanted] = []
        self.polls: list[int] = []
        self.reads: list[str] = []
        self.probed: list[str] = []
        self.probes: list[str] = []
        self.suspected: list[str] = []
        self.opening = 0
        self.identity = Seen()

    async def open(self, make: Callable[[str], Request], check: object = None) -> Stream:
        outcome = self.script[0] if self.script else None
        endpoints: tuple[str, ...] = (outcome.head.endpoint,) if isinstance(outcome, Stream) else (ONE,)
        took = 0.0
        if isinstance(outcome, Failing):
            endpoints, outcome, took = outcome
        for endpoint in endpoints:
            request = make(endpoint)
            query = request.target.partition("?")[2]
            if "stream=true" not in query and not request.patient:
                return await self._poll(int(query.rpartition("=")[2]))
            self.waits.append(Wanted(endpoint, query, request.patient))
        if self.script:
            self.script.pop(0)
        self.opening += 1
        try:
            await asyncio.sleep(0)
            self.passes(took)
            if isinstance(outcome, Exception):
                raise outcome.with_traceback(None)
            if outcome is None:
                await asyncio.Event().wait()
            assert isinstance(outcome, Stream)
            outcome.given = True
            return outcome
        finally:
            self.opening -= 1

    async def _poll(self, wanted: int) -> Stream:
        self.polls.append(wanted)
        await asyncio.sleep(0)
        found = next((index for index in self.history if index >= wanted), None)
        return Stream() if found is None else Stream(line(found), END)

    async def call(self, request: Request, decode: object) -> Response | Version:
        assert request.method == "GET"
        if request.target == "/version":
            return Version(self.version, self.version)
        self.reads.append(request.target)
        await asyncio.sleep(0)
        if isinstance(self.state, Exception):
            raise self.state
        index, node = self.state
        if "quorum=true" in request.target:
            index = max([index, *self.identity.indexes]) if self.quorum is None else self.quorum
        if node is None:
            raise KeyNotFoundError(100, "Key not found", "", index)
        return Response("get", node, index=index)

    async def at(self, endpoint: str, request: Request, decode: object, *, address: str | None = None) -> Health:
        assert str(request) in ("GET /v2/members/leader", "GET /health", "GET /v2/keys/_nothing")
        self.probed.append(endpoint)
        self.probes.append(str(request))
        await asyncio.sleep(0)
        if endpoint in self.unreachable:
            raise ClusterError("GET /health", [ConnectError(endpoint, "refused")])
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (ONE, TWO) if self.has_choice else (ONE,)

    def suspect(self, endpoint: str, address: str | None = None) -> None:
        self.suspected.append(endpoint)
