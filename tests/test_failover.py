"""The loop over endpoints, with a scripted transport and a clock that stands still."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
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
    ServerError,
)
from aioetcd2._net.endpoints import COOL_BASE, EndpointPool
from aioetcd2._net.failover import Failover
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Replay, Request, build
from aioetcd2._v2 import responses as decode
from aioetcd2._v2.identity import Identity

from .loops import (
    CREATE,
    DELETE,
    GET,
    POST,
    PUT,
    A,
    B,
    C,
    Clock,
    D,
    Outcome,
    Script,
    Sent,
    answer,
    bad_gateway,
    broken,
    call,
    election,
    failover,
    finds_anew,
    hang,
    html,
    lost,
    no_quorum,
    not_there,
    ok,
    open_stream,
    refused,
    timed_out,
    unavailable,
    unsent,
)

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


def raised(error: type[EtcdError]) -> type[EtcdError]:
    """What a call raises where each endpoint failed so: where all answered, but not as an etcd, no `ClusterError`."""
    return error if error is InvalidResponseError else ClusterError


def tries(error: EtcdError) -> Sequence[EtcdError]:
    return error.errors if isinstance(error, ClusterError) else [error]


def maybe_applied(error: EtcdError) -> bool:
    assert isinstance(error, (ClusterError, EndpointError, InvalidResponseError))
    return error.maybe_applied


async def test_a_log_record_is_one_line(lines: Callable[[], list[str]]) -> None:
    loop, _ = failover(Script(a=answer("no\r\nbackend\n", 502)), A)
    with pytest.raises(ClusterError):
        await call(loop)
    assert lines() == [f"GET /v2/keys/k failed at {A}: 502 no; backend [ServerError]"]


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
    loop, pool = failover(script, A, B, repeat_writes=True)
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
    loop, pool = failover(Script(a=outcome, b=ok()), A, B, C, clock=clock, repeat_writes=True)
    await call(loop, request_)
    pool.pin(C)
    assert pool.order() == (C, B, A)
    clock.now += COOL_BASE
    assert pool.order() == (C, A, B)


@pytest.mark.parametrize("request_", [PUT, CREATE, POST, DELETE], ids=["put", "create", "post", "delete"])
async def test_one_shot_that_was_never_sent_goes_on(request_: Request) -> None:
    script = Script(a=unsent, b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, request_)
    assert script.sent == [Sent(A, request_, True), Sent(B, request_, True)]
    assert pool.pinned == B


@pytest.mark.parametrize(("outcome", "error"), FAILURES_AFTER_SENDING)
@pytest.mark.parametrize(
    ("request_", "repeat_writes"),
    [(PUT, False), (CREATE, False), (POST, False), (DELETE, False), (CREATE, True), (POST, True), (DELETE, True)],
    ids=str,
)
async def test_one_shot_is_sent_once(
    outcome: Outcome, error: type[EndpointError], request_: Request, repeat_writes: bool
) -> None:
    script = Script(a=outcome, b=ok())
    loop, pool = failover(script, A, B, repeat_writes=repeat_writes)
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


async def test_answer_ends_a_failure_that_cooled_nothing() -> None:
    """As where this process had no descriptor left: the pool knows nothing of it, and who reads the events does."""
    loop, pool = failover(Script(a=ok()), A)
    loop._reporter.failing.add(A)
    assert not pool.failing
    await call(loop)
    assert not loop._reporter.failing


async def test_no_endpoint_is_tried_twice_in_a_call() -> None:
    script = Script(a=unsent, b=timed_out, c=unavailable)
    loop, _ = failover(script, A, B, C, repeat_writes=True)
    with pytest.raises(ClusterError):
        await call(loop, PUT)
    assert script.endpoints == [A, B, C]


async def test_cluster_error_shows_every_try() -> None:
    loop, _ = failover(Script(a=unsent, b=lost, c=no_quorum, d=bad_gateway), A, B, C, D, repeat_writes=True)
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
    loop, _ = failover(script, A)
    loop.on_use = lambda: uses.append(len(script.sent))
    assert uses == []
    await asyncio.gather(call(loop), call(loop), open_stream(loop))
    await call(loop)
    assert uses == [0]


async def test_failover_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    loop, _ = failover(Script(a=unsent, b=ok()), A, B)
    await call(loop)
    assert [record.getMessage() for record in caplog.records] == [
        f"GET /v2/keys/k failed at {A}: connection refused [ConnectError]"
    ]


async def test_an_outage_is_a_line_for_each_endpoint_and_one_as_it_answers_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aioetcd2")
    script = Script(a=unsent, b=unsent)
    loop, _ = failover(script, A, B)
    for _ in range(3):
        with pytest.raises(ClusterError):
            await call(loop)
    script.outcomes.update({A: [ok()], B: [ok()]})
    for _ in range(3):
        await call(loop)
    script.outcomes.update({A: [unsent], B: [unsent]})
    with pytest.raises(ClusterError):
        await call(loop)

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    failed = {each: f"GET /v2/keys/k failed at {each}: connection refused [ConnectError]" for each in (A, B)}
    infos = [line for level, line in told if level == "INFO"]
    assert infos == [failed[A], failed[B], f"{A} answers again", failed[A]]
    assert [line for level, line in told if level == "DEBUG"] == [*failed.values()] * 2 + [failed[B]]


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


# Redirects


@pytest.mark.parametrize("secret", [False, True])
async def test_answer_to_a_password_is_not_shown(secret: bool) -> None:
    request = build("PUT", "/v2/x", json=b'{"password":"hunter2"}', secret=secret)
    loop, _ = failover(Script(a=answer("<html>hunter2", index=None, cluster=None)), A)
    with pytest.raises(InvalidResponseError) as caught:
        await loop.call(request, decode.keys)
    assert ("hunter2" in str(caught.value)) is not secret
    assert (b"hunter2" in caught.value.body) is not secret
    assert caught.value.maybe_applied


# Found anew


async def test_endpoints_are_found_anew_when_all_have_failed() -> None:
    found: list[list[str]] = [[A, B, C]]

    async def rediscover() -> list[str]:
        return found.pop()

    script = Script(a=unsent, b=timed_out, c=ok())
    loop, pool = failover(script, A, B, repeat_writes=True)
    finds_anew(loop, rediscover)
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
    finds_anew(loop, rediscover)
    with pytest.raises(ClusterError) as caught:
        await call(loop)
    assert len(caught.value.errors) == 2
    assert set(pool.order()) == {A, B}


async def test_finding_nothing_leaves_the_errors_of_the_endpoints(lines: Callable[[], list[str]]) -> None:
    async def rediscover() -> list[str]:
        raise DiscoveryError("no such domain")

    loop, pool = failover(Script(a=unsent), A)
    finds_anew(loop, rediscover)
    with pytest.raises(ClusterError, match="connection refused"):
        await call(loop)
    assert pool.order() == (A,)
    assert lines()[1:] == ["every endpoint has failed, and so has the search for others: no such domain"]


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
    finds_anew(loop, rediscover)
    await call(loop)
    assert script.endpoints == [A, B, C]
    assert f"every endpoint has failed; found {B}, {C}, {D}" in lines()


async def test_endpoints_found_when_they_are_no_longer_wanted_are_not_used() -> None:
    async def rediscover() -> list[str]:
        assert loop.rediscovery is not None
        loop.rediscovery.end()
        return [B]

    script = Script(a=unsent, b=ok())
    loop, pool = failover(script, A)
    finds_anew(loop, rediscover)
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
    finds_anew(loop, rediscover)
    with pytest.raises(ClientClosedError):
        await call(loop)


async def test_one_shot_that_was_sent_finds_nothing_anew() -> None:
    async def rediscover() -> list[str]:
        raise AssertionError("not wanted")

    script = Script(a=lost)
    loop, _ = failover(script, A)
    finds_anew(loop, rediscover)
    with pytest.raises(ClusterError):
        await call(loop, CREATE)
    assert script.endpoints == [A]


# Without v2


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


async def test_own_lack_of_descriptors_blames_no_endpoint(clock: Clock) -> None:
    async def hindered(endpoint: str, request: Request) -> HTTPResult:
        raise ConnectError(endpoint, "too many open files", ours=True)

    script = Script(a=[hindered, ok()], b=[hindered, ok()])
    loop, pool = failover(script, A, B, clock=clock)
    with pytest.raises(ClusterError):
        await call(loop, POST)
    assert script.endpoints == [A, B]
    assert pool.order() == (A, B)
    await call(loop)
    assert script.endpoints == [A, B, A]
