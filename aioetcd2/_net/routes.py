"""The ways to the endpoints: sessions, the connections they lend, and the names they look up."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import cast

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec import Struct
from yarl import URL

from .addresses import AvoidingResolver, host_of, other_address
from .endpoints import socket_path
from .places import Places
from .sending import Connections, FitRequest, FreedResponse

_HEADERS = {"User-Agent": "aioetcd2", "Accept": "*/*", "Accept-Encoding": "identity"}
"""Said once for the whole session, which is cheaper than to have aiohttp add or skip its own each time."""


class Route(Struct):
    """How to get to an endpoint: the session to use, the parts of the URL, and where the last answer came from."""

    session: aiohttp.ClientSession
    trusting: bool
    scheme: str
    authority: str
    peer: str = ""

    def address(self, peer: str) -> str | None:
        """The address that a connection has, if the name may have others."""
        return None if self.trusting or not peer else other_address(self.authority, peer)


@lru_cache(maxsize=512)
def url_of(scheme: str, authority: str, target: str) -> URL:
    """The URL of a request, with all that aiohttp finds out about it: keys that are asked for again are parsed once."""
    path, _, query = target.partition("?")
    return URL.build(scheme=scheme, authority=authority, path=path, query_string=query, encoded=True)


class Routes:
    """The routes of one client, on one event loop; no session is made before it is used.

    Args:
        ssl: The caller's TLS context.
        connector: The caller's connector, used and not closed.
        places: What that lends, where it has a limit.
        trust_env: Whether proxies are taken from the environment.
        trace_configs: The caller's aiohttp traces.

    Attributes:
        connections: The connections that were made.
    """

    def __init__(
        self,
        *,
        ssl: ssl_module.SSLContext | None,
        connector: aiohttp.BaseConnector | None,
        places: Places | None,
        trust_env: bool,
        trace_configs: Iterable[aiohttp.TraceConfig],
    ) -> None:
        self._resolver = AvoidingResolver(aiohttp.DefaultResolver)
        self._ssl = ssl
        self._connector = connector
        self._places = places
        self._trust_env = trust_env
        self._trace_configs = list(trace_configs)
        self.connections = Connections(self._resolver.avoided)
        self._request_class = FitRequest.among(self.connections)
        self._sessions: dict[str | None, aiohttp.ClientSession] = {}
        self._known: dict[str, Route] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def to(self, endpoint: str) -> Route | None:
        """The route to an endpoint, if it was made on this event loop."""
        return self._known.get(endpoint) if self._loop is asyncio.get_running_loop() else None

    def make(self, endpoint: str) -> Route:
        """Make the route to an endpoint.

        Raises:
            RuntimeError: The client is in use on another event loop.
        """
        path = socket_path(endpoint)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError("this client is in use on another event loop; make one client for each loop")
            self._loop = loop
        session = self._sessions.get(path)
        if session is None:
            session = self._sessions[path] = self._make_session(path)
        scheme, _, authority = (endpoint if path is None else "http://localhost").partition("://")
        route = self._known[endpoint] = Route(session, session.trust_env, scheme, authority)
        return route

    def known(self, endpoint: str) -> Route | None:
        """The route to an endpoint, if it was made."""
        return self._known.get(endpoint)

    def looks_up(self, endpoint: str) -> bool:
        """Whether the name of an endpoint is being looked up; not known with a caller's connector."""
        route = self._known.get(endpoint)
        return route is not None and self._resolver.looks_up(host_of(route.authority))

    def others(self, endpoint: str, address: str) -> list[str]:
        """The other addresses of the name of an endpoint, as far as they are known."""
        route = self._known.get(endpoint)
        return [] if route is None else self._resolver.others(host_of(route.authority), address)

    def forget_others(self, endpoints: Container[str]) -> None:
        """Keep no route to other endpoints than these."""
        self._known = {endpoint: route for endpoint, route in self._known.items() if endpoint in endpoints}
        self._resolver.forget_others({host_of(route.authority) for route in self._known.values()})

    def forget(self) -> None:
        """Forget every route, so that none is taken without another look."""
        self._known.clear()

    def avoid(self, address: str) -> None:
        """Make no new connection to an address for a while, if its name has others; not with a caller's connector."""
        self._resolver.add(address)
        for session in self._sessions.values():
            if session.connector_owner and isinstance(session.connector, aiohttp.TCPConnector):
                session.connector.clear_dns_cache()

    def forget_name(self, endpoint: str) -> None:
        """Have the name of an endpoint looked up anew; aiohttp remembers it for 10 s otherwise."""
        route = self._known.get(endpoint)
        if route is not None and isinstance(route.session.connector, aiohttp.TCPConnector):
            url = URL(f"{route.scheme}://{route.authority}")
            if url.raw_host is not None:
                route.session.connector.clear_dns_cache(url.raw_host, url.port)

    async def close(self) -> None:
        """Close every session, and their connections. Idempotent."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()
        await self._resolver.close()

    def _make_session(self, path: str | None) -> aiohttp.ClientSession:
        connector, traces = self._connector, self._trace_configs
        owned = connector is None or path is not None
        if path is not None:
            connector = aiohttp.UnixConnector(path, limit=0)
        elif connector is None:
            resolver = cast(AbstractResolver, self._resolver)
            connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl or True, resolver=resolver)
        elif self._places is not None:
            traces = [*traces, self._places.trace()]
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=owned,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(),
            trust_env=self._trust_env and path is None,
            trace_configs=traces,
            request_class=self._request_class,
            response_class=FreedResponse,
        )
