"""The endpoint that calls go to is probed while they are made: one that is ill, or silent, loses the pin."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioetcd2 import (
    Client,
    ClientClosedError,
    EndpointSelection,
    InvalidResponseError,
    V2DisabledError,
)

from .misbehaver import Behaviour, Exchange, Misbehaver, answer, close, hang, key_event, wait
from .test_names import Names

INTERVAL = 0.05
SOON = 1.0

LEADER = answer({"id": "1", "name": "m", "peerURLs": [], "clientURLs": []}, index=None, cluster=None)
ELECTION = answer({"message": "During election"}, status=503, index=None, cluster=None)
VALUE = answer(key_event("/k"))
PROBES = ("/v2/members/leader", "/health")


class Member:
    """A server that answers reads, and probes as it is told to.

    Args:
        says: What it says to probes.
    """

    def __init__(self, says: Behaviour = LEADER) -> None:
        self.says = says
        self.answers = VALUE
        self.probes = 0

    async def __call__(self, exchange: Exchange) -> bool | None:
        if exchange.seen.target in PROBES:
            self.probes += 1
            return await self.says(exchange)
        return await self.answers(exchange)


@asynccontextmanager
async def clients_of(*members: Member, **options: Any) -> AsyncIterator[Client]:
    servers = [Misbehaver(each) for each in members]
    for server in servers:
        await server.__aenter__()
    try:
        async with Client(
            [server.endpoint for server in servers],
            selection=EndpointSelection.PRIORITIZE_LEADER,
            probe_interval=INTERVAL,
            **{"header_timeout": 0.1, **options},
        ) as client:
            yield client
    finally:
        for server in servers:
            await server.__aexit__(None, None, None)


async def call_for(client: Client, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await client.keys.get("/k")
        await asyncio.sleep(INTERVAL / 8)


@pytest.mark.slow
async def test_one_probe_an_interval_while_calls_are_made() -> None:
    first, second = Member(), Member()
    async with clients_of(first, second) as client:
        await asyncio.sleep(2 * INTERVAL)
        assert first.probes == 0
        await call_for(client, 4.5 * INTERVAL)
        assert 2 <= first.probes <= 4
        await asyncio.sleep(2 * INTERVAL)
        before = first.probes
        await asyncio.sleep(3 * INTERVAL)
        assert first.probes == before
        await client.keys.get("/k")
        await asyncio.sleep(3 * INTERVAL)
        assert first.probes == before + 1
        assert second.probes == 0


async def test_no_probe_where_there_is_no_other_to_go_to() -> None:
    only = Member(ELECTION)
    async with clients_of(only) as client:
        await call_for(client, 3 * INTERVAL)
    assert only.probes == 0


@pytest.mark.parametrize("says", [ELECTION, hang], ids=["ill", "silent"])
async def test_calls_leave_one_that_is_ill_or_silent(says: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    first, second = Member(says), Member()
    async with clients_of(first, second) as client:
        ill, well = client.endpoints
        began = time.monotonic()
        while client.endpoints != (well, ill):
            await call_for(client, INTERVAL / 2)
            assert time.monotonic() < began + INTERVAL + 0.2 + SOON
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith(f"calls leave {ill}: ")
    assert sum("calls leave" in line for line in lines) == 1  # one that was under way may be answered there afterwards


async def test_calls_stay_at_one_that_is_ill_while_no_other_is_healthy() -> None:
    first, second = Member(ELECTION), Member(ELECTION)
    async with clients_of(first, second) as client:
        before = client.endpoints
        await call_for(client, 4 * INTERVAL)
        assert client.endpoints == before
        assert first.probes > 1


async def test_what_is_probed_for_watches_is_not_probed_twice() -> None:
    first, second = Member(), Member()
    first.answers = waits_or(VALUE)
    async with clients_of(first, second) as client, client.keys.watch("/k"):
        await call_for(client, 4.5 * INTERVAL)
        assert first.probes <= 4


def waits_or(otherwise: Behaviour) -> Behaviour:
    async def behave(exchange: Exchange) -> bool | None:
        return await (wait() if exchange.seen.query.get("wait") else otherwise)(exchange)

    return behave


async def test_where_the_pin_has_moved_the_next_probe_follows() -> None:
    first, second = Member(), Member()
    async with clients_of(first, second) as client:
        await client.keys.get("/k")
        client._pool.failed(client.endpoints[0])
        await call_for(client, 2 * INTERVAL)
        assert first.probes == 0
        assert second.probes > 0


async def test_closing_ends_a_probe_that_is_under_way() -> None:
    first, second = Member(hang), Member()
    async with clients_of(first, second, header_timeout=30) as client:
        await client.keys.get("/k")
        while not first.probes:
            await asyncio.sleep(0.005)
        began = time.monotonic()
        await client.close()
        assert time.monotonic() - began < SOON


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
@pytest.mark.parametrize("says", [ELECTION, hang], ids=["ill", "silent"])
async def test_calls_leave_one_address_of_a_name_for_another(says: Behaviour) -> None:
    first, second = Member(says), Member()
    async with Misbehaver(first, host="127.0.0.2") as one:
        port = one.endpoint.rpartition(":")[2]
        async with (
            Misbehaver(second, host="127.0.0.3", port=int(port)) as other,
            Client(f"http://etcd.test:{port}", probe_interval=INTERVAL, header_timeout=0.1) as client,
        ):
            names = Names("127.0.0.2", "127.0.0.3")
            client._transport._routes._resolver._make = lambda: names
            await client.keys.get("/k")
            assert (len(one.seen), len(other.seen)) == (1, 0)
            began = time.monotonic()
            while len(other.seen) - second.probes == 0:
                await call_for(client, INTERVAL / 2)
                assert time.monotonic() < began + INTERVAL + 0.2 + SOON
            before = len(one.seen) - first.probes
            await call_for(client, 2 * INTERVAL)
            assert len(one.seen) - first.probes == before
            assert second.probes > 0
            assert {each.headers["host"] for each in other.seen} == {f"etcd.test:{port}"}


# --- readiness --------------------------------------------------------------------------------------------------------


async def test_ready_at_once_where_there_is_a_leader() -> None:
    first = Member()
    async with clients_of(first) as client:
        await asyncio.wait_for(client.wait_ready(), SOON)
    assert first.probes == 1


async def test_ready_at_the_first_that_has_a_leader_which_is_pinned() -> None:
    first, second = Member(ELECTION), Member()
    async with clients_of(first, second) as client:
        ill, well = client.endpoints
        await asyncio.wait_for(client.wait_ready(), SOON)
        assert client.endpoints == (well, ill)


async def test_ready_as_soon_as_one_has_a_leader() -> None:
    first = Member(ELECTION)
    async with clients_of(first) as client:
        waiting = asyncio.ensure_future(client.wait_ready())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert 2 <= first.probes <= 6
        first.says = LEADER
        await asyncio.wait_for(waiting, 1.5)


async def test_ready_where_v2_is_emulated_and_the_leader_can_not_be_asked_for() -> None:
    async def says(exchange: Exchange) -> bool | None:
        healthy = answer({"health": "true"}, index=None, cluster=None)
        return await (healthy if exchange.seen.target == "/health" else close)(exchange)

    async with clients_of(Member(says)) as client:
        await asyncio.wait_for(client.wait_ready(), SOON)


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_waiting_for_readiness_can_be_ended(how: str) -> None:
    async with clients_of(Member(ELECTION)) as client:
        waiting = asyncio.ensure_future(client.wait_ready())
        await asyncio.sleep(0.1)
        errors: dict[str, type[BaseException]] = {"cancel": asyncio.CancelledError, "close": ClientClosedError}
        if how == "cancel":
            waiting.cancel()
        else:
            await client.close()
        with pytest.raises(errors[how]):
            await asyncio.wait_for(waiting, 2)


async def test_what_will_never_be_ready_is_told() -> None:
    html = answer("<html>Welcome to nginx!</html>", index=None, cluster=None)
    async with clients_of(Member(html)) as client:
        with pytest.raises(InvalidResponseError):
            await asyncio.wait_for(client.wait_ready(), SOON)

    async def without_v2(exchange: Exchange) -> bool | None:
        version = answer({"etcdserver": "3.5.0", "etcdcluster": "3.5.0"}, index=None, cluster=None)
        gone = answer("404 page not found\n", status=404, index=None, cluster=None)
        return await (version if exchange.seen.target == "/version" else gone)(exchange)

    member = Member(without_v2)
    member.answers = without_v2
    async with clients_of(member) as client:
        with pytest.raises(V2DisabledError):
            await asyncio.wait_for(client.wait_ready(), SOON)
