"""`keys.within(seconds)`: the same keys, with less time for each try."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ConnectError,
    EndpointSelection,
    HeaderTimeoutError,
    KeysAPI,
)
from aioetcd2._net import transport as _transport
from aioetcd2._net.request import Request
from aioetcd2._v2 import responses
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .loops import A, B, Script, failover, ok, page_not_found
from .misbehaver import Exchange, Misbehaver, answer, hang, key_event, raw, wait

Call = Callable[[KeysAPI], Awaitable[object]]

SOON = 0.1
LATER = 60.0

CALLS: dict[str, Call] = {
    "get": lambda keys: keys.get("k"),
    "get with quorum": lambda keys: keys.get("k", quorum=True),
    "set": lambda keys: keys.set("k", "v"),
    "create": lambda keys: keys.create("k", "v"),
    "update": lambda keys: keys.update("k", "v"),
    "create_in_order": lambda keys: keys.create_in_order("k", "v"),
    "refresh": lambda keys: keys.refresh("k", 5, prev_index=7),
    "mkdir": lambda keys: keys.mkdir("k"),
    "delete": lambda keys: keys.delete("k"),
}


@asynccontextmanager
async def client_of(*servers: Misbehaver, header_timeout: float | None = LATER) -> AsyncIterator[Client]:
    endpoints = [server.endpoint for server in servers]
    in_order = EndpointSelection.PRIORITIZE_LEADER
    async with Client(endpoints, header_timeout=header_timeout, selection=in_order) as client:
        yield client


async def took(call: Awaitable[object]) -> tuple[float, ClusterError]:
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        await asyncio.wait_for(call, LATER / 2)
    return time.monotonic() - began, caught.value


async def test_the_same_keys(client: Client, server: EtcdServer, prefix: str) -> None:
    below = KeysAPI(client, prefix=f"/v2/keys{prefix}").within(30)
    assert isinstance(below, KeysAPI)
    index = node_of(await below.set("k", "v", ttl=60)).modified_index
    assert node_of(await below.refresh("k", 60, prev_index=index)).value == "v"
    assert node_of(await client.keys.get(f"{prefix}/k")).value == "v"
    async with Client(server.endpoints, quorum=True) as linearizable:
        assert linearizable.keys.within(1)._quorum is True


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_each_try_gets_so_many_seconds(call: Call) -> None:
    async with Misbehaver(hang) as server, client_of(server) as client:
        seconds, error = await took(call(client.keys.within(SOON)))
    assert SOON * 0.9 < seconds < 5
    assert [type(each) for each in error.errors] == [HeaderTimeoutError]
    assert error.errors[0].reason == f"no answer within the header timeout of {SOON} s"
    assert error.maybe_applied is (server.seen[0].method != "GET")
    assert len(server.seen) == 1


async def test_each_endpoint_has_its_own_time() -> None:
    async with Misbehaver(hang) as first, Misbehaver(hang) as second, client_of(first, second) as client:
        seconds, error = await took(client.keys.within(SOON).get("k"))
        assert 2 * SOON * 0.9 < seconds < 5
        assert len(error.errors) == 2


@pytest.mark.parametrize(("outer", "inner"), [(SOON, LATER), (LATER, SOON), (SOON, SOON)])
async def test_it_nests_and_the_least_holds(outer: float, inner: float) -> None:
    async with Misbehaver(hang) as server, client_of(server, header_timeout=None) as client:
        seconds, error = await took(client.keys.within(outer).within(inner).get("k"))
        assert seconds < 5
        assert f"{SOON} s" in str(error)


@pytest.mark.parametrize("call", ["get", "set"])
async def test_the_client_s_own_time_still_holds(call: str) -> None:
    async with Misbehaver(hang) as server, client_of(server, header_timeout=SOON) as client:
        seconds, error = await took(CALLS[call](client.keys.within(LATER)))
        assert seconds < 5
        assert f"header timeout of {SOON} s" in str(error)


async def test_the_keys_it_was_made_of_stay_as_they_are() -> None:
    late = asyncio.Event()

    async def slow(exchange: Exchange) -> bool | None:
        await late.wait()
        return await answer(key_event())(exchange)

    async with Misbehaver(slow) as server, client_of(server) as client:
        calling = asyncio.create_task(client.keys.get("k"))
        hurried = client.keys.within(SOON)
        await took(hurried.get("k"))
        await took(hurried.set("k", "v"))
        assert not calling.done()
        late.set()
        assert node_of(await calling).value == "v"


@pytest.mark.parametrize("then", [hang, None], ids=["stalls", "drips"])
@pytest.mark.slow
async def test_a_body_may_not_take_longer_either(then: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "DRIP_TIMEOUTS", 2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    drips = [] if then else [b" "] * 900
    async with Misbehaver(raw(head, b"{", *drips, pause=0.02, then=then)) as server, client_of(server) as client:
        seconds, error = await took(client.keys.within(SOON).get("k"))
        assert SOON * 0.9 < seconds < 5
        assert f"the body stalled, or came in drips, for {SOON} s" in str(error)


async def test_a_connection_may_not_take_longer_either() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say nothing: no handshake of TLS gets on."""
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(never, "127.0.0.1", 0)
    async with Client(f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}", header_timeout=LATER) as client:
        seconds, error = await took(client.keys.within(SOON).set("k", "v"))
    silent.close()
    assert seconds < 5
    assert [type(each) for each in error.errors] == [ConnectError]
    assert f"no connection within the header timeout of {SOON} s" in str(error)
    assert not error.maybe_applied


