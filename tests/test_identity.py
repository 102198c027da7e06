"""Whose cluster it is, whether it serves v2, and that no read goes back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from aioetcd2 import (
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    HTTPResult,
    InvalidResponseError,
    KeyNotFoundError,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2._net.request import Request
from aioetcd2._v2 import identity as identity_module

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
    Outcome,
    Script,
    answer,
    bad_gateway,
    broken,
    call,
    failover,
    hang,
    html,
    lost,
    no_quorum,
    not_there,
    ok,
    open_stream,
    page_not_found,
    refused,
    timed_out,
    unsent,
)

LEADER = "GET /v2/members/leader"

# Streams


async def test_stream_of_another_cluster_is_closed() -> None:
    script = Script(a=ok(), b=ok(cluster="b"))
    loop, pool = failover(script, A, B)
    await open_stream(loop)
    pool.pin(B)
    assert (await open_stream(loop)).head.endpoint == A
    assert [each.closed for each in script.streams] == [False, True, False]
    assert pool.pinned == A


# Whose cluster it is


async def test_one_write_at_most_goes_to_another_cluster(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    for maybe, request in ((True, PUT), (False, PUT), (False, POST), (False, DELETE)):
        with pytest.raises(ClusterMismatchError) as caught:
            await call(loop, request)
        error = caught.value
        assert (error.endpoint, error.expected, error.actual, error.maybe_applied) == (B, "1", "2", maybe)
        seconds.now += 5
    assert sent_to(script, B) == [f"PUT {PUT.target}", *[LEADER] * 3]


async def test_write_that_may_have_been_applied_is_told_beside_another_cluster() -> None:
    script = Script(a=[ok(cluster="1"), lost], b=ok(cluster="2"))
    loop, _ = failover(script, A, B, repeat_writes=True)
    await call(loop)
    with pytest.raises(ClusterError) as caught:
        await call(loop, PUT)
    assert caught.value.maybe_applied
    assert [each.endpoint for each in caught.value.errors] == [A, B]
    assert script.endpoints == [A, A, B]


async def test_endpoint_that_has_come_to_our_cluster_is_written_to_again(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=[ok(cluster="2"), ok(cluster="1")])
    loop, _ = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    await call(loop, GET)  # which tells as well who it is
    await call(loop, PUT)
    assert sent_to(script, B) == [str(PUT), str(GET), str(PUT)]


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
    await call(loop)
    pool.give([B])
    loop.identity.forget()
    await call(loop, PUT)
    assert script.endpoints == [A, B, A, B]


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


async def test_write_goes_past_another_cluster(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2"), c=ok(cluster="1"))
    loop, pool = failover(script, A, B, C)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop, PUT)
    pool.pin(B)
    await call(loop, PUT)
    assert script.endpoints == [A, A, B, B, C]
    assert sent_to(script, B) == [str(PUT), LEADER]


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


# Without v2


async def test_etcd_without_v2_is_named() -> None:
    version = answer({"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}, index=None, cluster=None)
    script = Script(a=[page_not_found, version, page_not_found])
    loop, _ = failover(script, A)
    with pytest.raises(V2DisabledError, match=r"3\.5\.1 .*--enable-v2") as caught:
        await call(loop)
    assert (caught.value.server_version, caught.value.endpoint) == ("3.5.1", A)
    assert [str(sent.request) for sent in script.sent] == ["GET /v2/keys/k", "GET /version", "GET /members"]


@pytest.mark.parametrize("members", [html, unsent, lost], ids=["html", "unsent", "lost"])
async def test_etcd_without_v2_is_named_though_it_says_nothing_of_peers(members: Outcome) -> None:
    version = answer({"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}, index=None, cluster=None)
    loop, _ = failover(Script(a=[page_not_found, version, members]), A)
    with pytest.raises(V2DisabledError):
        await call(loop)


@pytest.mark.parametrize("request_", [GET, PUT, CREATE])
async def test_a_peer_port_is_named_as_such(request_: Request) -> None:
    version = answer({"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}, index=None, cluster=None)
    peers = answer('[{"id":1,"peerURLs":["http://10.0.0.1:2380"],"name":"m0"}]', index=None)
    loop, _ = failover(Script(a=[page_not_found, version, peers]), A)
    with pytest.raises(InvalidResponseError, match=r"it is the peer port of an etcd.* mostly 2379") as caught:
        await call(loop, request_)
    assert not caught.value.maybe_applied


async def test_a_peer_port_is_passed_over() -> None:
    version = answer({"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}, index=None, cluster=None)
    peers = answer("[]", index=None)
    loop, pool = failover(Script(a=[page_not_found, version, peers], b=ok()), A, B)
    await call(loop, CREATE)
    assert pool.pinned == B


async def test_member_without_v2_is_passed_over() -> None:
    version = answer({"etcdserver": "3.6.0"}, cluster=None)
    script = Script(a=[page_not_found, version], b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, CREATE)
    assert pool.pinned == B


async def test_version_is_asked_for_once() -> None:
    version = answer({"etcdserver": "3.5.1"}, cluster=None)
    script = Script(a=[page_not_found, version, page_not_found], b=page_not_found, c=unsent)
    loop, _ = failover(script, A, B, C)
    with pytest.raises(V2DisabledError):
        await call(loop)
    assert script.endpoints == [A, A, A, B, C]


@pytest.mark.parametrize("version", [page_not_found, html, unsent, lost])
async def test_server_that_is_no_etcd_is_not_said_to_lack_v2(version: Outcome) -> None:
    script = Script(a=[page_not_found, version])
    loop, _ = failover(script, A)
    with pytest.raises(InvalidResponseError, match="probably not an etcd v2 endpoint") as caught:
        await call(loop, PUT)
    assert not caught.value.maybe_applied


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


async def test_answer_from_before_forget_raises_no_mark() -> None:
    script = Script()

    async def meanwhile(endpoint: str, request: Request) -> HTTPResult:
        loop.identity.forget()
        return await ok(5000, cluster="1")(endpoint, request)

    script.outcomes[A] = [meanwhile, ok(7, cluster="2"), ok(5000), ok(7)]
    loop, _ = failover(script, A)
    assert (await loop.read(GET)).index == 5000
    assert (await loop.read(GET)).index == 7
    assert len(script.sent) == 2
    assert (loop.identity.high_water_mark, loop.identity.life) == (7, 0)


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


# Strangers


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The seconds that decide when an endpoint is asked again who it is."""
    clock = Clock()
    monkeypatch.setattr(identity_module, "time", SimpleNamespace(monotonic=clock))
    return clock


