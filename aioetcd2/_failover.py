"""The only loop over endpoints: pick one, exchange, classify, then go to the next, return, or raise."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from . import _response
from ._endpoints import EndpointPool, parse_endpoint
from ._request import Replay, Request, build, with_quorum
from ._response import PageNotFoundError
from .errors import (
    APIError,
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    EndpointError,
    EtcdError,
    InvalidEndpointError,
    InvalidResponseError,
    NoLeaderError,
    RedirectError,
    ServerError,
    V2DisabledError,
)
from .models import HTTPResult, Response

logger = logging.getLogger("aioetcd2")

T = TypeVar("T")
A = TypeVar("A", bound="Answer")

Decoder = Callable[[HTTPResult, object], T]

MAX_REDIRECTS = 10

MOST_REDIRECTS = 100
"""Where a `check_redirect` that refuses nothing ends, too."""

_ANSWERS = (NoLeaderError, ServerError)
"""Failures that came as an answer: the request arrived, so a write may have been carried out."""


class Answer(Protocol):
    """What an exchange brings: a whole result, or a stream whose body is still coming."""

    @property
    def head(self) -> HTTPResult: ...
    def close(self) -> None: ...


class OpenStream(Answer, Protocol):
    """What a watch needs of a stream."""

    async def read(self) -> bytes: ...


class Exchanger(Protocol):
    """What the loop needs of a transport."""

    @property
    def closed(self) -> bool: ...
    async def exchange(self, endpoint: str, request: Request, *, trusted: bool = True) -> HTTPResult: ...
    async def open(self, endpoint: str, request: Request, *, trusted: bool = True) -> OpenStream: ...
    def check_open(self) -> None: ...


def one_line(error: BaseException) -> str:
    """An error as it goes into a log."""
    return "; ".join(filter(None, map(str.strip, str(error).splitlines())))


def at_most_ten(hops: int) -> None:
    """The default of `check_redirect`.

    Raises:
        RedirectError: This would be the eleventh redirect in a row.
    """
    if hops > MAX_REDIRECTS:
        raise RedirectError(f"more than {MAX_REDIRECTS} redirects in a row")


class Failover:
    """Carries requests to the first endpoint that answers.

    Args:
        pool: The endpoints.
        transport: The way to them.
        check_redirect: Told the number of redirects in a row before each is followed; raises to refuse.
        on_first_use: Called once, when the first request is about to be sent.

    Attributes:
        rediscover: Finds the endpoints anew when all have failed, where they were discovered.
        newest: The highest index that this client has seen of its cluster.
    """

    def __init__(
        self,
        pool: EndpointPool,
        transport: Exchanger,
        *,
        check_redirect: Callable[[int], None] = at_most_ten,
        on_first_use: Callable[[], None] | None = None,
    ) -> None:
        self._pool = pool
        self._transport = transport
        self._check_redirect = check_redirect
        self._on_first_use = on_first_use
        self.rediscover: Callable[[], Awaitable[Iterable[str]]] | None = None
        self._cluster = ""
        self._foreign: dict[str, str] = {}
        self._moves = 0
        self.newest = 0

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._transport.closed

    def forget(self) -> None:
        """Know nothing of a cluster: the next to answer is the one."""
        self._cluster = ""
        self._foreign.clear()
        self._moves += 1
        self.newest = 0

    def saw(self, index: int) -> None:
        """Take note of an index that the cluster has reached."""
        if index > self.newest:
            self.newest = index

    def call(self, request: Request, decode: Decoder[T]) -> Awaitable[T]:
        """Send a request, and decode its answer.

        Raises:
            APIError: The server refused it.
            InvalidResponseError: All that answered are no etcd, or no v2 API.
            ClusterError: No endpoint answered.
            ClientClosedError: The client is closed.
        """
        return self._each(request, None, self._transport.exchange, decode)

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one endpoint."""
        return len(self._pool.order()) > 1

    def suspect(self, endpoint: str) -> None:
        """Begin elsewhere for a while: this endpoint did not answer a probe."""
        self._pool.failed(endpoint)

    def open(self, make: Callable[[str], Request]) -> Awaitable[OpenStream]:
        """Send a request, and return with the header of a 200.

        Args:
            make: Makes the request for an endpoint.

        Raises:
            APIError: The server refused it.
            ClusterError: No endpoint answered.
            ClientClosedError: The client is closed.
        """
        return self._each(make(self._pool.pinned), make, self._transport.open, _opened)

    async def at(self, endpoint: str, request: Request, decode: Decoder[T]) -> T:
        """Send a request to one endpoint and no other, with credentials only if it is one of this client's.

        Raises:
            APIError: The server refused it.
            ClusterError: It did not answer.
            ClientClosedError: The client is closed.
        """
        try:
            result = await self._transport.exchange(endpoint, request, trusted=endpoint in self._pool)
            return decode(result, request)
        except InvalidResponseError as error:
            raise error.as_outcome(str(request), [error.as_failure()]) from None
        except EndpointError as error:
            raise ClusterError(str(request), [error]) from error

    async def read(self, request: Request) -> Response:
        """Get a key, never back in time: an answer older than what this client has seen is asked for with quorum.

        Raises:
            APIError: The server refused it; there is no such key, perhaps.
            ClusterError: No endpoint answered.
            ClientClosedError: The client is closed.
        """
        newest = self.newest
        error: APIError | None = None
        try:
            response = await self.call(request, _response.keys)
            index = response.index
            if index >= newest:
                if index > self.newest:
                    self.newest = index
                return response
        except APIError as refusal:
            error, index = refusal, refusal.index
        if 0 < index < newest and (again := with_quorum(request)) is not None:
            return await self._read_again(again, index, newest)
        self.saw(index)
        if error is not None:
            raise error
        return response

    async def _read_again(self, request: Request, index: int, newest: int) -> Response:
        logger.info("an answer had index %d after %d; asking again with quorum: %s", index, newest, request)
        try:
            response = await self.call(request, _response.keys)
        except APIError as refusal:
            self._settle(refusal.index, newest)
            raise
        self._settle(response.index, newest)
        return response

    def _settle(self, index: int, newest: int) -> None:
        if 0 < index < newest:  # even with quorum: the cluster was made anew from older data
            self.newest = index
        else:
            self.saw(index)

    async def _each(
        self,
        request: Request,
        make: Callable[[str], Request] | None,
        send: Callable[[str, Request], Awaitable[A]],
        finish: Callable[[A, Request], T],
    ) -> T:
        if self._on_first_use is not None:
            begin, self._on_first_use = self._on_first_use, None
            begin()
        errors: list[EndpointError] = []
        tried: list[str] = []
        without_v2: V2DisabledError | None = None
        while (endpoint := self._pool.next(tried) or await self._discovered(tried)) is not None:
            tried.append(endpoint)
            if self._foreign and endpoint in self._foreign and request.writes:
                continue
            moves = self._moves
            if make is not None:
                request = make(endpoint)
            try:
                answer = await send(endpoint, request)
                try:
                    head = answer.head
                    if 300 <= head.status < 400:
                        answer = await self._follow(send, endpoint, request, answer)
                        head = answer.head
                    cluster = head.headers.get(_response.CLUSTER_ID)
                    if cluster != self._cluster:
                        if cluster and moves == self._moves:
                            self._identify(cluster, head.endpoint, request)
                    elif self._foreign:
                        self._foreign.pop(endpoint, None)
                    outcome = finish(answer, request)
                except BaseException:
                    answer.close()
                    raise
            except InvalidResponseError as error:
                if request.secret:
                    error.hide_body()
                if isinstance(error, PageNotFoundError):
                    without_v2 = without_v2 or await self._without_v2(endpoint)
                else:
                    error.maybe_applied = request.writes
                self._failed(endpoint, request, error.as_failure(), errors)
                if request.replay is Replay.IF_UNSENT and not isinstance(error, PageNotFoundError):
                    break
            except EndpointError as error:
                if request.writes and isinstance(error, _ANSWERS):
                    error.maybe_applied = True
                self._failed(endpoint, request, error, errors)
                if request.replay is Replay.IF_UNSENT and not isinstance(error, ConnectError):
                    break
            except ClusterMismatchError as error:
                self._foreign[endpoint] = error.actual
                self._pool.failed(endpoint)
                raise
            except EtcdError:
                self._transport.check_open()
                self._pool.answered(endpoint)
                if errors:
                    self._pool.pin(endpoint)
                raise
            else:
                self._pool.answered(endpoint)
                if errors:
                    self._pool.pin(endpoint)
                return outcome
        raise self._unanswered(request, tried, errors, without_v2)

    def _unanswered(
        self, request: Request, tried: list[str], errors: list[EndpointError], without_v2: V2DisabledError | None
    ) -> EtcdError:
        """What a pass over the endpoints means in which none gave an answer of etcd's v2 API."""
        failure = ClusterError(str(request), errors)
        if not failure.maybe_applied:
            for endpoint in self._foreign:
                if endpoint in tried and request.writes:
                    return ClusterMismatchError(endpoint, self._cluster, self._foreign[endpoint], str(request))
            if without_v2 is not None:
                return without_v2
        causes = [error.__cause__ for error in errors]
        if isinstance(causes[0], InvalidResponseError) and all(isinstance(c, InvalidResponseError) for c in causes):
            return causes[0].as_outcome(str(request), errors)
        return failure

    async def _discovered(self, tried: list[str]) -> str | None:
        """The first endpoint that was not there before, when all others have failed."""
        if self.rediscover is None:
            return None
        try:
            found = list(await self.rediscover())
        except Exception as error:  # whatever a caller's discoverer raises, the failures of the endpoints come first
            logger.warning("every endpoint has failed, and finding others did, too: %s", one_line(error))
            found = []
        self._transport.check_open()
        if self.rediscover is None or not set(found).difference(tried):
            return None
        logger.info("every endpoint has failed; found %s", ", ".join(found))
        self._pool.give(found, ranked=True)
        return self._pool.next(tried)

    def _failed(self, endpoint: str, request: Request, error: EndpointError, errors: list[EndpointError]) -> None:
        errors.append(error)
        self._pool.failed(endpoint)
        logger.info("%s failed at %s [%s]", request, one_line(error), type(error).__name__)

    def _identify(self, cluster: str, endpoint: str, request: Request) -> None:
        """See that an answer is from the cluster of all others."""
        if self._cluster:
            raise ClusterMismatchError(endpoint, self._cluster, cluster, str(request))
        self._cluster = cluster

    async def _follow(self, send: Callable[..., Awaitable[A]], endpoint: str, request: Request, answer: A) -> A:
        """Follow redirects, method and body kept; credentials go on to our own endpoints only, never onto cleartext."""
        hops = 0
        secure = False
        while 300 <= answer.head.status < 400:
            hops += 1
            if hops > MOST_REDIRECTS:
                raise RedirectError(f"{request}: more than {MOST_REDIRECTS} redirects in a row")
            self._check_redirect(hops)
            answer.close()
            secure = secure or endpoint.startswith("https:")
            before, (endpoint, target) = endpoint, _location(endpoint, request, answer.head)
            trusted = endpoint in self._pool and not (secure and endpoint.startswith("http:"))
            if request.secret and not trusted:
                raise RedirectError(f"{request} at {before}: its body holds a password, and {endpoint} is not trusted")
            request = msgspec.structs.replace(request, target=target)
            logger.info("%s redirects to %s%s", before, endpoint, target)
            answer = await send(endpoint, request, trusted=trusted)
        return answer

    async def _without_v2(self, endpoint: str) -> V2DisabledError | None:
        """The error for a path of v2 that was not found, if it is an etcd that says so."""
        try:
            result = await self._transport.exchange(endpoint, build("GET", "/version"))
            return V2DisabledError(endpoint, _response.version(result, "GET /version").server)
        except EtcdError:
            self._transport.check_open()
            return None


def _opened(stream: OpenStream, request: Request) -> OpenStream:
    if stream.head.status != 200:
        raise _response.failure(stream.head, request)
    if _response.INDEX not in stream.head.headers:  # or any web page would do for a wait without an event
        raise _response.invalid(stream.head, "no X-Etcd-Index")
    return stream


def _location(endpoint: str, request: Request, result: HTTPResult) -> tuple[str, str]:
    """Where a redirect leads: endpoint and target."""
    where = result.headers.get("Location", "")
    what = f"{request} at {endpoint}: redirect {result.status}"
    if not where:
        raise RedirectError(f"{what} without a Location")
    unix = endpoint.startswith("unix:")
    try:
        parts = urlsplit(urljoin(f"{'http://localhost' if unix else endpoint}{request.target}", where))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise InvalidEndpointError("its path has characters that must be encoded")
        if unix and parts.netloc == "localhost":
            return endpoint, target
        if parts.scheme not in ("http", "https"):  # no server sends us to a socket of this machine
            raise InvalidEndpointError("the scheme must be http or https")
        return parse_endpoint(f"{parts.scheme}://{parts.netloc}"), target
    except ValueError as error:
        raise RedirectError(f"{what} with a bad Location {where[:200]!r}: {error}") from None