async def test_what_is_under_way_ends_as_the_client_is_closed() -> None:
    async with Misbehaver(hang) as server, client_of(server) as client:
        calling = asyncio.create_task(client.keys.within(LATER / 2).get("k"))
        while not server.seen:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(calling, 5)


async def test_cancelling_wins() -> None:
    async with Misbehaver(hang) as server, client_of(server) as client:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.keys.within(LATER / 2).get("k"), SOON)


async def test_a_watch_keeps_to_the_client_s_time() -> None:
    async def late(exchange: Exchange) -> bool | None:
        await asyncio.sleep(2 * SOON)
        return await wait()(exchange)

    async with Misbehaver(late) as server, client_of(server) as client:
        async with client.keys.within(SOON).watch("k"):
            pass
        assert len(server.waits) == 1


@pytest.mark.parametrize("seconds", [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf], ids=repr)
async def test_bad_numbers(seconds: float) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="seconds is above 0 seconds and finite"):
            client.keys.within(seconds)


@pytest.mark.parametrize("seconds", ["5", None, True, [1]], ids=repr)
async def test_what_is_no_number(seconds: Any) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match="seconds is a number of seconds, not"):
            client.keys.within(seconds)


async def test_every_request_for_the_sake_of_a_call_has_its_time() -> None:
    """A read that is asked for again with quorum, and the questions who an endpoint is, and what it serves."""
    quorum, write = (
        Request("GET", "/v2/keys/k", timeout=SOON),
        Request("PUT", "/v2/keys/k", writes=True, timeout=SOON),
    )
    script = Script(a=[ok(9), ok(7), ok(9)])
    loop, _ = failover(script, A)
    await loop.read(quorum)
    await loop.read(quorum)
    assert [sent.request.target for sent in script.sent] == ["/v2/keys/k"] * 2 + ["/v2/keys/k?quorum=true"]
    strange = Script(a=ok(cluster="1"), b=[ok(cluster="2"), ok(cluster="1"), ok(cluster="1")])
    loop, pool = failover(strange, A, B)
    await loop.call(quorum, responses.keys)
    pool.pin(B)
    await loop.call(quorum, responses.keys)
    pool.pin(B)
    await loop.call(write, responses.keys)
    gone = Script(a=[page_not_found, ok()])
    loop, _ = failover(gone, A)
    with pytest.raises(Exception, match="no such page"):
        await loop.call(write, responses.keys)
    everything = [sent.request for each in (script, strange, gone) for sent in each.sent]
    assert {request.target for request in everything} > {"/v2/members/leader", "/version"}
    assert [request.timeout for request in everything] == [SOON] * len(everything)