def sent_to(script: Script, endpoint: str) -> list[str]:
    return [str(sent.request) for sent in script.sent if sent.endpoint == endpoint]


@pytest.mark.parametrize("dead", [unsent, timed_out, lost, broken])
async def test_read_is_a_mismatch_only_where_all_that_answer_are_strange(dead: Outcome) -> None:
    script = Script(a=[ok(cluster="1"), dead], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError, match=r"forget_cluster\(\)") as caught:
        await call(loop)
    error = caught.value
    assert (error.endpoint, error.expected, error.actual) == (B, "1", "2")
    assert not error.maybe_applied
    assert script.endpoints == [A, A, B]


async def test_read_passes_over_another_cluster() -> None:
    script = Script(a=ok(cluster="1"), b=ok(cluster="2"))
    loop, pool = failover(script, A, B)
    await call(loop)
    pool.pin(B)
    assert (await call(loop)).cluster_id == "1"
    assert script.endpoints == [A, B, A]
    assert pool.order() == (A, B)


@pytest.mark.parametrize("request_", [PUT, POST, DELETE], ids=lambda request: request.method)
async def test_write_that_meets_another_cluster_ends_there(request_: Request) -> None:
    script = Script(a=[ok(cluster="1"), unsent, ok(cluster="1")], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    with pytest.raises(ClusterMismatchError) as caught:
        await call(loop, request_)
    assert caught.value.maybe_applied
    assert script.endpoints == [A, A, B]
    await call(loop, request_)
    assert script.endpoints == [A, A, B, A]


async def test_refusal_of_another_cluster_may_be_applied_as_well() -> None:
    script = Script(a=[ok(cluster="1"), refused(101, 412)])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError) as caught:
        await call(loop, PUT)
    assert caught.value.maybe_applied


