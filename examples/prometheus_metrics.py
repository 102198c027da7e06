"""Show Prometheus what a client does and what happens to it, through an outage.

python examples/prometheus_metrics.py    # needs prometheus-client
"""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import Iterable
from contextlib import suppress

from aioetcd2 import Client, ClusterError
from aioetcd2.events import EndpointFailed, EndpointRecovered, EndpointsChanged, Event
from aioetcd2.testing import EtcdServer

try:
    from prometheus_client import CollectorRegistry, Counter, Metric, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError:
    raise SystemExit("this example needs prometheus-client:  pip install prometheus-client") from None

COUNTERS = {
    "calls": "Calls of the client's APIs",
    "retries": "Tries at a further endpoint after one has failed",
    "failovers": "Moves of the pin because an endpoint had failed",
    "bytes_sent": "Bytes of the bodies of requests",
    "bytes_received": "Bytes of the bodies of answers and streams",
    "events": "Events that watches have given",
    "resyncs": "Watches that went on behind lost events",
}
GAUGES = {
    "watches_open": "Watches that are open",
    "connections_open": "Connections that are open",
}
SHOWN = ("aioetcd2_told_total", "aioetcd2_endpoint_fails", "aioetcd2_calls_total", "aioetcd2_watches_open")


class ClientMetrics(Collector):
    """A client whose counters are read at each scrape, and whose events are counted. Make it in the event loop.

    Args:
        endpoints: The endpoints of the client.
        registry: Where its metrics go.

    Attributes:
        client: The client.
    """

    def __init__(self, endpoints: Iterable[str], registry: CollectorRegistry) -> None:
        self.client = Client(endpoints, on_event=self._on_event)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._failing: set[str] = set()
        self._told = Counter("aioetcd2_told", "Events told to on_event", ["event", "endpoint"], registry=registry)
        registry.register(self)

    def _on_event(self, event: Event) -> None:
        # one that a redirect led to is not ours, and there is no end to those
        endpoint = event.endpoint if event.endpoint in ("", *self.client.endpoints) else "other"
        self._told.labels(type(event).__name__, endpoint).inc()
        if isinstance(event, EndpointFailed):
            self._failing.add(endpoint)
        elif isinstance(event, EndpointRecovered):
            self._failing.discard(endpoint)
        elif isinstance(event, EndpointsChanged):
            self._failing.intersection_update(event.endpoints)

    def collect(self) -> Iterable[Metric]:
        """What there is to show; called for each scrape, in a thread of its own."""
        if threading.get_ident() == self._thread:
            return self._now()
        return asyncio.run_coroutine_threadsafe(self._in_the_loop(), self._loop).result(timeout=5)

    async def _in_the_loop(self) -> list[Metric]:
        return self._now()

    def _now(self) -> list[Metric]:
        """A client belongs to the thread of its event loop, and so do its counters."""
        now = self.client.counters
        fails = GaugeMetricFamily("aioetcd2_endpoint_fails", "1 until it answers again", labels=["endpoint"])
        for endpoint in self.client.endpoints:
            fails.add_metric([endpoint], endpoint in self._failing)
        counters = [CounterMetricFamily(f"aioetcd2_{name}", COUNTERS[name], getattr(now, name)) for name in COUNTERS]
        gauges = [GaugeMetricFamily(f"aioetcd2_{name}", GAUGES[name], getattr(now, name)) for name in GAUGES]
        return [*counters, *gauges, fails]


async def show(what: str, url: str) -> None:
    """What Prometheus would get now."""
    with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
        text: str = answer.read().decode()
    print(what)
    for line in text.splitlines():
        if line.startswith(SHOWN):
            print(f"  {line}")


async def main() -> None:
    registry = CollectorRegistry()
    async with EtcdServer() as etcd:
        metrics = ClientMetrics(etcd.endpoints, registry)
        web, thread = start_http_server(0, "127.0.0.1", registry)
        url = f"http://127.0.0.1:{web.server_port}/metrics"
        async with metrics.client as client, client.keys.watch("/services", recursive=True):
            await client.keys.set("/services/web", "10.0.0.1:80")
            await show("All is well", url)
            await etcd.kill()
            with suppress(ClusterError):
                await client.keys.get("/services/web")
            await show("The endpoint is dead", url)
            await etcd.start()
            await client.wait_ready()
            await show("It is back", url)
        await asyncio.to_thread(web.shutdown)
        web.server_close()
        thread.join()


if __name__ == "__main__":
    asyncio.run(main())
