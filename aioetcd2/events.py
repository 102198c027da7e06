"""What happens to a client, as values: `Client(on_event=...)` is called with them."""

from __future__ import annotations

from msgspec import Struct

from .errors import EndpointError, EtcdError

__all__ = [
    "ClusterLost",
    "Counters",
    "EndpointFailed",
    "EndpointRecovered",
    "EndpointsChanged",
    "Event",
    "Pinned",
    "ProbeFailed",
    "Resynced",
    "WatchInterrupted",
    "WatchResumed",
    "WriteRepeated",
]


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to a client.

    Attributes:
        endpoint: Which endpoint it is about; empty where none is meant.
        at: When, in seconds of `time.monotonic()`.
    """

    endpoint: str = ""
    at: float = 0.0


class EndpointFailed(Event, frozen=True):
    """An endpoint that answered before did not answer a request as it should; further tries are not told.

    Attributes:
        error: How it failed.
    """

    error: EndpointError


class EndpointRecovered(Event, frozen=True):
    """An endpoint that failed answers again."""


class Pinned(Event, frozen=True):
    """Calls begin at another endpoint from now on: this one."""


class EndpointsChanged(Event, frozen=True):
    """The client has other endpoints: by `sync()`, by `set_endpoints()`, or found anew.

    Attributes:
        endpoints: All of them, in the order in which they were found.
    """

    endpoints: tuple[str, ...]


class WriteRepeated(Event, frozen=True):
    """A write that may have been applied goes on to the next endpoint, as `repeat_writes=True` allows.

    Attributes:
        request: The request, as errors show it; `endpoint` is where its fate is unknown.
    """

    request: str


class ClusterLost(Event, frozen=True):
    """The life of the cluster's store has ended, or the cluster was forgotten: what was seen of it counts no more.

    Attributes:
        cluster_id: The cluster, hexadecimal; empty where it never answered.
    """

    cluster_id: str


class WatchInterrupted(Event, frozen=True):
    """An outage of the watches begins; told once for all of them.

    Attributes:
        key: The key of the watch that has found out.
        error: What it has met.
    """

    key: str
    error: EtcdError


class WatchResumed(Event, frozen=True):
    """An outage of the watches is over.

    Attributes:
        key: The key of the watch that went on first.
    """

    key: str


class Resynced(Event, frozen=True):
    """A watch lost events, and goes on behind them.

    Attributes:
        key: The key of the watch.
        index: From where it goes on.
    """

    key: str
    index: int


class ProbeFailed(Event, frozen=True):
    """An endpoint did not answer a probe, or is not healthy while another one is: watches and calls leave it.

    Attributes:
        error: How it failed.
    """

    error: EndpointError


class Counters(Struct, frozen=True):
    """What a client has done so far, by `client.counters`: a snapshot.

    Attributes:
        calls: Calls of this client's APIs, and what its watches have asked beside their streams.
        retries: Tries of calls and registrations at a further endpoint, after one has failed.
        failovers: How often the pin moved to another endpoint because one had failed.
        bytes_sent: Bytes of the bodies of requests.
        bytes_received: Bytes of the bodies of answers and streams, without headers and framing.
        events: Events that watches have given.
        resyncs: How often a watch with `resync=True` went on behind lost events.
        watches_open: Watches that are open now.
        connections_open: Connections that are open now, idle ones included.
    """

    calls: int = 0
    retries: int = 0
    failovers: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    events: int = 0
    resyncs: int = 0
    watches_open: int = 0
    connections_open: int = 0