async def test_suspect_is_asked_once_a_second_at_most(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), unsent], b=ok(cluster="2"))
    loop, _ = failover(script, A, B)
    await call(loop)
    for wait, asked in ((0, 0), (0, 1), (0.99, 1), (0.02, 2), (0.5, 2), (0.6, 3)):
        seconds.now += wait
        with pytest.raises(ClusterMismatchError):
            await call(loop, PUT)
        assert sent_to(script, B).count(LEADER) == asked


async def test_one_odd_answer_locks_no_write_out(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), ok(cluster="2"), ok(cluster="1")])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    for _ in range(40):
        await call(loop, PUT)
    assert sent_to(script, A).count(LEADER) == 1
    assert sent_to(script, A)[-40:] == [str(PUT)] * 40


async def test_one_odd_answer_locks_no_writes_out_that_come_at_once(seconds: Clock) -> None:
    async def slow(endpoint: str, request: Request) -> HTTPResult:
        await asyncio.sleep(0.01)
        return await ok(cluster="1")(endpoint, request)

    script = Script(a=[ok(cluster="1"), ok(cluster="2"), slow])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    await asyncio.gather(*(call(loop, PUT) for _ in range(40)))
    assert sent_to(script, A).count(LEADER) == 1


async def test_who_stops_asking_leaves_it_to_the_next(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), ok(cluster="2"), hang, ok(cluster="1")])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    first, second = (asyncio.ensure_future(call(loop, PUT)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await second
    assert first.cancelled()
    assert sent_to(script, A)[-3:] == [LEADER, LEADER, str(PUT)]


@pytest.mark.parametrize("odd", [lost, bad_gateway, page_not_found, answer(b"", 307, index=None, cluster=None)])
async def test_who_does_not_tell_its_leader_is_asked_for_a_key(odd: Outcome, seconds: Clock) -> None:
    async def emulated(endpoint: str, request: Request) -> HTTPResult:
        return await (odd if str(request) == LEADER else ok(cluster="1"))(endpoint, request)

    script = Script(a=[ok(cluster="1"), ok(cluster="2"), emulated])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    await call(loop, PUT)
    assert sent_to(script, A)[2:] == [LEADER, "GET /v2/keys/_nothing", str(PUT)]


@pytest.mark.parametrize("dead", [unsent, timed_out])
async def test_suspect_that_does_not_answer_gets_no_write(dead: Outcome, seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), ok(cluster="2"), dead])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    with pytest.raises(ClusterMismatchError) as caught:
        await call(loop, PUT)
    assert not caught.value.maybe_applied
    assert sent_to(script, A)[2:] == [LEADER]


async def test_client_that_is_closed_while_it_asks_a_suspect_is_closed(seconds: Clock) -> None:
    script = Script(a=[ok(cluster="1"), ok(cluster="2"), ok(cluster="1")])
    loop, _ = failover(script, A)
    await call(loop)
    with pytest.raises(ClusterMismatchError):
        await call(loop)
    script.closed = True
    with pytest.raises(ClientClosedError):
        await call(loop, PUT)


async def test_refusal_of_another_cluster_is_passed_over() -> None:
    script = Script(a=ok(cluster="1"), b=not_there)
    loop, pool = failover(script, A, B)
    await call(loop)
    pool.pin(B)
    assert (await call(loop)).cluster_id == "1"
    assert script.endpoints == [A, B, A]
