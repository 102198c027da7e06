"""What `docs/telemetry.md` shows: Prometheus and OpenTelemetry see what a client does and what happens to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Protocol

import pytest
from async_timeout import timeout
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aioetcd2 import Client, ClusterError
from aioetcd2.events import Counters
from aioetcd2.testing import EtcdServer
from examples import opentelemetry_metrics, prometheus_metrics

from .misbehaver import Misbehaver, answer, key_event

FALLING = {"watches_open", "connections_open", "endpoint_fails"}
"""What goes up and down."""


class Seen(dict[tuple[str, ...], float]):
    """What the other side has got: the names of metrics, each followed by its labels, and their values.

    Attributes:
        rising: The names of those that are said to only rise.
    """

    def __init__(self) -> None:
        self.rising: set[str] = set()

    @property
    def names(self) -> set[str]:
        return {name for name, *_ in self}


class Feed(Protocol):
    def client(self, endpoints: Iterable[str]) -> Client: ...

    def seen(self) -> Seen: ...


class Prometheus:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def client(self, endpoints: Iterable[str]) -> Client:
        return prometheus_metrics.ClientMetrics(endpoints, self.registry).client

    def seen(self) -> Seen:
        seen = Seen()
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                name = sample.name.removeprefix("aioetcd2_")
                if not name.endswith("_created"):
                    labels = (sample.labels[label] for label in ("event", "endpoint") if label in sample.labels)
                    seen[(name.removesuffix("_total"), *labels)] = sample.value
                if name.endswith("_total"):
                    seen.rising.add(name.removesuffix("_total"))
        return seen


class OpenTelemetry:
    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def client(self, endpoints: Iterable[str]) -> Client:
        return opentelemetry_metrics.ClientMetrics(endpoints, self.provider.get_meter("aioetcd2")).client

    def seen(self) -> Seen:
        seen = Seen()
        data = self.reader.get_metrics_data()
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            name = metric.name.removeprefix("aioetcd2.")
            for point in metric.data.data_points:
                attributes = dict(point.attributes or {})
                labels = (str(attributes[label]) for label in ("event", "endpoint") if label in attributes)
                value = getattr(point, "value")  # noqa: B009 - a histogram has none
                seen[(name, *labels)] = value
            if isinstance(metric.data, Sum) and metric.data.is_monotonic:
                seen.rising.add(name)
        return seen


@pytest.fixture(params=[Prometheus, OpenTelemetry])
def feed(request: pytest.FixtureRequest) -> Feed:
    made: Feed = request.param()
    return made


async def scrape(feed: Feed) -> Seen:
    return await asyncio.to_thread(feed.seen)


async def test_every_counter_is_shown_as_it_is(feed: Feed, server: EtcdServer, prefix: str) -> None:
    async with feed.client(server.endpoints) as client, client.keys.watch(prefix) as watcher:
        await client.keys.set(prefix, "v")
        await watcher.next()
        while client.counters.calls < 3:  # the watch counts its keys, too
            await client.keys.get(prefix)
        seen = await scrape(feed)
        counters = client.counters
        fields = set(Counters.__struct_fields__)
        assert seen.names - {"told"} == fields | {"endpoint_fails"}
        assert {name: seen[name,] for name in fields} == {name: getattr(counters, name) for name in fields}
        assert seen["events",] == seen["watches_open",] == 1
        assert seen["endpoint_fails", server.endpoint] == 0
        assert seen.rising - {"told"} == fields - FALLING


async def test_an_outage_is_seen_as_it_begins_and_as_it_ends(feed: Feed) -> None:
    async with EtcdServer() as server, feed.client(server.endpoints) as client, client.keys.watch("/k") as watcher:
        waiting = asyncio.ensure_future(watcher.next())
        await server.kill()
        with pytest.raises(ClusterError):
            await client.keys.get("/k")
        async with timeout(30):
            while ("told", "WatchInterrupted", "") not in (during := await scrape(feed)):
                await asyncio.sleep(0.05)
        assert during["endpoint_fails", server.endpoint] == 1
        assert during["told", "EndpointFailed", server.endpoint] == 1
        await server.start()
        async with timeout(30):
            await client.wait_ready()
            while ("told", "WatchResumed", "") not in (after := await scrape(feed)):
                await asyncio.sleep(0.05)
            await client.keys.set("/k", "v")
            await waiting
        assert after["endpoint_fails", server.endpoint] == 0
        assert after["told", "EndpointRecovered", server.endpoint] == 1
        assert after["told", "WatchInterrupted", ""] == 1
        assert "told" in after.rising


async def test_a_failover_is_seen(feed: Feed, server: EtcdServer) -> None:
    dead = "http://127.0.0.1:1"
    async with feed.client([dead, server.endpoint]) as client:
        client._pool.pin(dead)
        before = await scrape(feed)
        await client.keys.get("/")
        seen = await scrape(feed)
        assert before["retries",] == before["failovers",] == 0
        assert seen["retries",] == seen["failovers",] == 1
        assert seen["told", "EndpointFailed", dead] == 1
        assert seen["told", "Pinned", server.endpoint] >= 1


async def test_an_endpoint_that_has_left_is_not_shown_and_does_not_fail_when_it_comes_back(feed: Feed) -> None:
    async with feed.client(["http://127.0.0.1:1"]) as client:
        with pytest.raises(ClusterError):
            await client.keys.get("/")
        assert (await scrape(feed))["endpoint_fails", "http://127.0.0.1:1"] == 1
        client.set_endpoints(["http://127.0.0.1:2"])
        seen = await scrape(feed)
        assert ("endpoint_fails", "http://127.0.0.1:1") not in seen
        assert seen["endpoint_fails", "http://127.0.0.1:2"] == 0
        client.set_endpoints(["http://127.0.0.1:1"])
        assert (await scrape(feed))["endpoint_fails", "http://127.0.0.1:1"] == 0


async def test_labels_have_an_end(feed: Feed) -> None:
    """Neither keys nor the places to which a server sends us become labels."""
    places = [f"http://127.0.0.1:{port}" for port in range(1, 6)]
    redirects = [answer({}, status=307, headers={"Location": f"{place}/v2/keys/k"}) for place in places]
    async with Misbehaver(*redirects, answer(key_event())) as server, feed.client([server.endpoint]) as client:
        for number in range(5):
            with pytest.raises(ClusterError):
                await client.keys.get(f"/key-{number}")
        seen, endpoint = await scrape(feed), server.endpoint
    labels = {label for _, *labels in seen for label in labels}
    assert labels <= {"EndpointFailed", "EndpointRecovered", "other", endpoint}
    assert "other" in labels


async def test_a_scrape_in_the_event_loop_does_not_wait_for_itself(feed: Feed, server: EtcdServer) -> None:
    async with feed.client(server.endpoints) as client:
        await client.keys.get("/")
        begun = asyncio.get_running_loop().time()
        assert feed.seen()["calls",] == 1
        assert asyncio.get_running_loop().time() - begun < 1


@pytest.mark.slow
async def test_scrapes_beside_a_busy_loop(feed: Feed, server: EtcdServer, prefix: str) -> None:
    """Read in the thread of the scrape, the counters raise while connections come and go: some thirty times here."""
    scrapes: list[Seen] = []

    def keep_scraping() -> None:
        while not done.is_set():
            scrapes.append(feed.seen())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        async with feed.client(server.endpoints) as client:
            done = asyncio.Event()
            scraping = asyncio.ensure_future(asyncio.to_thread(keep_scraping))
            for _ in range(20):
                watchers = [client.keys.watch(f"{prefix}/{number}") for number in range(50)]
                await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
                await asyncio.gather(*(watcher.aclose() for watcher in watchers))
            done.set()
            await scraping
    finally:
        sys.setswitchinterval(interval)
    assert len(scrapes) > 10
    assert all(("connections_open",) in seen for seen in scrapes)
