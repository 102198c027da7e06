"""A connector of the caller's that lends only so many connections: who waits, for how long, and what is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from aioetcd2 import Client, ClusterError, ConnectError
from aioetcd2._net.deadlines import Deadlines

from .misbehaver import Exchange, Misbehaver, answer, key_event, wait

FINE = answer(key_event())


async def slow(exchange: Exchange) -> None:
    await asyncio.sleep(0.15)
    await FINE(exchange)


WAITING = wait()


async def watches_wait(exchange: Exchange) -> bool | None:
    return await (WAITING if "wait" in exchange.seen.query else FINE)(exchange)


LIMITS = pytest.mark.parametrize("limit", [{"limit": 2}, {"limit": 0, "limit_per_host": 2}], ids=["all", "each host"])


async def watched(stack: AsyncExitStack, client: Client, number: int) -> None:
    for i in range(number):
        await stack.enter_async_context(client.keys.watch(f"/w/{i}"))


async def test_waiting_for_a_connection_is_no_part_of_the_header_timeout(lines: Callable[[], list[str]]) -> None:
    """Three in a row take longer than it together, and each has its own."""
    async with Misbehaver(slow) as server, aiohttp.TCPConnector(limit=1) as connector:
        async with Client(server.endpoint, connector=connector, header_timeout=0.25) as client:
            start = time.monotonic()
            first, second = asyncio.ensure_future(client.keys.get("/k")), asyncio.ensure_future(client.keys.get("/k"))
            await asyncio.gather(first, second)
            assert time.monotonic() - start > 0.25
    assert lines() == []


@LIMITS
async def test_watches_that_hold_all_connections_are_named(
    limit: dict[str, Any], lines: Callable[[], list[str]]
) -> None:
    async with (
        Misbehaver(watches_wait) as server,
        aiohttp.TCPConnector(**limit) as pool,
        AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(Client(server.endpoint, connector=pool, header_timeout=0.1))
        await watched(stack, client, 1)
        await client.keys.set("/k", "v")
        assert lines() == []
        await watched(stack, client, 1)
        warnings = lines()
        assert len(warnings) == 1
        assert all(f"{name}={value}" in warnings[0] for name, value in limit.items() if value)
        assert "2 watches are open" in warnings[0]
        sent = len(server.seen)
        for call in (client.keys.set("/k", "v"), client.keys.get("/k")):
            with pytest.raises(ClusterError) as caught:
                await call
            (error,) = caught.value.errors
            assert isinstance(error, ConnectError)
            assert error.ours
            assert error.no_free_connection
            assert not error.maybe_applied
            assert "no connection was free within 0.1 s" in str(error)
            assert "2 watches are open" in str(error)
        assert len(server.seen) == sent
        assert client._pool.cools_at(server.endpoint) == 0.0, "it is no failure of the endpoint"
        assert sum("no free connection" in line for line in lines()) == 1, "one warning"


async def test_call_that_waits_goes_on_as_a_watch_ends() -> None:
    async with (
        Misbehaver(watches_wait) as server,
        aiohttp.TCPConnector(limit=1) as pool,
        AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(Client(server.endpoint, connector=pool, header_timeout=5))
        async with client.keys.watch("/w"):
            call = asyncio.ensure_future(client.keys.set("/k", "v"))
            await asyncio.sleep(0.05)
            assert not call.done()
        await call


async def test_postponed_deadline_has_its_whole_time() -> None:
    deadlines = Deadlines(0.1)
    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        with deadlines.begin() as deadline:
            await asyncio.sleep(0.06)
            deadline.begin_anew()
            await asyncio.sleep(1)
    assert 0.15 < time.monotonic() - start < 1
