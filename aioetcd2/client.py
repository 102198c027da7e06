"""The client: makes the parts and closes them, and keeps the endpoints in step with the members of the cluster."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, NoReturn, TypedDict

from async_timeout import timeout

from ._net.credentials import BasicCredentials
from ._net.endpoints import EndpointPool, parse_endpoint, parse_endpoints
from ._net.failover import Failover
from ._net.options import (
    check_callable,
    check_connector,
    check_context,
    check_lengths,
    check_number,
    check_switches,
    check_traces,
)
from ._net.raw import raw
from ._net.redirects import at_most_ten
from ._net.rediscovery import Rediscovery
from ._net.reporter import Reporter
from ._net.request import build, check_seconds
from ._net.transport import BaseConnector, TraceConfig, Transport
from ._v2 import responses
from ._v2.identity import Identity
from ._v2.keys import KeysEngine, surroundings_of
from ._watching.calls import Calls
from ._watching.outage import pause_after
from .auth import AuthAPI
from .discovery import Discoverer, SRVDiscoverer
from .errors import (
    ClusterError,
    ConnectionLostError,
    DiscoveryError,
    EtcdError,
    InvalidEndpointError,
    InvalidResponseError,
    NoEndpointsError,
)
from .events import Counters, Event
from .keys import KeysAPI
from .members import MembersAPI
from .models import Health, HTTPResult, Version
from .stats import StatsAPI

if sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:
    from typing_extensions import Self, Unpack

__all__ = ["Client", "ClientOptions", "EndpointSelection"]

SEARCH_TIMEOUT = 5.0
"""Seconds that a search for endpoints may take where there is no header timeout."""


class EndpointSelection(Enum):
    """Which endpoint a client prefers.

    Attributes:
        RANDOM: Their order is shuffled once, and whenever the set changes; the first that answers stays pinned.
        PRIORITIZE_LEADER: In the order given; every `sync()` pins the leader, which saves writes a hop.
    """

    RANDOM = "random"
    PRIORITIZE_LEADER = "prioritize_leader"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"selection is {' or '.join(map(str, cls))}, not {value!r}")


class ClientOptions(TypedDict, total=False):
    """The keyword options of `Client`, for `Client.from_srv()`; each means what it means there."""

    username: str | None
    password: str | None
    header_timeout: float | None
    selection: EndpointSelection
    check_redirect: Callable[[int], None] | None
    auto_sync: float | None
    quorum: bool
    probe_interval: float
    repeat_writes: bool
    ssl: ssl_module.SSLContext | None
    connector: BaseConnector | None
    trust_env: bool
    trace_configs: Iterable[TraceConfig]
    max_connections: int | None
    on_event: Callable[[Event], None] | None


class Client:
    """A client of one etcd cluster; opens nothing before its first call.

    Safe for any number of concurrent tasks on one event loop. It can be made before the loop runs, and works with and
    without `async with`.

    Args:
        endpoints: One endpoint or several: `http://host:port`, `https://host:port`, `host:port` (which means http),
            `unix:///path/of/a/socket`.
        username: The user, where the cluster has auth on; sent with the first request, to the endpoints only.
        password: The user's password. It appears in no `repr`, log line, error or curl line.
        header_timeout: Seconds for each request at each endpoint: name lookup, connecting, TLS, sending, and waiting
            for the header; a body may not stall for longer either. `None` = no limit.
        selection: Which endpoint is preferred.
        check_redirect: Called with the number of redirects in a row before each is followed; raises to refuse.
            The default raises `RedirectError` after 10.
        auto_sync: Seconds between syncs in the background, from the first call on; a failure is logged, and tried
            again after the same time. `None` = off.
        quorum: What `keys.get(quorum=None)` means.
        probe_interval: Seconds between liveness probes of an endpoint, while something is watched there, or calls are
            made and there is another one to go to.
        repeat_writes: Whether plain writes (`set`, `update`, `refresh` and `mkdir` without a condition, grants and
            revocations, `change_password`, `members.update` and `remove`) go on to the next endpoint after any failure,
            as those of Go's client do. A late copy can then undo what was written after it.
        ssl: The TLS context for `https://`; `None` = server certificates are checked against the system's.
        connector: Your aiohttp connector; it is used, and not closed.
        trust_env: Whether proxies are taken from the environment, as in aiohttp.
        trace_configs: Your aiohttp traces.
        max_connections: How many calls are under way at once, at all endpoints together; more wait their turn, in
            order, and that is no part of `header_timeout`. Each has a connection, and so a file descriptor; watches
            are not counted. `None` = 256, or with credentials 16: for each request etcd hashes the password, which
            costs 70 ms of its CPU. With credentials they become half as many when calls time out, and more again
            while answers come quickly.
        on_event: Called with each event of this client, as `aioetcd2.events` names them, from the event loop's thread
            and in their order. It must not block, and may call what is no coroutine; what it raises is logged once,
            and harms nothing.

    Attributes:
        keys (KeysAPI): The keys: get, set, compare-and-swap, watch.
        members (MembersAPI): The members of the cluster.
        auth (AuthAPI): Users and roles.
        stats (StatsAPI): What the members count.

    Raises:
        InvalidEndpointError: An endpoint is none.
        NoEndpointsError: There are no endpoints.
        TypeError: An option is of another type; the message says how to write it.
        ValueError: A number is negative, or the user name can't be sent.

    Examples:
        >>> async with Client("http://127.0.0.1:2379") as client:
        ...     await client.keys.set("/foo", "bar")
    """

    def __init__(
        self,
        endpoints: str | Iterable[str],
        *,
        username: str | None = None,
        password: str | None = None,
        header_timeout: float | None = 5.0,
        selection: EndpointSelection = EndpointSelection.RANDOM,
        check_redirect: Callable[[int], None] | None = None,
        auto_sync: float | None = None,
        quorum: bool = False,
        probe_interval: float = 5.0,
        repeat_writes: bool = False,
        ssl: ssl_module.SSLContext | None = None,
        connector: BaseConnector | None = None,
        trust_env: bool = False,
        trace_configs: Iterable[TraceConfig] = (),
        max_connections: int | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        check_lengths(header_timeout=header_timeout, auto_sync=auto_sync)
        check_seconds("probe_interval", probe_interval)
        check_switches(quorum=quorum, repeat_writes=repeat_writes, trust_env=trust_env)
        check_callable("check_redirect", check_redirect, "the number of redirects")
        check_callable("on_event", on_event, "each event")
        check_number("max_connections", max_connections)
        check_context(ssl)
        check_connector(connector)
        self._selection = EndpointSelection(selection)
        self._pool = EndpointPool(parse_endpoints(endpoints), shuffle=self._selection is EndpointSelection.RANDOM)
        self._reporter = Reporter(on_event)
        self._transport = Transport(
            header_timeout=header_timeout,
            keepalive=probe_interval,
            credentials=BasicCredentials(username, password),
            reporter=self._reporter,
            ssl=ssl,
            connector=connector,
            trust_env=trust_env,
            trace_configs=check_traces(trace_configs),
            max_connections=max_connections,
        )
        self._auto_sync = auto_sync
        self._moves = 0
        self._syncing: asyncio.Task[None] | None = None
        self._identity = Identity(self._reporter)
        self._failover = Failover(
            self._pool,
            self._transport,
            self._identity,
            self._reporter,
            check_redirect=check_redirect or at_most_ten,
            repeat_writes=repeat_writes,
        )
        self._watches = surroundings_of(
            self._failover, self._identity, self._reporter, probe_interval=probe_interval, header_timeout=header_timeout
        )
        self._calls = Calls(self._failover, self._watches.liveness, probe_interval, self._reporter)
        if auto_sync is not None:
            self._failover.on_use = self._start_syncing
        self._pool.on_change = self._forget_others
        self._pool.on_pin = self._reporter.pinned
        self._quorum = quorum
        self.keys = KeysAPI(self)
        self.members = MembersAPI(self)
        self.auth = AuthAPI(self)
        self.stats = StatsAPI(self)

    @classmethod
    async def from_srv(
        cls, domain: str, *, discoverer: Discoverer | None = None, **options: Unpack[ClientOptions]
    ) -> Self:
        """A client whose endpoints are found by DNS SRV, and found anew when all of them have failed.

        They are tried in the order of their priorities, whatever `selection` says; `set_endpoints()` ends all that.
        A search may take as long as `header_timeout`, or 5 s where there is none. Later ones are made one at a time,
        the next not before a second after the last, and at most one for each call that fails everywhere; one that
        fails changes nothing.

        Args:
            domain: The domain, as `example.com`.
            discoverer: What finds them; `None` = an `SRVDiscoverer`, which needs the extra `srv`.
            options: As for the client itself.

        Raises:
            DiscoveryError: There are none, or none was found in time.
        """
        finder = discoverer or SRVDiscoverer()

        async def discover() -> list[str]:
            return parse_endpoints(await finder.discover(domain))

        seconds = options.get("header_timeout") or SEARCH_TIMEOUT
        try:
            async with timeout(seconds):
                found = await discover()
        except asyncio.TimeoutError as error:
            raise DiscoveryError(f"no etcd found for {domain!r} within {seconds} s") from error
        client = cls(found, **options)
        client._pool.give(found, ranked=True)
        client._failover.rediscovery = Rediscovery(discover, client._failover.take, seconds, client._reporter)
        return client

    def __repr__(self) -> str:
        return f"<Client {', '.join(self._pool.order())}{' closed' if self._transport.closed else ''}>"

    async def __aenter__(self) -> Self:
        self._transport.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every watcher and every connection; what is under way fails with `ClientClosedError`. Idempotent."""
        self._transport.abort()
        if self._syncing is not None:
            self._syncing.cancel()
        try:
            await self._calls.close()
            await self._watches.close()
            if self._failover.rediscovery is not None:
                await self._failover.rediscovery.close()
            if self._syncing is not None:
                await asyncio.wait((self._syncing,))
        finally:
            await self._transport.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints in the order in which a call made now would try them; a copy.

        Those first given, which are tried when all that a `sync()` found have failed, are not among them.
        """
        return self._pool.order()

    @property
    def counters(self) -> Counters:
        """What this client has done so far: a snapshot.

        Read it in the thread of the event loop, as all of a client: elsewhere it may raise `RuntimeError` while a
        connection comes or goes.
        """
        tally = self._reporter.tally
        return Counters(
            calls=tally.calls,
            retries=tally.retries,
            failovers=tally.failovers,
            bytes_sent=tally.bytes_sent,
            bytes_received=tally.bytes_received,
            events=tally.events,
            resyncs=tally.resyncs,
            watches_open=self._watches.liveness.watching,
            connections_open=self._transport.connections,
        )

    def set_endpoints(self, endpoints: str | Iterable[str]) -> None:
        """Use other endpoints from now on, of another cluster perhaps: what was seen of the old one is forgotten.

        Args:
            endpoints: As for the client itself.

        Raises:
            InvalidEndpointError: An endpoint is none; nothing has changed.
            NoEndpointsError: There are none; nothing has changed.
            ClientClosedError: The client is closed.
        """
        self._transport.check_open()
        found = parse_endpoints(endpoints)
        self._reporter.cluster_forgotten(self._identity.cluster)
        self._reporter.endpoints_changed(found)
        self._pool.give(found)
        if self._failover.rediscovery is not None:
            self._failover.rediscovery.end()
        self._moves += 1
        self._identity.forget()
        self._watches.looks.forget()
        self._watches.liveness.leave(self._pool)

    def forget_cluster(self) -> None:
        """Take the next cluster that answers for the one, after it was rebuilt behind the same endpoints.

        What was seen of it is forgotten; watches register anew, and report lost events where it is another cluster, or
        where its store has begun anew. Discovery by SRV and syncs go on.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._transport.check_open()
        self._reporter.cluster_forgotten(self._identity.cluster)
        self._identity.forget()
        self._watches.begin_anew()

    async def wait_ready(self) -> None:
        """Wait until an endpoint answers and has a leader; it stays pinned for the calls to come.

        Asked for again and again, up to once a second, for as long as none does; the deadline is yours:
        `async with asyncio.timeout(30)`.

        Raises:
            V2DisabledError: What answers does not serve v2, and never will.
            InvalidResponseError: What answers is no etcd.
            ClusterMismatchError: What answers is of another cluster.
            ClientClosedError: The client is closed.
        """
        troubles = 0
        while True:
            try:
                await self.members.leader()
                return
            except ClusterError as error:
                if any(isinstance(each, ConnectionLostError) for each in error.errors):
                    with suppress(ClusterError):  # servers that emulate v2 break that off
                        if (await self.health()).healthy:
                            return
            troubles += 1
            await asyncio.sleep(pause_after(troubles))

    async def sync(self) -> None:
        """Use the client URLs of the cluster's members as endpoints from now on.

        The pinned endpoint stays pinned if it is among them; with `PRIORITIZE_LEADER` the leader is pinned. When all
        of them prove unreachable, the endpoints first given are tried before a call gives up.

        Raises:
            NoEndpointsError: No member has a usable client URL; nothing has changed.
            ClusterError: No endpoint answered; nothing has changed.
        """
        moves = self._moves
        members = await self.members.list()
        found = list(dict.fromkeys(url for member in members for url in _usable(member.client_urls)))
        if not found:
            raise NoEndpointsError("no member of the cluster has a usable client URL")
        if moves != self._moves:  # these are the members of a cluster that set_endpoints() has left meanwhile
            return
        if set(found) != set(self._pool.order()):
            self._reporter.endpoints_changed(found)
        self._pool.replace(found)
        if self._selection is EndpointSelection.PRIORITIZE_LEADER:
            await self._pin_leader()

    async def auto_sync(self, interval: float) -> NoReturn:
        """Sync, sleep, and repeat; ends by cancellation or with the first error.

        Args:
            interval: Seconds between two syncs.

        Raises:
            EtcdError: As `sync()` does.
        """
        check_seconds("interval", interval)
        while True:
            await self.sync()
            await asyncio.sleep(interval)

    async def version(self) -> Version:
        """The version of the member that answers, and of the cluster (`GET /version`).

        Raises:
            ClusterError: No endpoint answered.
        """
        return await self._failover.call(build("GET", "/version"), responses.version)

    async def health(self, endpoint: str | None = None) -> Health:
        """Whether a member has a leader and its writes get through (`GET /health`).

        Args:
            endpoint: Which one to ask, and no other; `None` = the first that answers, be it healthy or not.

        Raises:
            InvalidEndpointError: `endpoint` is none.
            ClusterError: It did not answer.
        """
        request = build("GET", "/health")
        if endpoint is None:
            return await self._failover.call(request, responses.health)
        return await self._failover.at(parse_endpoint(endpoint), request, responses.health)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        form: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        json: Any = None,
        one_shot: bool | None = None,
    ) -> HTTPResult:
        """Send any request on the same failover path, for what this library has no call for.

        Args:
            method: The HTTP method.
            path: The path as text; it is encoded as a key is, and can have no `.` or `..` segment.
            params: The query: a mapping, or pairs of a name and a value.
            form: A form for the body, in the same way.
            json: A value to send as JSON instead, if not `None`.
            one_shot: Whether it must not be sent again once an endpoint may have received it. `None` = as a write, at
                most once, but for GET and HEAD.

        Returns:
            The answer as it is, whatever its status below 500.

        Raises:
            ClusterError: No endpoint answered, or all with a 5xx.
            ValueError: The server could not read such a request.
            TypeError: A field is no pair of texts, or `json` can't be encoded.
        """
        request = raw(method, path, params=params, form=form, json=json, one_shot=one_shot)
        return await self._failover.call(request, responses.raw)

    def _keys_engine(self, prefix: str) -> KeysEngine:
        return KeysEngine(self._failover, self._identity, self._watches, prefix)

    async def _pin_leader(self) -> None:
        try:
            leader = await self.members.leader()
        except (ClusterError, InvalidResponseError) as error:
            self._reporter.leader_unknown(error)
            return
        for url in _usable(leader.client_urls):
            self._pool.pin(url)

    def _start_syncing(self) -> None:
        assert self._auto_sync is not None
        self._syncing = asyncio.ensure_future(_keep_syncing(weakref.ref(self), self._auto_sync))
        self._calls.call_is_made()

    def _forget_others(self) -> None:
        self._transport.forget_others(self._pool)
        self._reporter.forget_others(self._pool)


async def _keep_syncing(reference: weakref.ref[Client], interval: float) -> None:
    """Sync for as long as the client is in use, whatever becomes of each sync."""
    while (client := reference()) is not None:
        try:
            await client.sync()
        except EtcdError as error:
            client._reporter.sync_failed(interval, error)
        del client
        await asyncio.sleep(interval)


def _usable(urls: Iterable[str]) -> Iterable[str]:
    for url in urls:
        with suppress(InvalidEndpointError):
            yield parse_endpoint(url)
