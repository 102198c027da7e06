"""Show OpenTelemetry what a client does and what happens to it, through an outage.

python examples/opentelemetry_metrics.py    # needs opentelemetry-sdk
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from aioetcd2 import Client, ClusterError
from aioetcd2.events import EndpointFailed, EndpointRecovered, EndpointsChanged, Event
from aioetcd2.testing import EtcdServer

try:
    from opentelemetry import trace
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricsData, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
except ModuleNotFoundError:
    raise SystemExit("this example needs opentelemetry-sdk:  pip install opentelemetry-sdk") from None

COUNTERS = {
    "calls": "{call}",
    "retries": "{try}",
    "failovers": "{failover}",
    "bytes_sent": "By",
    "bytes_received": "By",
    "events": "{event}",
    "resyncs": "{resync}",
}
GAUGES = {
    "watches_open": "{watch}",
    "connections_open": "{connection}",
}
SHOWN = ("aioetcd2.told", "aioetcd2.endpoint_fails", "aioetcd2.calls", "aioetcd2.watches_open")


class ClientMetrics:
    """A client whose counters are read for each export, and whose events are counted. Make it in the event loop.

    Args:
        endpoints: The endpoints of the client.
        meter: What makes its instruments.

    Attributes:
        client: The client.
    """

    def __init__(self, endpoints: Iterable[str], meter: Meter) -> None:
        self.client = Client(endpoints, on_event=self._on_event)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._failing: set[str] = set()
        self._told = meter.create_counter("aioetcd2.told", "{event}", "Events told to on_event")
        for name, unit in COUNTERS.items():
            meter.create_observable_counter(f"aioetcd2.{name}", [self._in_the_loop(self._number(name))], unit)
        for name, unit in GAUGES.items():
            meter.create_observable_up_down_counter(f"aioetcd2.{name}", [self._in_the_loop(self._number(name))], unit)
        meter.create_observable_gauge("aioetcd2.endpoint_fails", [self._in_the_loop(self._fails)], "1")

    def _on_event(self, event: Event) -> None:
        kind = type(event).__name__
        # one that a redirect led to is not ours, and there is no end to those
        endpoint = event.endpoint if event.endpoint in ("", *self.client.endpoints) else "other"
        self._told.add(1, {"event": kind, "endpoint": endpoint})
        span = trace.get_current_span()  # that of whoever has called, if he has one
        if span.is_recording():
            span.add_event(f"aioetcd2.{kind}", {"endpoint": event.endpoint})
        if isinstance(event, EndpointFailed):
            self._failing.add(endpoint)
        elif isinstance(event, EndpointRecovered):
            self._failing.discard(endpoint)
        elif isinstance(event, EndpointsChanged):
            self._failing.intersection_update(event.endpoints)

    def _in_the_loop(self, read: Callable[[], list[Observation]]) -> Callable[[CallbackOptions], list[Observation]]:
        """A callback for an exporter's thread: a client belongs to that of its event loop, and so do its counters."""

        async def now() -> list[Observation]:
            return read()

        def callback(options: CallbackOptions) -> list[Observation]:
            if threading.get_ident() == self._thread:
                return read()
            return asyncio.run_coroutine_threadsafe(now(), self._loop).result(timeout=5)

        return callback

    def _number(self, name: str) -> Callable[[], list[Observation]]:
        return lambda: [Observation(getattr(self.client.counters, name))]

    def _fails(self) -> list[Observation]:
        return [Observation(int(each in self._failing), {"endpoint": each}) for each in self.client.endpoints]


def lines(data: MetricsData) -> str:
    """What is exported, for people."""
    return "".join(
        f"  {metric.name} {dict(point.attributes or {})} {getattr(point, 'value', '')}\n"
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name in SHOWN
        for point in metric.data.data_points
    )


def line(span: ReadableSpan) -> str:
    return f"  span {span.name!r} has {[event.name for event in span.events]}\n"


async def main() -> None:
    # with opentelemetry-exporter-otlp: OTLPMetricExporter() and OTLPSpanExporter() instead of those of the console
    reader = PeriodicExportingMetricReader(ConsoleMetricExporter(formatter=lines), export_interval_millis=60_000)
    meters = MeterProvider([reader])
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    tracer = traces.get_tracer("example")
    async with EtcdServer() as etcd:
        metrics = ClientMetrics(etcd.endpoints, meters.get_meter("aioetcd2"))
        async with metrics.client as client, client.keys.watch("/services", recursive=True):
            await client.keys.set("/services/web", "10.0.0.1:80")
            print("All is well")
            await asyncio.to_thread(meters.force_flush)

            await etcd.kill()
            print("The endpoint is dead")
            with tracer.start_as_current_span("look for web"), suppress(ClusterError):
                await client.keys.get("/services/web")
            await asyncio.to_thread(meters.force_flush)

            await etcd.start()
            await client.wait_ready()
            print("It is back")
            await asyncio.to_thread(meters.shutdown)  # with a last export, which asks the event loop once more
    traces.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
