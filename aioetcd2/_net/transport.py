"""One exchange, or one stream, with one endpoint."""

from __future__ import annotations

import asyncio
import io
import ssl as ssl_module
import time
from collections.abc import Container, Iterable, Mapping
from typing import Any, NoReturn, cast

import aiohttp
from aiohttp import BaseConnector as BaseConnector
from aiohttp import TraceConfig as TraceConfig

from ..errors import (
    ClientClosedError,
    ConnectError,
    HeaderTimeoutError,
    InvalidResponseError,
)
from ..models import HTTPResult
from .addresses import at_address, keep_alive
from .causes import meaning_of
from .credentials import Credentials
from .deadlines import Lengths
from .endpoints import socket_path
from .places import Places, Wait
from .reporter import DEBUG, Reporter, shows_curl
from .request import Replay, Request
from .routes import Route, Routes, url_of
from .sending import Authorize, Lost, SendOnce, choose
from .stream import Stream
from .turns import QUICK, turns_for_calls

MAX_BODY = 256 << 20
"""The most that is read of one answer. A listing of a full store is far below; more than this is an attack."""

DRIP = 64 << 10
"""What of a body has to arrive within each `DRIP_TIMEOUTS` header timeouts; less is a drip that might never end."""

DRIP_TIMEOUTS = 10

DEFAULT_PATIENCE = 5.0
"""Seconds of which an answer has to take a small part only to be quick, where there is no header timeout."""

UNFAITHFUL_FOR = 60.0
"""Seconds for which an endpoint that closed a connection it had promised to keep gets writes over new ones only."""

_ONE_PIECE = 1 << 20
"""The longest body that aiohttp takes in one piece without a warning."""

_NOTHING: Mapping[str, str] = {}
_ALWAYS = Replay.ALWAYS  # before Python 3.12 to find a member of an Enum takes longer than a call


