"""What a client tells a program of what happens to it: events, and counters."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from aioetcd2 import Client, ClusterError, ConnectionLostError, EndpointSelection, events
from aioetcd2.events import (
    ClusterLost,
    Counters,
    EndpointFailed,
    EndpointRecovered,
    EndpointsChanged,
    Event,
    Pinned,
    ProbeFailed,
    Resynced,
    WatchInterrupted,
    WatchResumed,
    WriteRepeated,
)
from aioetcd2.testing import EtcdServer

from .misbehaver import Misbehaver, answer, close, hang, key_event

IN_ORDER = EndpointSelection.PRIORITIZE_LEADER
DEAD = "http://127.0.0.1:1"


class Told(list[Event]):
    """The events of a client, in their order."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self]

    def one(self, kind: type[Event]) -> Any:
        (event,) = (each for each in self if type(each) is kind)
        return event


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_failure_a_failover_and_a_recovery(told: Told) -> None:
    async with Misbehaver(close, close, answer(key_event())) as first, Misbehaver(answer(key_event())) as second:
        endpoints = [first.endpoint, second.endpoint]
        before = time.monotonic()
        async with Client(endpoints, selection=IN_ORDER, on_event=told) as client:
            await client.keys.get("/k")
            assert told.kinds == ["Pinned", "EndpointFailed"]
            assert told.one(Pinned).endpoint == second.endpoint
            failed = told.one(EndpointFailed)
            assert failed.endpoint == first.endpoint
            assert isinstance(failed.error, ConnectionLostError)
            assert before <= failed.at <= time.monotonic()
            client._pool.pin(first.endpoint)
            await client.keys.get("/k")
            assert told.kinds[2:] == ["Pinned", "EndpointRecovered"]
            assert told.one(EndpointRecovered).endpoint == first.endpoint
            assert told.one(EndpointRecovered) is told[3]
            assert client.counters.calls == 2
            assert client.counters.retries == 1
            assert client.counters.failovers == 1


async def test_an_endpoint_that_goes_on_failing_is_told_once(told: Told) -> None:
    async with Client(DEAD, on_event=told) as client:
        for _ in range(5):
            with pytest.raises(ClusterError):
                await client.keys.get("/k")
    assert told.kinds == ["EndpointFailed"]


async def test_what_goes_well_is_not_told(told: Told, server: EtcdServer, prefix: str) -> None:
    async with Client(server.endpoint, on_event=told) as client, client.keys.watch(prefix) as watcher:
        await client.keys.set(prefix, "v")
        await watcher.next()
    assert told == []


async def test_other_endpoints_and_another_cluster(told: Told) -> None:
    async with (
        Misbehaver(answer(key_event(), cluster="a1")) as server,
        Client(server.endpoint, on_event=told) as client,
    ):
        await client.keys.get("/k")
        client.set_endpoints(["http://a:1", "http://b:1"])
        assert told.kinds == ["ClusterLost", "EndpointsChanged", "Pinned"]
        assert told.one(ClusterLost).cluster_id == "a1"
        assert told.one(EndpointsChanged).endpoints == ("http://a:1", "http://b:1")
        client.forget_cluster()
        assert told[-1] == ClusterLost("", at=told[-1].at)


async def test_a_write_that_is_repeated(told: Told) -> None:
    async with Misbehaver(close) as first, Misbehaver(answer(key_event(action="set"))) as second:
        endpoints = [first.endpoint, second.endpoint]
        async with Client(endpoints, selection=IN_ORDER, repeat_writes=True, on_event=told) as client:
            await client.keys.set("/k", "s3cret")
        assert told.one(WriteRepeated).request == "PUT /v2/keys/k"
        assert told.one(WriteRepeated).endpoint == first.endpoint


async def test_a_write_that_was_never_sent_is_not_repeated(told: Told) -> None:
    async with Misbehaver(answer(key_event(action="set"))) as second:
        async with Client([DEAD, second.endpoint], selection=IN_ORDER, repeat_writes=True, on_event=told) as client:
            await client.keys.set("/k", "v")
    assert "WriteRepeated" not in told.kinds


async def test_an_outage_of_the_watches(told: Told, lines: Any) -> None:
    async with EtcdServer() as server, Client(server.endpoint, on_event=told) as client:
        watchers = [client.keys.watch(f"/w/{each}") for each in range(50)]
        for watcher in watchers:
            await watcher.__aenter__()
        waiting = [asyncio.ensure_future(watcher.next()) for watcher in watchers]
        await server.kill()
        await asyncio.sleep(5)
        await server.start()
        for each in range(50):
            await client.keys.set(f"/w/{each}", "v")
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
        while WatchResumed not in map(type, told):
            await asyncio.sleep(0.05)
        assert isinstance(told.one(WatchInterrupted).error, ClusterError)
        assert told.one(WatchInterrupted).key.startswith("/w/")
        assert told.one(WatchResumed).key.startswith("/w/")
        assert told.kinds.count("EndpointFailed") == told.kinds.count("EndpointRecovered") == 1
        assert client.counters.watches_open == 50
        assert client.counters.events == 50
        for watcher in watchers:
            await watcher.aclose()
        assert client.counters.watches_open == 0
    assert len(lines()) <= 5, lines()


