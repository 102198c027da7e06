"""The loop over endpoints with a scripted transport under it, and a clock that stands still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aioetcd2 import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    HeaderTimeoutError,
    HTTPResult,
    Response,
)
from aioetcd2._net.endpoints import EndpointPool
from aioetcd2._net.exchange import Exchanger, OpenStream
from aioetcd2._net.failover import Failover
from aioetcd2._net.redirects import at_most_ten
from aioetcd2._net.rediscovery import Find, Rediscovery
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Replay, Request, build
from aioetcd2._v2 import responses as decode
from aioetcd2._v2.identity import Identity

A, B, C, D = (f"http://{name}:2379" for name in "abcd")
FOREIGN = "http://elsewhere:80"
CLUSTER = "cdf818194e3a8c32"

GET = build("GET", "/v2/keys/k")
PUT = build("PUT", "/v2/keys/k", form=[("value", "v")], replay=Replay.IF_ALLOWED)
CREATE = build("PUT", "/v2/keys/k", form=[("value", "v"), ("prevExist", "false")])
POST = build("POST", "/v2/keys/q", form=[("value", "v")])
DELETE = build("DELETE", "/v2/keys/k")

Outcome = Callable[[str, Request], Awaitable[HTTPResult]]


class Sent(NamedTuple):
    """What the transport was told to send."""

    endpoint: str
    request: Request
    trusted: bool


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedStream:
    """A stream that has a header and no more."""

    address: str | None = None

    def __init__(self, head: HTTPResult) -> None:
        self.head = head
        self.closed = False

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


class Script:
    """A transport that does at each endpoint what it is told to, the last thing for ever."""

    username: str | None = None

    def __init__(self, **outcomes: Outcome | Sequence[Outcome]) -> None:
        self.outcomes = {
            f"http://{name}:2379": [todo] if callable(todo) else list(todo) for name, todo in outcomes.items()
        }
        self.sent: list[Sent] = []
        self.streams: list[ScriptedStream] = []
        self.closed = False

    @property
    def endpoints(self) -> list[str]:
        return [sent.endpoint for sent in self.sent]

    async def exchange(
        self, endpoint: str, request: Request, *, trusted: bool = True, address: str | None = None
    ) -> HTTPResult:
        self.check_open()
        self.sent.append(Sent(endpoint, request, trusted))
        outcomes = self.outcomes[endpoint]
        return await (outcomes.pop(0) if len(outcomes) > 1 else outcomes[0])(endpoint, request)

    async def open(self, endpoint: str, request: Request, *, trusted: bool = True) -> ScriptedStream:
        stream = ScriptedStream(await self.exchange(endpoint, request, trusted=trusted))
        self.streams.append(stream)
        return stream

    def avoid(self, address: str) -> None:
        """No name has several addresses here."""
        raise AssertionError(address)

    def address_of(self, endpoint: str) -> str | None:
        return None

    def other_addresses(self, endpoint: str, address: str) -> list[str]:
        return []

    def check_open(self) -> None:
        if self.closed:
            raise ClientClosedError("the client is closed")


def answer(
    body: bytes | str | dict[str, Any] = b"",
    status: int = 200,
    *,
    index: int | None = 10,
    cluster: str | None = CLUSTER,
    location: str | None = None,
) -> Outcome:
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    headers = {"X-Etcd-Index": index, "X-Etcd-Cluster-Id": cluster, "Location": location}
    present = {name: str(value) for name, value in headers.items() if value is not None}

    async def outcome(endpoint: str, request: Request) -> HTTPResult:
        return HTTPResult(status, present, data, endpoint)

    return outcome


def ok(index: int = 10, *, cluster: str = CLUSTER, value: str = "v") -> Outcome:
    node = {"key": "/k", "value": value, "modifiedIndex": index, "createdIndex": index}
    return answer({"action": "get", "node": node}, index=index, cluster=cluster)


def refused(code: int, status: int, *, cause: str = "/k", index: int = 10) -> Outcome:
    return answer({"errorCode": code, "message": "no", "cause": cause, "index": index}, status, index=index)


def redirect(location: str | None, status: int = 307) -> Outcome:
    return answer(b"", status, index=None, cluster=None, location=location)


async def unsent(endpoint: str, request: Request) -> HTTPResult:
    raise ConnectError(endpoint, "connection refused")


async def timed_out(endpoint: str, request: Request) -> HTTPResult:
    raise HeaderTimeoutError(endpoint, "no answer", maybe_applied=request.writes)


async def lost(endpoint: str, request: Request) -> HTTPResult:
    raise ConnectionLostError(endpoint, "reset by peer", maybe_applied=request.writes)


async def hang(endpoint: str, request: Request) -> HTTPResult:
    await asyncio.Event().wait()
    raise AssertionError("it hangs for ever")


broken = answer({"message": "oops"}, 500)
bad_gateway = answer("no backend", 502, cluster=None)
unavailable = answer("", 503, cluster=None)
no_quorum = refused(300, 500, cause="etcdserver: request timed out", index=0)
election = refused(301, 500, index=0)
html = answer("<html>It works!</html>", cluster=None)
page_not_found = answer("404 page not found\n", 404, index=None, cluster=None)
not_there = refused(100, 404)


class Loop(Failover):
    """The loop, and what is known of the cluster beside it."""

    identity: Identity

    def read(self, request: Request) -> Awaitable[Response]:
        return self.identity.read(lambda each: self.call(each, decode.keys), request)


def failover(
    script: Exchanger,
    *endpoints: str,
    clock: Clock | None = None,
    check_redirect: Callable[[int], None] = at_most_ten,
    repeat_writes: bool = False,
) -> tuple[Loop, EndpointPool]:
    pool = EndpointPool(endpoints, clock=clock or Clock())
    reporter = Reporter()
    identity = Identity(reporter)
    loop = Loop(
        pool,
        script,
        identity,
        reporter,
        check_redirect=check_redirect,
        repeat_writes=repeat_writes,
    )
    loop.identity = identity
    return loop, pool


def finds_anew(loop: Failover, find: Find, clock: Clock | None = None) -> Rediscovery:
    """Have a loop search for other endpoints when all have failed, for 5 s at the most."""
    loop.rediscovery = Rediscovery(find, loop.take, 5.0, loop._reporter, clock or Clock())
    return loop.rediscovery


async def call(loop: Failover, request: Request = GET) -> Response:
    return await loop.call(request, decode.keys)


async def open_stream(loop: Failover) -> OpenStream:
    return await loop.open(lambda endpoint: GET, decode.opened)