class Transport:
    """Connections to all endpoints; opens nothing before the first exchange.

    Args:
        header_timeout: Seconds for connecting, sending and waiting for the header together; `None` = no limit.
        keepalive: Seconds of silence after which the connection of a stream is probed by TCP.
        credentials: Who we are; asked for with each request.
        reporter: Told of every request.
        ssl: The TLS context for `https://`; `None` = the system's certificates.
        connector: The caller's connector, used and not closed.
        trust_env: Whether proxies are taken from the environment.
        trace_configs: The caller's aiohttp traces.
        max_connections: How many exchanges go on at once; `None` = as many as servers are known to bear.
    """

    def __init__(
        self,
        *,
        header_timeout: float | None,
        keepalive: float,
        credentials: Credentials,
        reporter: Reporter,
        ssl: ssl_module.SSLContext | None,
        connector: BaseConnector | None,
        trust_env: bool,
        trace_configs: Iterable[TraceConfig],
        max_connections: int | None = None,
    ) -> None:
        self.header_timeout = header_timeout
        self._keepalive = max(1, round(keepalive))
        self._patience = aiohttp.ClientTimeout(connect=header_timeout)
        self._credentials = credentials
        self._reporter = reporter
        self._adapts = credentials.username is not None
        self._turns = turns_for_calls(max_connections, with_credentials=self._adapts)
        self._quick = QUICK * (header_timeout or DEFAULT_PATIENCE)
        self._places = Places.of(connector, reporter)
        self._routes = Routes(
            ssl=ssl, connector=connector, places=self._places, trust_env=trust_env, trace_configs=trace_configs
        )
        self._lengths = Lengths(header_timeout)
        self._heard: set[str] = set()
        self._unfaithful: dict[str, float] = {}
        self._tally = reporter.tally
        self.closed = False

    async def exchange(
        self, endpoint: str, request: Request, *, trusted: bool = True, address: str | None = None
    ) -> HTTPResult:
        """Send a request to an endpoint when its turn has come, and read the whole answer.

        Args:
            endpoint: Where to.
            request: What.
            trusted: Whether the endpoint gets the credentials.
            address: Which address of the endpoint's name; `None` = any.

        Raises:
            EndpointError: The endpoint did not answer, or not completely.
            ClientClosedError: The client is closed.
        """
        turns = self._turns
        counts = not request.urgent
        adapts = counts and self._adapts
        while True:
            if counts and not turns.begin():
                await turns.wait()
            began = time.monotonic() if adapts else 0.0
            try:
                response = await self._send(endpoint, request, trusted, address)
                try:
                    content = response.content
                    body = content.read_nowait() if content.is_eof() else await self._read(endpoint, request, content)
                except BaseException:
                    response.close()
                    raise
                self._tally.bytes_received += len(body)
                if adapts:
                    turns.succeeded(quickly=time.monotonic() - began < self._quick)
                return HTTPResult(response.status, response.headers, body, endpoint)
            except ConnectError as error:
                if not counts or not error.ours or error.no_free_connection or not turns.is_too_many():
                    raise
            except HeaderTimeoutError:
                if adapts and request.timeout is None:
                    turns.timed_out(began)
                raise
            finally:
                if counts:
                    turns.end()

    async def open(self, endpoint: str, request: Request, *, trusted: bool = True) -> Stream:
        """Send a request to an endpoint, and return with its header. The body of a 200 is the caller's to read.

        Raises:
            EndpointError: The endpoint did not answer.
            ClientClosedError: The client is closed.
        """
        response = await self._send(endpoint, request, trusted, once=True)
        try:
            body = b"" if response.status == 200 else await self._read(endpoint, request, response.content)
        except BaseException:
            response.close()
            raise
        head = HTTPResult(response.status, response.headers, body, endpoint)
        stream = Stream(self.check_open, response, head, self._watched_over(response, endpoint), self._tally)
        if self._places is not None and not stream.closed:
            self._places.held_by(stream)
        return stream

    def abort(self) -> None:
        """Begin nothing any more, and end what is under way with `ClientClosedError`. Idempotent."""
        self.closed = True
        self._routes.forget()
        self._turns.open()
        self._lengths.expire()  # closing a connection does not wake who is connecting, or reading a body

    async def close(self) -> None:
        """Abort what is under way, and close every connection. Idempotent."""
        self.abort()
        await self._routes.close()

    def avoid(self, address: str) -> None:
        """Use no connection to an address for a while, if its name has others; not with a caller's connector."""
        self._routes.avoid(address)

    def address_of(self, endpoint: str) -> str | None:
        """Where the last answer of an endpoint came from, if its name may have other addresses."""
        route = self._routes.known(endpoint)
        return None if route is None else route.address(route.peer)

    def other_addresses(self, endpoint: str, address: str) -> list[str]:
        """The other addresses of the name of an endpoint, as far as they are known; not with a caller's connector."""
        return self._routes.others(endpoint, address)

    def forget_others(self, endpoints: Container[str]) -> None:
        """Keep nothing of other endpoints than these."""
        self._routes.forget_others(endpoints)
        self._heard = {endpoint for endpoint in self._heard if endpoint in endpoints}
        self._unfaithful = {endpoint: until for endpoint, until in self._unfaithful.items() if endpoint in endpoints}

    def _watched_over(self, response: aiohttp.ClientResponse, endpoint: str) -> str | None:
        """Have TCP notice when the other side of a stream is gone; its address, if the name may have others."""
        transport = response.connection.transport if response.connection is not None else None
        route = self._routes.known(endpoint)
        if transport is None or route is None or socket_path(endpoint) is not None:
            return None
        keep_alive(transport.get_extra_info("socket"), self._keepalive)
        address = transport.get_extra_info("peername")
        return route.address(str(address[0])) if address else None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._routes.connections.open

    @property
    def username(self) -> str | None:
        """Who we are; `None` = nobody."""
        return self._credentials.username

    def check_open(self) -> None:
        """Raise `ClientClosedError` once the client is closed."""
        if self.closed:
            raise ClientClosedError("the client is closed; make a new one")

    async def _send(
        self, endpoint: str, request: Request, trusted: bool, address: str | None = None, *, once: bool = False
    ) -> aiohttp.ClientResponse:
        route = self._routes.to(endpoint) or self._new_route(endpoint)
        if shows_curl(DEBUG):
            self._reporter.sends(endpoint, request, self._credentials.username if trusted else None)
        connections = self._routes.connections
        options: dict[str, Any] = {"allow_redirects": False}  # what is left out is cheaper than what says nothing
        sending: SendOnce | None = None
        if once or request.writes or request.replay is not _ALWAYS:
            sending = SendOnce(fresh=endpoint in self._unfaithful and self._unfaithful[endpoint] > time.monotonic())
            options["middlewares"] = (sending,)
        elif connections.told or connections.avoided:  # else none that is idle is unfit for what aiohttp repeats
            options["middlewares"] = (choose,)
        headers = self._credentials.headers(endpoint) if trusted else _NOTHING
        if route.trusting:
            options["middlewares"] = (*options.get("middlewares", ()), Authorize(headers, trusted))
            headers = _NOTHING
        body = request.body
        if body is not None:
            self._tally.bytes_sent += len(body)
            options["data"] = _payload_of(body, request.content_type)
        authority = route.authority
        if address is not None:
            authority, options["server_hostname"] = at_address(authority, address)
            headers = {**headers, "Host": route.authority}
        if headers:
            options["headers"] = headers
        lengths = self._lengths
        deadlines = lengths.usual if request.timeout is None else lengths.at_most(request.timeout)
        if request.patient:
            options["timeout"] = self._patience
            deadlines = lengths.endless
        wait: Wait | None = None
        try:
            with deadlines.begin() as deadline:
                if self._places is not None:
                    wait = self._places.lend(deadline)
                url = url_of(route.scheme, authority, request.target)
                response = await route.session.request(request.method, url, **options)
                self._heard.add(endpoint)
                peer = connections.answered(response)
                if address is None:  # another one does not count as where calls go
                    route.peer = peer
                return response
        except Exception as error:
            self._lost(endpoint, request, error, sending, wait)

    def _new_route(self, endpoint: str) -> Route:
        self.check_open()
        return self._routes.make(endpoint)

    def _lost(
        self, endpoint: str, request: Request, error: Exception, sending: SendOnce | None, wait: Wait | None
    ) -> NoReturn:
        """Raise what it means that no answer began, and note what it tells of the endpoint."""
        if isinstance(error, asyncio.TimeoutError):
            if wait is not None and wait.waits and self._places is not None and not self.closed:
                seconds = self._lengths.at_most(request.timeout).seconds
                reason = f"no connection was free within {seconds} s: {self._places.ran_out(endpoint)}"
                raise ConnectError(endpoint, reason, no_free_connection=True) from error
        elif type(error) is Lost and sending is not None and sending.was_reaped:
            self._unfaithful[endpoint] = time.monotonic() + UNFAITHFUL_FOR
        self._raise(endpoint, request, error, sending is not None and sending.sent)

    async def _read(self, endpoint: str, request: Request, content: aiohttp.StreamReader) -> bytes:
        body = bytearray()
        deadlines = self._lengths.at_most(request.timeout)
        seconds = deadlines.seconds
        drips = self._lengths.of(None if seconds is None else DRIP_TIMEOUTS * seconds)
        try:
            while not content.at_eof():
                goal = len(body) + DRIP
                with drips.begin():
                    while len(body) < goal:
                        with deadlines.begin():
                            piece = await content.readany()
                        if not piece:
                            break
                        body += piece
                if len(body) > MAX_BODY:
                    raise InvalidResponseError(endpoint, f"the body is longer than {MAX_BODY} bytes")
        except asyncio.TimeoutError as error:
            self.check_open()
            reason = f"the body stalled, or came in drips, for {seconds} s after {len(body)} bytes"
            raise HeaderTimeoutError(endpoint, reason, maybe_applied=request.writes) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            self._raise(endpoint, request, error, request.writes)
        return cast(bytes, body)  # as good to a decoder, and a copy costs page faults; raw() makes it for a caller

    def _raise(self, endpoint: str, request: Request, error: Exception, sent: bool) -> NoReturn:
        """Raise what an exception of aiohttp means."""
        if self.closed:
            raise ClientClosedError(f"{request}: the client was closed") from error
        looking_up = self._routes.looks_up(endpoint)
        self._routes.forget_name(endpoint)
        hidden = request.secret and isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError))
        cause = error.__cause__ if type(error) is Lost else None if hidden else error  # these show parts of the answer
        seconds = self._lengths.at_most(request.timeout).seconds
        heard = endpoint in self._heard
        raise meaning_of(
            endpoint, request, error, sent=sent, seconds=seconds, heard=heard, looking_up=looking_up
        ) from cause


def _payload_of(body: bytes, content_type: str | None) -> aiohttp.Payload:
    """A body as aiohttp sends it: with the header that says what it is."""
    if len(body) > _ONE_PIECE:
        return aiohttp.BytesIOPayload(io.BytesIO(body), content_type=content_type)
    return aiohttp.BytesPayload(body, content_type=content_type)