async def test_a_probe_that_fails(told: Told) -> None:
    async def says(exchange: Any) -> bool | None:
        is_probe = exchange.seen.target in ("/v2/members/leader", "/health")
        return await (hang if is_probe else answer(key_event()))(exchange)

    async def well(exchange: Any) -> bool | None:
        is_probe = exchange.seen.target in ("/v2/members/leader", "/health")
        return await (leader if is_probe else answer(key_event()))(exchange)

    leader = answer({"id": "1", "name": "m", "peerURLs": [], "clientURLs": []}, index=None, cluster=None)
    async with Misbehaver(says) as first, Misbehaver(answer(key_event()), reads=well) as second:
        endpoints = [first.endpoint, second.endpoint]
        async with Client(
            endpoints, selection=IN_ORDER, probe_interval=0.05, header_timeout=0.1, on_event=told
        ) as client:
            while "ProbeFailed" not in told.kinds:
                await client.keys.get("/k")
                await asyncio.sleep(0.01)
        assert told.one(ProbeFailed).endpoint == first.endpoint
        assert told.one(ProbeFailed).error.endpoint == first.endpoint
        assert told.kinds[:3] == ["ProbeFailed", "EndpointFailed", "Pinned"], "an answer may be on its way meanwhile"


async def test_lost_events_with_resync(told: Told, server: EtcdServer, prefix: str) -> None:
    async with Client(server.endpoint, on_event=told) as client:
        first = (await client.keys.set(f"{prefix}/a", "v")).index
        await asyncio.gather(*(client.keys.set(f"{prefix}/{each % 10}", "v") for each in range(1100)))
        async with client.keys.watch(prefix, recursive=True, after_index=first, resync=True) as watcher:
            event = await asyncio.wait_for(watcher.next(), 20)
        assert event.action == "resync"
        assert told.one(Resynced).index == event.index
        assert told.one(Resynced).key == prefix
        assert client.counters.resyncs == 1


async def test_what_on_event_raises_is_logged_once_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def broken(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("no good")

    async with Misbehaver(close, close, answer(key_event())) as first, Misbehaver(answer(key_event())) as second:
        async with Client([first.endpoint, second.endpoint], selection=IN_ORDER, on_event=broken) as client:
            await client.keys.get("/k")
            client.set_endpoints(first.endpoint)
            await client.keys.get("/k")
    assert len(seen) > 2
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert "on_event raised" in errors[0].getMessage()


async def test_a_callback_may_change_the_endpoints() -> None:
    async with Misbehaver(answer(key_event())) as server:

        def move(event: Event) -> None:
            if isinstance(event, EndpointFailed):
                client.set_endpoints(server.endpoint)

        async with Client(DEAD, on_event=move) as client:
            await client.keys.get("/k")


async def test_counters_of_bytes_and_connections(server: EtcdServer, prefix: str) -> None:
    async with Client(server.endpoint) as client:
        assert client.counters == Counters()
        await client.keys.set(prefix, "x" * 10_000)
        after = client.counters
        assert 10_000 < after.bytes_sent < 10_100
        assert 10_000 < after.bytes_received < 10_300
        assert after.connections_open == 1
        async with client.keys.watch(prefix) as watcher:
            assert client.counters.watches_open == 1
            await client.keys.set(prefix, "y" * 5_000)
            await watcher.next()
            assert client.counters.connections_open >= 2  # that of the watch, and one for calls
            assert client.counters.bytes_received - after.bytes_received > 20_000  # answer and event, before and after
        await asyncio.sleep(0)
    assert client.counters.connections_open == 0
    assert client.counters.events == 1


@pytest.mark.parametrize("name", [name for name in events.__all__ if name not in ("Event", "Counters")])
def test_events_are_values(name: str) -> None:
    kind = getattr(events, name)
    about = ["x" for _ in kind.__struct_fields__[2:]]
    event = kind(*about, endpoint="http://a:1", at=1.5)
    assert (event.endpoint, event.at) == ("http://a:1", 1.5)
    assert event == kind(*about, endpoint="http://a:1", at=1.5)
    with pytest.raises(AttributeError):
        event.at = 2.0
    assert kind(*about).endpoint == ""
