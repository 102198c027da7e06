"""The loop over endpoints, with a scripted transport and a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    ConnectionLostError,
    DiscoveryError,
    EndpointError,
    EtcdError,
    HeaderTimeoutError,
    HTTPResult,
    InvalidResponseError,
    KeyNotFoundError,
    NoLeaderError,
    RaftInternalError,
    RedirectError,
    Response,
    ServerError,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2._net.endpoints import COOL_BASE, EndpointPool
from aioetcd2._net.exchange import Exchanger, OpenStream
from aioetcd2._net.failover import Failover
from aioetcd2._net.redirects import at_most_ten
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Replay, Request, build
from aioetcd2._v2 import responses as decode
from aioetcd2._v2.identity import Identity

A, B, C, D = (f"http://{name}:2379" for name in "abcd")
FOREIGN = "http://elsewhere:80"
CLUSTER = "cdf818194e3a8c32"

GET = build("GET", "/v2/keys/k")
PUT = build("PUT", "/v2/keys/k", form=[("value", "v")])
CREATE = build("PUT", "/v2/keys/k", form=[("value", "v"), ("prevExist", "false")], replay=Replay.IF_UNSENT)
POST = build("POST", "/v2/keys/q", form=[("value", "v")], replay=Replay.IF_UNSENT)
DELETE = build("DELETE", "/v2/keys/k", replay=Replay.IF_UNSENT)

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

    def __init__(self, head: HTTPResult) -> None:
        self.head = head
        self.closed = False

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


class Script:
    """A transport that does at each endpoint what it is told to, the last thing for ever."""

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

    async def exchange(self, endpoint: str, request: Request, *, trusted: bool = True) -> HTTPResult:
        self.check_open()
        self.sent.append(Sent(endpoint, request, trusted))
        outcomes = self.outcomes[endpoint]
        return await (outcomes.pop(0) if len(outcomes) > 1 else outcomes[0])(endpoint, request)

    async def open(self, endpoint: str, request: Request, *, trusted: bool = True) -> ScriptedStream:
        stream = ScriptedStream(await self.exchange(endpoint, request, trusted=trusted))
        self.streams.append(stream)
        return stream

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

FAILURES_AFTER_SENDING = [
    pytest.param(timed_out, HeaderTimeoutError, id="timed out"),
    pytest.param(lost, ConnectionLostError, id="lost"),
    pytest.param(broken, ServerError, id="500"),
    pytest.param(bad_gateway, ServerError, id="502"),
    pytest.param(unavailable, NoLeaderError, id="503"),
    pytest.param(no_quorum, NoLeaderError, id="no quorum"),
    pytest.param(election, NoLeaderError, id="election"),
    pytest.param(html, InvalidResponseError, id="no etcd"),
]
FAILURES = [pytest.param(unsent, ConnectError, id="unsent"), *FAILURES_AFTER_SENDING]

REFUSALS = [
    pytest.param(refused(101, 412), 101, id="compare failed"),
    pytest.param(not_there, 100, id="not found"),
    pytest.param(refused(110, 401, index=0), 110, id="unauthorized"),
    pytest.param(answer({"message": "Insufficient credentials"}, 401), 0, id="plain 401"),
    pytest.param(answer("Forbidden", 403), 0, id="plain 403"),
    pytest.param(answer({"message": "Bad Content-Type"}, 415), 0, id="415"),
    pytest.param(refused(300, 500, cause="nodePath /k : Not a file ()", index=0), 300, id="not a file"),
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
    on_first_use: Callable[[], None] | None = None,
) -> tuple[Loop, EndpointPool]:
    pool = EndpointPool(endpoints, clock=clock or Clock())
    reporter = Reporter()
    identity = Identity(reporter)
    loop = Loop(pool, script, identity, reporter, check_redirect=check_redirect, on_first_use=on_first_use)
    loop.identity = identity
    return loop, pool


def raised(error: type[EtcdError]) -> type[EtcdError]:
    """What a call raises where each endpoint failed so: where all answered, but not as an etcd, no `ClusterError`."""
    return error if error is InvalidResponseError else ClusterError


def tries(error: EtcdError) -> Sequence[EtcdError]:
    return error.errors if isinstance(error, ClusterError) else [error]


def maybe_applied(error: EtcdError) -> bool:
    assert isinstance(error, (ClusterError, EndpointError, InvalidResponseError))
    return error.maybe_applied


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "aioetcd2")
    return lambda: [record.getMessage() for record in caplog.records]


async def test_a_log_record_is_one_line(lines: Callable[[], list[str]]) -> None:
    loop, _ = failover(Script(a=answer("no\r\nbackend\n", 502)), A)
    with pytest.raises(ClusterError):
        await call(loop)
    assert lines() == [f"GET /v2/keys/k failed at {A}: 502 no; backend [ServerError]"]


async def call(loop: Failover, request: Request = GET) -> Response:
    return await loop.call(request, decode.keys)


async def open_stream(loop: Failover) -> OpenStream:
    return await loop.open(lambda endpoint: GET, decode.opened)


async def test_first_that_answers_stays_pinned() -> None:
    script = Script(a=ok(), b=ok())
    loop, pool = failover(script, A, B)
    for _ in range(3):
        await call(loop)
    assert script.sent == [Sent(A, GET, True)] * 3
    assert pool.pinned == A


@pytest.mark.parametrize(("outcome", "error"), FAILURES)
@pytest.mark.parametrize("request_", [GET, PUT], ids=["read", "write"])
async def test_what_may_be_repeated_goes_on_to_the_next(
    outcome: Outcome, error: type[EndpointError], request_: Request
) -> None:
    script = Script(a=outcome, b=ok(value="from b"))
    loop, pool = failover(script, A, B)
    response = await call(loop, request_)
    assert response.node is not None
    assert response.node.value == "from b"
    assert script.sent == [Sent(A, request_, True), Sent(B, request_, True)]
    assert pool.pinned == B


@pytest.mark.parametrize(("outcome", "error"), FAILURES)
@pytest.mark.parametrize("request_", [GET, PUT], ids=["read", "write"])
async def test_failure_cools_the_endpoint(
    outcome: Outcome, error: type[EndpointError], request_: Request, clock: Clock
) -> None:
    loop, pool = failover(Script(a=outcome, b=ok()), A, B, C, clock=clock)
    await call(loop, request_)
    pool.pin(C)
    assert pool.order() == (C, B, A)
    clock.now += COOL_BASE
    assert pool.order() == (C, A, B)


@pytest.mark.parametrize("request_", [CREATE, POST, DELETE], ids=["create", "post", "delete"])
async def test_one_shot_that_was_never_sent_goes_on(request_: Request) -> None:
    script = Script(a=unsent, b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, request_)
    assert script.sent == [Sent(A, request_, True), Sent(B, request_, True)]
    assert pool.pinned == B


@pytest.mark.parametrize(("outcome", "error"), FAILURES_AFTER_SENDING)
@pytest.mark.parametrize("request_", [CREATE, POST, DELETE], ids=["create", "post", "delete"])
async def test_one_shot_is_sent_once(outcome: Outcome, error: type[EndpointError], request_: Request) -> None:
    script = Script(a=outcome, b=ok())
    loop, pool = failover(script, A, B)
    with pytest.raises(raised(error)) as caught:
        await call(loop, request_)
    assert script.sent == [Sent(A, request_, True)]
    assert maybe_applied(caught.value)
    assert "may have been applied" in str(caught.value)
    assert str(request_) in str(caught.value)
    assert [(type(each), maybe_applied(each)) for each in tries(caught.value)] == [(error, True)]
    assert A in str(caught.value)
    assert pool.pinned == B


async def test_one_shot_goes_past_the_unsent_and_stops_at_the_sent() -> None:
    script = Script(a=unsent, b=lost, c=ok())
    loop, pool = failover(script, A, B, C)
    with pytest.raises(ClusterError) as caught:
        await call(loop, CREATE)
    assert script.endpoints == [A, B]
    assert [type(each) for each in caught.value.errors] == [ConnectError, ConnectionLostError]
    assert [each.maybe_applied for each in caught.value.errors] == [False, True]
    assert caught.value.maybe_applied
    assert pool.pinned == C


async def test_one_shot_read_is_sent_once_too() -> None:
    request = build("GET", "/v2/keys/k", replay=Replay.IF_UNSENT)
    script = Script(a=unsent, b=lost, c=ok())
    loop, _ = failover(script, A, B, C)
    with pytest.raises(ClusterError) as caught:
        await call(loop, request)
    assert not caught.value.maybe_applied
    assert script.endpoints == [A, B]


@pytest.mark.parametrize(("outcome", "code"), REFUSALS)
@pytest.mark.parametrize("request_", [GET, PUT, CREATE], ids=["read", "write", "one-shot"])
async def test_refusal_is_an_answer(outcome: Outcome, code: int, request_: Request, clock: Clock) -> None:
    script = Script(a=outcome, b=ok())
    loop, pool = failover(script, A, B, C, clock=clock)
    pool.failed(A)
    pool.pin(A)
    with pytest.raises(APIError) as caught:
        await call(loop, request_)
    assert caught.value.code == code
    assert caught.value.endpoint == A
    assert script.endpoints == [A]
    pool.pin(C)
    assert pool.order() == (C, A, B)


async def test_refusal_after_a_failure_pins_who_refused() -> None:
    script = Script(a=unsent, b=not_there, c=ok())
    loop, pool = failover(script, A, B, C)
    with pytest.raises(KeyNotFoundError):
        await call(loop)
    assert script.endpoints == [A, B]
    assert pool.pinned == B


async def test_answer_makes_an_endpoint_healthy(clock: Clock) -> None:
    loop, pool = failover(Script(a=ok()), A, B, C, clock=clock)
    pool.failed(A)
    pool.pin(A)
    await call(loop)
    pool.pin(C)
    assert pool.order() == (C, A, B)


async def test_no_endpoint_is_tried_twice_in_a_call() -> None:
    script = Script(a=unsent, b=timed_out, c=unavailable)
    loop, _ = failover(script, A, B, C)
    with pytest.raises(ClusterError):
        await call(loop, PUT)
    assert script.endpoints == [A, B, C]


async def test_cluster_error_shows_every_try() -> None:
    loop, _ = failover(Script(a=unsent, b=lost, c=no_quorum, d=bad_gateway), A, B, C, D)
    with pytest.raises(ClusterError) as caught:
        await call(loop, PUT)
    error = caught.value
    assert [type(each) for each in error.errors] == [ConnectError, ConnectionLostError, NoLeaderError, ServerError]
    assert [each.endpoint for each in error.errors] == [A, B, C, D]
    assert [each.maybe_applied for each in error.errors] == [False, True, True, True]
    assert error.maybe_applied
    first, *lines = str(error).splitlines()
    assert first == "PUT /v2/keys/k: no endpoint answered; the write may have been applied, read before writing again"
    assert [line.strip() for line in lines] == [
        f"{A}: connection refused [ConnectError]",
        f"{B}: reset by peer [ConnectionLostError]",
        f"{C}: 500 no (etcdserver: request timed out) [NoLeaderError]",
        f"{D}: 502 no backend [ServerError]",
    ]


async def test_write_that_was_never_sent_was_not_applied() -> None:
    loop, _ = failover(Script(a=unsent, b=unsent), A, B)
    with pytest.raises(ClusterError) as caught:
        await call(loop, PUT)
    assert not caught.value.maybe_applied
    assert "applied" not in str(caught.value)


@pytest.mark.parametrize(("outcome", "error"), FAILURES)
async def test_read_is_never_applied(outcome: Outcome, error: type[EndpointError]) -> None:
    loop, _ = failover(Script(a=outcome), A)
    with pytest.raises(raised(error)) as caught:
        await call(loop, GET)
    assert isinstance(tries(caught.value)[0], error)
    assert not maybe_applied(caught.value)


async def test_next_call_begins_where_the_last_got_through() -> None:
    script = Script(a=unsent, b=unsent, c=ok())
    loop, _ = failover(script, A, B, C)
    await call(loop)
    await call(loop)
    assert script.endpoints == [A, B, C, C]


async def test_calls_that_fail_together_are_one_failure(clock: Clock) -> None:
    everyone_is_in = asyncio.Event()
    waiting = 0

    async def fail_together(endpoint: str, request: Request) -> HTTPResult:
        nonlocal waiting
        waiting += 1
        if waiting == 50:
            everyone_is_in.set()
        await everyone_is_in.wait()
        raise ConnectionLostError(endpoint, "reset")

    script = Script(a=fail_together, b=ok())
    loop, pool = failover(script, A, B, C, clock=clock)
    responses = await asyncio.gather(*(call(loop) for _ in range(50)))
    assert len(responses) == 50
    assert script.endpoints == [A] * 50 + [B] * 50
    assert pool.pinned == B
    pool.pin(C)
    clock.now += COOL_BASE
    assert pool.order() == (C, A, B)


async def test_late_failure_takes_no_pin_from_a_healthy_endpoint() -> None:
    go = asyncio.Event()

    async def fail_late(endpoint: str, request: Request) -> HTTPResult:
        await go.wait()
        raise ConnectionLostError(endpoint, "reset")

    loop, pool = failover(Script(a=[fail_late, unsent], b=ok(), c=ok()), A, B, C)
    late = asyncio.ensure_future(call(loop))
    await asyncio.sleep(0)
    await call(loop)
    assert pool.pinned == B
    go.set()
    await late
    assert pool.pinned == B


@pytest.mark.parametrize("outcome", [ok(), not_there], ids=["answer", "refusal"])
async def test_late_answer_takes_no_pin_from_another_endpoint(outcome: Outcome) -> None:
    go = asyncio.Event()

    async def answer_late(endpoint: str, request: Request) -> HTTPResult:
        await go.wait()
        return await outcome(endpoint, request)

    loop, pool = failover(Script(a=[answer_late, unsent], b=ok()), A, B)
    late = asyncio.ensure_future(call(loop))
    await asyncio.sleep(0)
    await call(loop)
    assert pool.pinned == B
    go.set()
    await asyncio.gather(late, return_exceptions=True)
    assert pool.pinned == B


async def test_given_endpoint_that_refuses_has_answered() -> None:
    loop, pool = failover(Script(a=not_there, b=ok(), c=unsent), A, B)
    pool.replace([C])
    with pytest.raises(KeyNotFoundError):
        await call(loop)
    assert pool.order() == (A, B)


async def test_given_endpoints_are_tried_when_all_synced_ones_fail() -> None:
    script = Script(a=unsent, b=ok(), c=unsent, d=timed_out)
    loop, pool = failover(script, A, B)
    pool.replace([C, D])
    await call(loop)
    assert script.endpoints == [C, D, A, B]
    assert pool.order() == (B, A)


@pytest.mark.parametrize("synced", [[C], [C, D]])
async def test_synced_endpoints_are_tried_again_when_the_given_ones_fail_too(synced: list[str]) -> None:
    script = Script(a=unsent, c=[unsent, ok()], d=unsent)
    loop, pool = failover(script, A)
    pool.replace(synced)
    with pytest.raises(ClusterError) as caught:
        await call(loop)
    assert [each.endpoint for each in caught.value.errors] == [*synced, A]
    assert (await call(loop)).index == 10
    assert pool.pinned == C


async def test_one_shot_does_not_fall_back_once_sent() -> None:
    script = Script(a=ok(), c=lost)
    loop, pool = failover(script, A)
    pool.replace([C])
    with pytest.raises(ClusterError):
        await call(loop, CREATE)
    assert script.endpoints == [C]


@pytest.mark.parametrize("outcomes", [{"a": hang}, {"a": unsent, "b": hang}], ids=["at once", "after a failure"])
@pytest.mark.parametrize("request_", [GET, PUT, CREATE], ids=["read", "write", "one-shot"])
async def test_cancellation_wins(outcomes: dict[str, Outcome], request_: Request) -> None:
    script = Script(**outcomes, c=ok())
    loop, pool = failover(script, *(endpoint for endpoint in (A, B, C) if endpoint in script.outcomes))
    task = asyncio.ensure_future(call(loop, request_))
    for _ in range(3):
        await asyncio.sleep(0)
    sent, pinned, order = list(script.sent), pool.pinned, pool.order()
    assert len(sent) == len(outcomes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (script.sent, pool.pinned, pool.order()) == (sent, pinned, order)


async def test_deadline_of_the_caller_wins() -> None:
    script = Script(a=unsent, b=hang, c=ok())
    loop, _ = failover(script, A, B, C)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(call(loop), 0.01)
    assert script.endpoints == [A, B]


async def test_closed_client_sends_nothing() -> None:
    script = Script(a=ok(), b=ok())
    loop, _ = failover(script, A, B)
    script.closed = True
    with pytest.raises(ClientClosedError):
        await call(loop)
    with pytest.raises(ClientClosedError):
        await open_stream(loop)
    assert script.sent == []
    assert loop.closed


async def test_client_that_is_closed_meanwhile_goes_no_further() -> None:
    script = Script(b=ok())

    async def close(endpoint: str, request: Request) -> HTTPResult:
        script.closed = True
        raise ConnectionLostError(endpoint, "closed")

    script.outcomes[A] = [close]
    loop, _ = failover(script, A, B)
    with pytest.raises(ClientClosedError):
        await call(loop)
    assert script.endpoints == [A]


async def test_first_use_is_told_once() -> None:
    uses: list[int] = []
    script = Script(a=ok())
    loop, _ = failover(script, A, on_first_use=lambda: uses.append(len(script.sent)))
    assert uses == []
    await asyncio.gather(call(loop), call(loop), open_stream(loop))
    await call(loop)
    assert uses == [0]


async def test_any_error_of_check_redirect_comes_through() -> None:
    def refuse(hops: int) -> None:
        raise KeyError(hops)

    script = Script(a=redirect("/v2/keys/x"), b=ok())
    loop, _ = failover(script, A, B, check_redirect=refuse)
    with pytest.raises(KeyError):
        await call(loop)
    assert script.endpoints == [A]


async def test_failover_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    loop, _ = failover(Script(a=unsent, b=ok()), A, B)
    await call(loop)
    assert [record.getMessage() for record in caplog.records] == [
        f"GET /v2/keys/k failed at {A}: connection refused [ConnectError]"
    ]


# Streams


async def test_stream_of_the_first_that_opens() -> None:
    script = Script(a=unsent, b=unavailable, c=answer(b"", 200, index=7))
    loop, pool = failover(script, A, B, C)
    stream = await open_stream(loop)
    assert stream.head.status == 200
    assert stream.head.endpoint == C
    assert pool.pinned == C
    assert [each.closed for each in script.streams] == [True, False]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (refused(401, 400, cause="cleared"), APIError),
        (html, None),
        (answer("", 204), InvalidResponseError),
        (answer("<html>", index=None, cluster=None), InvalidResponseError),
        (lost, ClusterError),
    ],
    ids=["refused", "opened", "no content", "no etcd", "lost"],
)
async def test_stream_is_open_only_with_a_200(outcome: Outcome, error: type[Exception] | None) -> None:
    script = Script(a=outcome)
    loop, _ = failover(script, A)
    if error is None:
        assert await open_stream(loop) is script.streams[0]
        return
    with pytest.raises(error):
        await open_stream(loop)
    assert all(stream.closed for stream in script.streams)


async def test_stream_is_asked_for_as_its_endpoint_needs() -> None:
    script = Script(a=unsent, b=ok())
    loop, _ = failover(script, A, B)
    await loop.open(lambda endpoint: build("GET", "/v2/keys/k", query=[("at", endpoint[7])]), decode.opened)
    assert [str(sent.request) for sent in script.sent] == ["GET /v2/keys/k?at=a", "GET /v2/keys/k?at=b"]


async def test_suspect_is_left_for_a_while(clock: Clock) -> None:
    loop, pool = failover(Script(), A, B, C, clock=clock)
    loop.suspect(A)
    assert pool.order() == (B, C, A)


@pytest.mark.parametrize(("endpoints", "choice"), [([A], False), ([A, B], True)])
def test_choice(endpoints: list[str], choice: bool) -> None:
    loop, _ = failover(Script(), *endpoints)
    assert loop.has_choice is choice


async def test_stream_follows_redirects_and_closes_each() -> None:
    script = Script(a=redirect("/v2/keys/x?wait=true"), b=ok())
    script.outcomes[A].append(redirect(f"{B}/v2/keys/y?wait=true"))
    loop, _ = failover(script, A, B)
    stream = await open_stream(loop)
    assert [str(sent.request) for sent in script.sent] == [
        "GET /v2/keys/k",
        "GET /v2/keys/x?wait=true",
        "GET /v2/keys/y?wait=true",
    ]
    assert [each.closed for each in script.streams] == [True, True, False]
    assert stream is script.streams[-1]


async def test_stream_of_another_cluster_is_closed() -> None:
    script = Script(a=ok(), b=ok(cluster="b"))
    loop, pool = failover(script, A, B)
    await open_stream(loop)
    pool.pin(B)
    with pytest.raises(ClusterMismatchError):
        await open_stream(loop)
    assert [each.closed for each in script.streams] == [False, True]


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("request_", [GET, PUT, POST, DELETE], ids=lambda request: request.method)
async def test_redirect_keeps_method_and_body(status: int, request_: Request) -> None:
    script = Script(a=redirect(f"{B}/v2/keys/other?x=1", status), b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, request_)
    follow = script.sent[1]
    assert script.endpoints == [A, B]
    assert follow.request.target == "/v2/keys/other?x=1"
    assert (follow.request.method, follow.request.body, follow.request.content_type, follow.request.replay) == (
        request_.method,
        request_.body,
        request_.content_type,
        request_.replay,
    )
    assert pool.pinned == A


@pytest.mark.parametrize(
    ("location", "endpoint", "target"),
    [
        ("/v2/keys/x", A, "/v2/keys/x"),
        ("x", A, "/v2/keys/x"),
        ("?wait=true", A, "/v2/keys/k?wait=true"),
        (f"{B}", B, "/"),
        (f"{B}/v2/keys/x%20y?a=b%26c", B, "/v2/keys/x%20y?a=b%26c"),
        (f"{B}/v2/keys/x#there", B, "/v2/keys/x"),
        ("//b:2379/v2/keys/x", B, "/v2/keys/x"),
        ("HTTP://B:2379/X", B, "/X"),
    ],
)
async def test_redirect_leads_where_the_location_says(location: str, endpoint: str, target: str) -> None:
    script = Script(a=[redirect(location), ok()], b=ok())
    loop, _ = failover(script, A, B)
    await call(loop)
    assert (script.sent[1].endpoint, script.sent[1].request.target) == (endpoint, target)


@pytest.mark.parametrize(
    "location",
    [None, "", "http://[::1/x", "http://h:99999/", "http://b:2379/a b", "/é", "/a\x00"],
)
async def test_redirect_needs_a_good_location(location: str | None) -> None:
    script = Script(a=redirect(location), b=ok())
    loop, _ = failover(script, A, B)
    with pytest.raises(RedirectError, match="Location"):
        await call(loop)
    assert script.endpoints == [A]


@pytest.mark.parametrize(
    "location", ["ftp://b/x", "unix:///run/x/y", "unix://%2Frun%2Fdocker.sock/x", "file:///etc/passwd"]
)
async def test_redirect_leads_to_http_only(location: str) -> None:
    script = Script(a=redirect(location))
    loop, _ = failover(script, A)
    with pytest.raises(RedirectError, match="bad Location"):
        await call(loop)
    assert script.endpoints == [A]


@pytest.mark.parametrize("location", ["http://bob:hunter2@b:2379/x", "//bob@b:2379/x"])
async def test_redirect_brings_no_credentials(location: str) -> None:
    loop, _ = failover(Script(a=redirect(location)), A)
    with pytest.raises(RedirectError, match="bad Location"):
        await call(loop)


@pytest.mark.parametrize("location", ["/v2/keys/x", "http://localhost/v2/keys/x"])
async def test_redirect_stays_on_a_socket(location: str) -> None:
    script = Script()
    script.outcomes["unix:///run/etcd.sock"] = [redirect(location), ok()]
    loop, _ = failover(script, "unix:///run/etcd.sock")
    await call(loop)
    assert script.sent[1].endpoint == "unix:///run/etcd.sock"
    assert script.sent[1].request.target == "/v2/keys/x"
    assert script.sent[1].trusted


async def test_redirect_leads_away_from_a_socket() -> None:
    script = Script(b=ok())
    script.outcomes["unix:///run/etcd.sock"] = [redirect(f"{B}/x")]
    loop, _ = failover(script, "unix:///run/etcd.sock")
    await call(loop)
    assert (script.sent[1].endpoint, script.sent[1].request.target, script.sent[1].trusted) == (B, "/x", False)


async def test_ten_redirects_are_followed() -> None:
    script = Script(a=[redirect("/x")] * 10 + [ok()])
    loop, _ = failover(script, A)
    await call(loop)
    assert len(script.sent) == 11


async def test_eleven_redirects_are_too_many() -> None:
    script = Script(a=redirect("/x"), b=ok())
    loop, _ = failover(script, A, B)
    with pytest.raises(RedirectError, match="more than 10 redirects"):
        await call(loop)
    assert script.endpoints == [A] * 11


async def test_check_redirect_is_told_the_number_in_a_row_and_refuses() -> None:
    hops: list[int] = []

    def check(hop: int) -> None:
        hops.append(hop)
        if hop == 3:
            raise RedirectError("enough")

    script = Script(a=redirect("/x"))
    loop, _ = failover(script, A, check_redirect=check)
    for _ in range(2):
        with pytest.raises(RedirectError, match=r"^enough$"):
            await call(loop)
    assert hops == [1, 2, 3, 1, 2, 3]
    assert len(script.sent) == 6


async def test_check_redirect_is_not_asked_without_redirects() -> None:
    hops: list[int] = []
    loop, _ = failover(Script(a=ok()), A, check_redirect=hops.append)
    await call(loop)
    assert hops == []


@pytest.mark.parametrize(
    ("endpoints", "path", "trusted"),
    [
        ([A, B], [A, B], [True, True]),
        ([A, B], [A, FOREIGN], [True, False]),
        ([A, B], [A, "http://b:2380"], [True, False]),
        ([A, B], [A, "https://b:2379"], [True, False]),
        ([A, B], [A, FOREIGN, B], [True, False, True]),
        ([A, "https://b:1"], [A, "https://b:1"], [True, True]),
        (["https://a:1", B], ["https://a:1", B], [True, False]),
        (["https://a:1", "https://b:1"], ["https://a:1", "https://b:1"], [True, True]),
        (["https://a:1", B], ["https://a:1", FOREIGN, B], [True, False, False]),
        (["https://a:1", B], ["https://a:1", "https://elsewhere:1", B], [True, False, False]),
        ([A, "https://b:1", C], [A, "https://b:1", C], [True, True, False]),
        (["https://a:1", B], ["https://a:1", B, "https://a:1"], [True, False, True]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
@pytest.mark.parametrize("stream", [False, True], ids=["exchange", "stream"])
async def test_credentials_go_to_our_endpoints_only_and_never_onto_cleartext(
    endpoints: list[str], path: list[str], trusted: list[bool], stream: bool
) -> None:
    script = Script()
    for here, there in pairwise(path):
        script.outcomes.setdefault(here, []).append(redirect(f"{there}/x"))
    script.outcomes.setdefault(path[-1], []).append(ok())
    loop, _ = failover(script, *endpoints)
    await (open_stream(loop) if stream else call(loop))
    assert script.endpoints == path
    assert [sent.trusted for sent in script.sent] == trusted


async def test_endpoints_first_given_keep_their_trust_after_a_sync() -> None:
    script = Script(a=ok(), b=redirect(f"{A}/x"))
    loop, pool = failover(script, A)
    pool.replace([B])
    await call(loop)
    assert script.sent[1] == Sent(A, build("GET", "/x"), True)


@pytest.mark.parametrize(("endpoint", "there"), [(A, FOREIGN), ("https://a:1", B)])
async def test_body_that_holds_a_password_goes_to_our_endpoints_only(endpoint: str, there: str) -> None:
    request = build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=True)
    script = Script(b=ok())
    script.outcomes[endpoint] = [redirect(f"{there}/x")]
    loop, _ = failover(script, endpoint, B)
    with pytest.raises(RedirectError, match="password") as caught:
        await call(loop, request)
    assert script.endpoints == [endpoint]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("secret", [False, True])
async def test_answer_to_a_password_is_not_shown(secret: bool) -> None:
    request = build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=secret)
    loop, _ = failover(Script(a=answer("<html>hunter2", index=None, cluster=None)), A)
    with pytest.raises(InvalidResponseError) as caught:
        await loop.call(request, decode.keys)
    assert ("hunter2" in str(caught.value)) is not secret
    assert (b"hunter2" in caught.value.body) is not secret
    assert caught.value.maybe_applied


async def test_body_that_holds_a_password_follows_to_our_endpoints() -> None:
    request = build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=True)
    script = Script(a=redirect(f"{B}/x"), b=ok())
    loop, _ = failover(script, A, B)
    await call(loop, request)
    assert script.sent[1].request.body == request.body
    assert script.sent[1].request.secret


async def test_failure_behind_a_redirect_is_that_of_who_redirected() -> None:
    script = Script(a=redirect(f"{FOREIGN}/x"), b=ok())
    script.outcomes[FOREIGN] = [unsent]
    loop, pool = failover(script, A, B)
    await call(loop, CREATE)
    assert script.endpoints == [A, FOREIGN, B]
    assert pool.order() == (B, A)


async def test_one_shot_is_sent_once_behind_a_redirect() -> None:
    script = Script(a=redirect(f"{C}/x"), b=ok(), c=lost)
    loop, _ = failover(script, A, B)
    with pytest.raises(ClusterError) as caught:
        await call(loop, CREATE)
    assert script.endpoints == [A, C]
    assert caught.value.maybe_applied


@pytest.mark.parametrize("status", [300, 303, 305, 399])
async def test_every_3xx_is_followed(status: int) -> None:
    script = Script(a=redirect(f"{B}/x", status), b=ok())
    loop, _ = failover(script, A, B)
    await call(loop, PUT)
    assert script.sent[1] == Sent(B, msgspec.structs.replace(PUT, target="/x"), True)


async def test_refusal_at_the_end_of_a_redirect_is_an_answer(lines: Callable[[], list[str]]) -> None:
    loop, _ = failover(Script(a=[redirect("/x"), refused(203, 400)]), A)
    with pytest.raises(APIError) as caught:
        await call(loop)
    assert caught.value.code == 203
    assert lines() == [f"{A} redirects to {A}/x"]


@pytest.mark.parametrize(
    ("location", "there"), [("//b:1/x", "https://b:1"), ("http://localhost/x", "http://localhost")]
)
async def test_redirect_from_https_leads_where_the_location_says(location: str, there: str) -> None:
    script = Script()
    script.outcomes = {"https://a:1": [redirect(location)], there: [ok()]}
    loop, _ = failover(script, "https://a:1")
    await call(loop)
    assert script.endpoints == ["https://a:1", there]
    assert script.sent[1].request.target == "/x"
    assert not script.sent[1].trusted


async def test_3xx_that_leads_nowhere() -> None:
    loop, _ = failover(Script(a=redirect(None, 304)), A)
    with pytest.raises(RedirectError, match=f"^GET /v2/keys/k at {A}: redirect 304 without a Location$"):
        await call(loop)


async def test_redirects_end_even_where_check_redirect_refuses_nothing() -> None:
    script = Script(a=redirect(f"{A}/x"))
    loop, _ = failover(script, A, check_redirect=lambda hops: None)
    with pytest.raises(RedirectError, match="more than 100 redirects"):
        await call(loop)
    assert len(script.sent) == 101


# Whose cluster it is


async def test_another_cluster_is_noticed() -> None:
    script = Script(a=[ok(cluster="1"), lost], b=ok(cluster="2"))
    loop, pool = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError) as caught:
        await call(loop, PUT)
    assert (caught.value.endpoint, caught.value.expected, caught.value.actual) == (B, "1", "2")
    assert pool.pinned == A


async def test_no_second_write_goes_to_another_cluster() -> None:
    script = Script(a=ok(cluster="1"), b=ok(cluster="2"))
    loop, pool = failover(script, A, B)
    await call(loop)
    pool.pin(B)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    await call(loop, PUT)
    assert script.endpoints == [A, B, A]


async def test_one_write_at_most_goes_to_another_cluster() -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    for request in (PUT, POST, DELETE):
        with pytest.raises(ClusterMismatchError) as caught:
            await call(loop, request)
        assert (caught.value.endpoint, caught.value.expected, caught.value.actual) == (B, "1", "2")
    assert [sent.request.method for sent in script.sent if sent.endpoint == B] == ["PUT"]


async def test_write_that_may_have_been_applied_is_told_beside_another_cluster() -> None:
    script = Script(a=[ok(cluster="1"), lost], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, GET)
    with pytest.raises(ClusterError) as caught:
        await call(loop, PUT)
    assert caught.value.maybe_applied
    assert script.endpoints == [A, A, B, A]


async def test_endpoint_that_has_come_to_our_cluster_is_written_to_again() -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=[ok(cluster="2"), ok(cluster="1")])
    loop, _ = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    await call(loop, GET)
    await call(loop, PUT)
    assert [str(sent.request.method) for sent in script.sent if sent.endpoint == B] == ["PUT", "GET", "PUT"]


async def test_refusal_of_another_cluster_is_a_mismatch() -> None:
    script = Script(a=ok(cluster="1"), b=not_there)
    loop, pool = failover(script, A, B)
    await call(loop)
    pool.pin(B)
    with pytest.raises(ClusterMismatchError):
        await call(loop)


async def test_answer_that_names_no_cluster_changes_nothing() -> None:
    script = Script(a=[ok(cluster="1"), answer({"message": "no"}, 401, cluster=None), ok(cluster="2")])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(UnauthorizedError):
        await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)


async def test_forget_forgets_cluster_and_index() -> None:
    script = Script(a=ok(100, cluster="1"), b=ok(5, cluster="2"))
    loop, pool = failover(script, A, B)
    assert loop.identity.high_water_mark == 0
    await loop.read(GET)
    assert loop.identity.high_water_mark == 100
    pool.give([B])
    loop.identity.forget()
    assert loop.identity.high_water_mark == 0
    assert (await loop.read(GET)).index == 5
    assert script.endpoints == [A, B]
    pool.give([A])
    with pytest.raises(ClusterMismatchError):
        await call(loop)


async def test_forget_forgets_who_was_foreign() -> None:
    script = Script(a=ok(cluster="1"), b=ok(cluster="2"))
    loop, pool = failover(script, A, B)
    await call(loop)
    pool.pin(B)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    pool.give([B])
    loop.identity.forget()
    await call(loop, PUT)
    assert script.endpoints == [A, B, B]


async def test_answer_from_before_forget_names_no_cluster() -> None:
    go = asyncio.Event()

    async def late(endpoint: str, request: Request) -> HTTPResult:
        await go.wait()
        return await ok(cluster="1")(endpoint, request)

    loop, pool = failover(Script(a=late, b=ok(cluster="2")), A)
    before = asyncio.ensure_future(call(loop))
    await asyncio.sleep(0)
    pool.give([B])
    loop.identity.forget()
    go.set()
    await before
    await call(loop)
    pool.give([A])
    with pytest.raises(ClusterMismatchError):
        await call(loop)


async def test_write_goes_past_another_cluster() -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2"), c=ok(cluster="1"))
    loop, pool = failover(script, A, B, C)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    pool.pin(B)
    await call(loop, PUT)
    assert script.endpoints == [A, A, B, C]


async def test_read_that_no_one_answers_is_no_matter_of_another_cluster() -> None:
    loop, _ = failover(Script(a=[ok(cluster="1"), unsent], b=[ok(cluster="2"), unsent]), A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    with pytest.raises(ClusterError) as caught:
        await call(loop, GET)
    assert {each.endpoint for each in caught.value.errors} == {A, B}


async def test_write_that_no_one_answers_is_no_matter_of_an_endpoint_that_is_gone() -> None:
    loop, pool = failover(Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2")), A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    pool.give([A])
    with pytest.raises(ClusterError) as caught:
        await call(loop, PUT)
    assert [each.endpoint for each in caught.value.errors] == [A]


# Found anew


async def test_endpoints_are_found_anew_when_all_have_failed() -> None:
    found: list[list[str]] = [[A, B, C]]

    async def rediscover() -> list[str]:
        return found.pop()

    script = Script(a=unsent, b=timed_out, c=ok())
    loop, pool = failover(script, A, B)
    loop.rediscover = rediscover
    await call(loop, PUT)
    assert script.endpoints == [A, B, C]
    assert pool.order()[0] == C
    assert found == []


@pytest.mark.parametrize("found", [[A], [B, A], []])
async def test_finding_the_same_endpoints_changes_nothing(found: list[str]) -> None:
    async def rediscover() -> list[str]:
        return found

    script = Script(a=unsent, b=unsent)
    loop, pool = failover(script, A, B)
    loop.rediscover = rediscover
    with pytest.raises(ClusterError) as caught:
        await call(loop)
    assert len(caught.value.errors) == 2
    assert set(pool.order()) == {A, B}


async def test_finding_nothing_leaves_the_errors_of_the_endpoints(lines: Callable[[], list[str]]) -> None:
    async def rediscover() -> list[str]:
        raise DiscoveryError("no such domain")

    loop, pool = failover(Script(a=unsent), A)
    loop.rediscover = rediscover
    with pytest.raises(ClusterError, match="connection refused"):
        await call(loop)
    assert pool.order() == (A,)
    assert lines()[1:] == ["every endpoint has failed, and finding others did, too: no such domain"]


class Reversing(random.Random):
    """Dice whose shuffling is no surprise."""

    def shuffle(self, x: Any) -> None:
        x.reverse()


async def test_endpoints_found_anew_are_tried_in_their_order(lines: Callable[[], list[str]]) -> None:
    async def rediscover() -> list[str]:
        return [B, C, D]

    script = Script(a=unsent, b=unsent, c=ok())
    reporter = Reporter()
    pool = EndpointPool([A], shuffle=True, rng=Reversing())
    loop = Failover(pool, script, Identity(reporter), reporter)
    loop.rediscover = rediscover
    await call(loop)
    assert script.endpoints == [A, B, C]
    assert f"every endpoint has failed; found {B}, {C}, {D}" in lines()


async def test_endpoints_found_when_they_are_no_longer_wanted_are_not_used() -> None:
    async def rediscover() -> list[str]:
        loop.rediscover = None
        return [B]

    script = Script(a=unsent, b=ok())
    loop, pool = failover(script, A)
    loop.rediscover = rediscover
    with pytest.raises(ClusterError):
        await call(loop)
    assert script.endpoints == [A]
    assert pool.order() == (A,)


async def test_client_that_is_closed_while_it_finds_endpoints_is_closed() -> None:
    async def rediscover() -> list[str]:
        script.closed = True
        return []

    script = Script(a=unsent)
    loop, _ = failover(script, A)
    loop.rediscover = rediscover
    with pytest.raises(ClientClosedError):
        await call(loop)


async def test_one_shot_that_was_sent_finds_nothing_anew() -> None:
    async def rediscover() -> list[str]:
        raise AssertionError("not wanted")

    script = Script(a=lost)
    loop, _ = failover(script, A)
    loop.rediscover = rediscover
    with pytest.raises(ClusterError):
        await call(loop, CREATE)
    assert script.endpoints == [A]


# Without v2


async def test_etcd_without_v2_is_named() -> None:
    version = answer({"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}, index=None, cluster=None)
    script = Script(a=[page_not_found, version])
    loop, _ = failover(script, A)
    with pytest.raises(V2DisabledError, match=r"3\.5\.1 .*--enable-v2") as caught:
        await call(loop)
    assert (caught.value.server_version, caught.value.endpoint) == ("3.5.1", A)
    assert [str(sent.request) for sent in script.sent] == ["GET /v2/keys/k", "GET /version"]


async def test_member_without_v2_is_passed_over() -> None:
    version = answer({"etcdserver": "3.6.0"}, cluster=None)
    script = Script(a=[page_not_found, version], b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, CREATE)
    assert pool.pinned == B


async def test_version_is_asked_for_once() -> None:
    version = answer({"etcdserver": "3.5.1"}, cluster=None)
    script = Script(a=[page_not_found, version], b=page_not_found, c=unsent)
    loop, _ = failover(script, A, B, C)
    with pytest.raises(V2DisabledError):
        await call(loop)
    assert script.endpoints == [A, A, B, C]


@pytest.mark.parametrize("version", [page_not_found, html, unsent, lost])
async def test_server_that_is_no_etcd_is_not_said_to_lack_v2(version: Outcome) -> None:
    script = Script(a=[page_not_found, version])
    loop, _ = failover(script, A)
    with pytest.raises(InvalidResponseError, match="probably not an etcd v2 endpoint") as caught:
        await call(loop, PUT)
    assert not caught.value.maybe_applied


async def test_only_where_all_are_no_etcd_that_is_the_outcome() -> None:
    loop, _ = failover(Script(a=html, b=ok()), A, B)
    assert (await call(loop)).index == 10
    loop, _ = failover(Script(a=html, b=lost), A, B)
    with pytest.raises(ClusterError) as caught:
        await call(loop)
    assert [type(each) for each in caught.value.errors] == [EndpointError, ConnectionLostError]
    assert isinstance(caught.value.errors[0].__cause__, InvalidResponseError)
    loop, _ = failover(Script(a=html, b=html), A, B)
    with pytest.raises(InvalidResponseError, match=f"^GET /v2/keys/k at {A}: probably not .*; {B}: probably not"):
        await call(loop)


@pytest.mark.parametrize("request_", [PUT, CREATE], ids=["write", "one-shot"])
async def test_write_that_may_have_been_applied_is_told_beside_a_member_without_v2(request_: Request) -> None:
    version = answer({"etcdserver": "3.5.1"}, cluster=None)
    loop, _ = failover(Script(a=[page_not_found, version], b=lost), A, B)
    with pytest.raises(ClusterError) as caught:
        await call(loop, request_)
    assert caught.value.maybe_applied


async def test_client_that_is_closed_while_it_asks_for_the_version_is_closed() -> None:
    script = Script()

    async def close(endpoint: str, request: Request) -> HTTPResult:
        script.closed = True
        raise ClientClosedError("closed")

    script.outcomes[A] = [page_not_found, close]
    loop, _ = failover(script, A)
    with pytest.raises(ClientClosedError):
        await call(loop)


# Never back in time


@pytest.mark.parametrize("older", [1, 99])
async def test_older_answer_is_asked_for_with_quorum(older: int, lines: Callable[[], list[str]]) -> None:
    script = Script(a=[ok(100), ok(older, value="old"), ok(101, value="new")])
    loop, _ = failover(script, A)
    await loop.read(GET)
    response = await loop.read(GET)
    assert response.node is not None
    assert (response.node.value, response.index) == ("new", 101)
    assert [sent.request.target for sent in script.sent[1:]] == ["/v2/keys/k", "/v2/keys/k?quorum=true"]
    assert loop.identity.high_water_mark == 101
    assert lines() == [f"an answer had index {older} after 100; asking again with quorum: GET /v2/keys/k?quorum=true"]


@pytest.mark.parametrize("index", [100, 101])
async def test_answer_as_new_is_taken(index: int) -> None:
    script = Script(a=[ok(100), ok(index)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    await loop.read(GET)
    assert len(script.sent) == 2
    assert loop.identity.high_water_mark == index


async def test_index_of_0_says_nothing() -> None:
    script = Script(a=[ok(100), answer({"action": "get"}, index=None), refused(110, 401, index=0)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    response = await loop.read(GET)
    assert (response.action, response.index) == ("get", 0)
    with pytest.raises(UnauthorizedError):
        await loop.read(GET)
    assert len(script.sent) == 3
    assert loop.identity.high_water_mark == 100


async def test_index_seen_elsewhere_counts() -> None:
    script = Script(a=[ok(99), ok(100)])
    loop, _ = failover(script, A)
    loop.identity.reached(100)
    loop.identity.reached(50)
    assert (await loop.read(GET)).index == 100
    assert len(script.sent) == 2


async def test_older_refusal_is_asked_for_with_quorum() -> None:
    script = Script(a=[ok(100), refused(100, 404, index=99), ok(102)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    assert (await loop.read(GET)).index == 102


async def test_refusal_as_new_is_taken() -> None:
    script = Script(a=[ok(100), refused(100, 404, index=100)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    with pytest.raises(KeyNotFoundError):
        await loop.read(GET)
    assert len(script.sent) == 2


async def test_index_of_0_with_quorum_says_nothing() -> None:
    script = Script(a=[ok(100), ok(99), answer({"action": "get"}, index=None)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    assert (await loop.read(GET)).index == 0
    assert loop.identity.high_water_mark == 100


async def test_refusal_counts_as_seen() -> None:
    script = Script(a=[refused(100, 404, index=100), ok(99), ok(100)])
    loop, _ = failover(script, A)
    with pytest.raises(KeyNotFoundError):
        await loop.read(GET)
    assert loop.identity.high_water_mark == 100
    assert (await loop.read(GET)).index == 100


async def test_refusal_with_quorum_is_taken() -> None:
    script = Script(a=[ok(100), ok(99), refused(100, 404, index=103)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    with pytest.raises(KeyNotFoundError) as caught:
        await loop.read(GET)
    assert caught.value.index == 103
    assert loop.identity.high_water_mark == 103


@pytest.mark.parametrize("older", [1, 7])
async def test_cluster_made_anew_from_older_data_is_believed(older: int) -> None:
    script = Script(a=[ok(100), ok(older), ok(older), ok(older + 1)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    assert (await loop.read(GET)).index == older
    assert loop.identity.high_water_mark == older
    assert (await loop.read(GET)).index == older + 1
    assert len(script.sent) == 4


async def test_cluster_made_anew_without_the_key_is_believed() -> None:
    gone = refused(100, 404, index=7)
    script = Script(a=[ok(100), gone, gone, ok(8)])
    loop, _ = failover(script, A)
    await loop.read(GET)
    with pytest.raises(KeyNotFoundError) as caught:
        await loop.read(GET)
    assert caught.value.index == loop.identity.high_water_mark == 7
    assert (await loop.read(GET)).index == 8
    assert len(script.sent) == 4


@pytest.mark.parametrize("index", [100, 150])
async def test_newer_index_seen_during_the_read_with_quorum_stays(index: int) -> None:
    script = Script()

    async def meanwhile(endpoint: str, request: Request) -> HTTPResult:
        loop.identity.reached(200)
        return await ok(index)(endpoint, request)

    script.outcomes[A] = [ok(100), ok(99), meanwhile]
    loop, _ = failover(script, A)
    await loop.read(GET)
    assert (await loop.read(GET)).index == index
    assert loop.identity.high_water_mark == 200


async def test_newer_index_seen_during_a_read_does_not_make_its_answer_old() -> None:
    script = Script()

    async def meanwhile(endpoint: str, request: Request) -> HTTPResult:
        loop.identity.reached(200)
        return await ok(150)(endpoint, request)

    script.outcomes[A] = [ok(100), meanwhile]
    loop, _ = failover(script, A)
    await loop.read(GET)
    assert (await loop.read(GET)).index == 150
    assert len(script.sent) == 2
    assert loop.identity.high_water_mark == 200


async def test_read_with_quorum_fails_over_too() -> None:
    script = Script(a=[ok(100), ok(99), no_quorum], b=ok(101))
    loop, _ = failover(script, A, B)
    await loop.read(GET)
    assert (await loop.read(GET)).index == 101
    assert script.sent[-1].request.target == "/v2/keys/k?quorum=true"


async def test_no_answer_with_quorum_is_no_answer() -> None:
    script = Script(a=[ok(100), ok(99), no_quorum])
    loop, _ = failover(script, A)
    await loop.read(GET)
    with pytest.raises(ClusterError):
        await loop.read(GET)
    assert loop.identity.high_water_mark == 100


# One endpoint and no other


@pytest.mark.parametrize(("endpoint", "trusted"), [(B, True), (C, False)])
async def test_one_endpoint_gets_credentials_if_it_is_ours(endpoint: str, trusted: bool) -> None:
    script = Script(b=ok(), c=ok())
    loop, pool = failover(script, A, B)
    await loop.at(endpoint, GET, decode.keys)
    assert script.sent == [Sent(endpoint, GET, trusted)]
    assert pool.pinned == A


@pytest.mark.parametrize(("outcome", "error"), FAILURES)
async def test_one_endpoint_fails_alone(outcome: Outcome, error: type[EtcdError]) -> None:
    script = Script(a=ok(), b=outcome)
    loop, pool = failover(script, A, B)
    with pytest.raises(raised(error)) as caught:
        await loop.at(B, GET, decode.keys)
    assert [type(each) for each in tries(caught.value)] == [error]
    assert caught.value.__cause__ is (None if error is InvalidResponseError else tries(caught.value)[0])
    assert script.endpoints == [B]
    assert pool.order() == (A, B)


async def test_one_endpoint_refuses_as_any() -> None:
    loop, _ = failover(Script(a=not_there), A)
    with pytest.raises(KeyNotFoundError):
        await loop.at(A, GET, decode.keys)


async def test_raw_answer_is_passed_on_and_5xx_goes_on() -> None:
    script = Script(a=broken, b=answer("no such thing", 418))
    loop, _ = failover(script, A, B)
    result = await loop.call(GET, decode.raw)
    assert (result.status, result.body, result.endpoint) == (418, b"no such thing", B)


async def test_raw_answer_may_be_one_of_raft() -> None:
    loop, _ = failover(Script(a=refused(300, 500, cause="Not a file")), A)
    assert (await loop.call(PUT, decode.raw)).status == 500
    with pytest.raises(RaftInternalError):
        await call(loop, PUT)
