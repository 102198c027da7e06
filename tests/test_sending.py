"""Over which connection a request travels, and what becomes of it when the request is given up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from aioetcd2 import Client, ClusterError
from aioetcd2._net import sending, transport
from aioetcd2._net.sending import Life

from .misbehaver import Behaviour, Exchange, Misbehaver, answer, close, key_event, reset

FINE = answer(key_event())

Call = Callable[[Client], Awaitable[object]]


def create(client: Client) -> Awaitable[object]:
    return client.keys.create("/k", "v")


def get(client: Client) -> Awaitable[object]:
    return client.keys.get("/k")


def kept(header: str) -> Behaviour:
    return answer(key_event(), headers={"Keep-Alive": header})


async def close_unexpectedly(exchange: Exchange) -> bool:
    """Say that the connection is kept, and close it."""
    await FINE(exchange)
    return False


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "WRITE_IDLE", 0.1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
async def test_write_takes_no_connection_that_was_idle_for_long(own: bool) -> None:
    """Not with a connector of the caller's either; reads take it, which aiohttp repeats."""
    connector = aiohttp.TCPConnector() if own else None
    async with Misbehaver(FINE) as server, Client(server.endpoint, connector=connector) as client:
        for call, pause, connections in [
            (create, 0.0, 1),
            (create, 0.02, 1),
            (get, 0.15, 1),
            (create, 0.15, 2),
            (create, 0.02, 2),
        ]:
            await asyncio.sleep(pause)
            await call(client)
            assert server.connections == connections
        assert server.open == 1, "the one that was passed over is closed"
    if connector is not None:
        await connector.close()


@pytest.mark.usefixtures("quick")
async def test_burst_of_writes_finds_a_fit_connection_each() -> None:
    async with Misbehaver(FINE) as server, Client(server.endpoint) as client:
        for connections in (5, 10):
            await asyncio.gather(*(create(client) for _ in range(5)))
            assert server.connections == connections
            assert server.open == 5
            await asyncio.sleep(0.15)


@pytest.mark.parametrize("call", [create, get], ids=["write", "read"])
async def test_no_connection_is_taken_that_was_made_before_its_address_was_avoided(call: Call) -> None:
    async with Misbehaver(FINE) as server, Client(server.endpoint) as client:
        await call(client)
        await call(client)
        assert server.connections == 1
        client._failover.suspect(server.endpoint, "127.0.0.1")
        await call(client)
        await call(client)
        assert server.connections == 2, "and what was made later is fit"


async def test_a_wait_whose_connection_is_reset_is_sent_once() -> None:
    """In an outage every second connect would be aiohttp's own."""
    async with Misbehaver(reset) as server, Client(server.endpoint) as client:
        with pytest.raises(ClusterError) as caught:
            await client.keys.watch("/k").next()
        assert server.connections == len(server.waits) == 1
        assert not caught.value.maybe_applied
        assert not caught.value.errors[0].maybe_applied


@pytest.mark.parametrize("call", [create, get], ids=["write", "read"])
@pytest.mark.parametrize(
    ("header", "connections"),
    [("timeout=0, max=1", 3), ("max=1", 3), ("timeout=0", 3), ("max=2", 2), ("timeout=5, max=100", 1), ("nonsense", 1)],
)
async def test_what_keep_alive_says_is_heeded(call: Call, header: str, connections: int) -> None:
    async with Misbehaver(kept(header)) as server, Client(server.endpoint) as client:
        for _ in range(3):
            await call(client)
        assert server.connections == connections


def test_keep_alive_leaves_time_to_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    life = Life(FakeTransport())
    life.answered_at = 0.0
    life.is_told('Timeout="5", max=3')
    for now[0], over in ((3.9, False), (4.1, True)):
        assert life.is_over(99) is over
    life.answered_at = now[0]
    life.is_told("timeout=1")
    now[0] += 0.6
    assert life.is_over(99)
    now[0] -= 0.2
    assert not life.is_over(99)


class FakeTransport:
    def get_extra_info(self, _: str) -> Any:
        return None


async def test_write_does_not_travel_over_a_connection_that_was_closed() -> None:
    """The other side has closed it, and the event loop has not taken note of that yet."""
    async with Misbehaver(FINE) as server, Client(server.endpoint) as client:
        await create(client)
        for writer in server._writers:
            writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await create(client)
        assert server.connections == 2
        assert len(server.seen) == 2


async def test_endpoint_that_broke_its_word_gets_fresh_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """One false alarm at the most; then a connection for each write, until it is forgotten."""
    async with Misbehaver(FINE, close, FINE) as server, Client(server.endpoint) as client:
        await create(client)
        with pytest.raises(ClusterError) as caught:
            await create(client)
        assert caught.value.maybe_applied
        for connections in (2, 3, 4):
            await create(client)
            assert server.connections == connections
        await get(client)
        assert server.connections == 4, "reads keep theirs"
        monkeypatch.setattr(transport, "UNFAITHFUL_FOR", 0.0)
        client._transport._unfaithful = {server.endpoint: time.monotonic()}
        for _ in range(2):
            await create(client)
        assert server.connections == 4, "forgotten after a while"


async def test_fresh_connection_that_is_lost_is_no_broken_word() -> None:
    async with Misbehaver(close, FINE) as server, Client(server.endpoint) as client:
        with pytest.raises(ClusterError):
            await create(client)
        for _ in range(3):
            await create(client)
        assert server.connections == 2


async def test_server_that_closes_behind_each_answer_raises_no_false_alarm() -> None:
    async with Misbehaver(close_unexpectedly) as server, Client(server.endpoint) as client:
        done = 0
        for _ in range(50):
            try:
                await create(client)
                done += 1
            except ClusterError as error:
                assert error.maybe_applied
        assert len(server.seen) >= 49
        assert done >= 49
