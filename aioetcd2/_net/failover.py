"""The only loop over endpoints: pick one, exchange, judge; then go to the next, return, or raise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from typing import Protocol, TypeVar

from ..errors import ClusterError, EndpointError, EtcdError, InvalidResponseError, UnauthorizedError
from ..models import HTTPResult
from .endpoints import EndpointPool, Pass
from .exchange import Answer, Exchanger, OpenStream, drop, head_of
from .redirects import Redirects, at_most_ten
from .rediscovery import Rediscovery
from .reporter import Reporter
from .request import Request
from .verdict import Outcome, Place, Step, failure_of, outcome_of, sum_up, verdict

Where = tuple[str, "str | None"]
"""An endpoint, and the address that a connection to it has, where its name may have others."""

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

Decoder = Callable[[HTTPResult, object], T]
Ask = Callable[[Request], Awaitable[HTTPResult]]


class Guard(Protocol):
    """What an API knows of the cluster behind the endpoints.

    Attributes:
        epoch: How often the cluster was forgotten; what was asked before tells nothing of the cluster after.
        strangers: The endpoints that have answered for another cluster: asked who they are before they get a write.
    """

    @property
    def epoch(self) -> int: ...
    @property
    def strangers(self) -> Container[str]: ...

    async def passes_over(self, endpoint: str, request: Request, ask: Ask) -> EtcdError | None:
        """Why a stranger does not get a write; `None` = it does."""

    def admit(self, endpoint: str, request: Request, head: HTTPResult, epoch: int) -> None:
        """Note which cluster an answer came from.

        Raises:
            ClusterMismatchError: It is from another cluster.
        """

    async def explain(self, endpoint: str, ask: Ask) -> EtcdError | None:
        """Why an endpoint does not serve what was asked for."""


class Failover:
    """Carries requests to the first endpoint that answers.

    Args:
        pool: The endpoints.
        transport: The way to them.
        guard: What is known of the cluster.
        reporter: Told of what fails.
        check_redirect: Told the number of redirects in a row before each is followed; raises to refuse.
        repeat_writes: Whether plain writes go on to the next endpoint where their fate at one is unknown.

    Attributes:
        rediscovery: Finds the endpoints anew when all have failed, where they were discovered.
        on_use: Called once, when the next request is about to be sent.
    """

    def __init__(
        self,
        pool: EndpointPool,
        transport: Exchanger,
        guard: Guard,
        reporter: Reporter,
        *,
        check_redirect: Callable[[int], None] = at_most_ten,
        repeat_writes: bool = False,
    ) -> None:
        self._pool = pool
        self._transport = transport
        self._guard = guard
        self._reporter = reporter
        self._tally = reporter.tally
        self._redirects = Redirects(check_redirect, pool, reporter)
        self._repeat_writes = repeat_writes
        self.on_use: Callable[[], None] | None = None
        self.rediscovery: Rediscovery | None = None

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._transport.closed

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one endpoint."""
        return len(self._pool) > 1

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints, in the order in which a call would try them."""
        return self._pool.order()

    @property
    def pinned(self) -> Where:
        """Where calls go: the pinned endpoint, and the address that the last answer came from, if there are others."""
        endpoint = self._pool.pinned
        return endpoint, self._transport.address_of(endpoint)

    def elsewhere(self, endpoint: str, address: str | None) -> list[Where]:
        """Where else calls may go: the other endpoints, and the other addresses of this one's name."""
        others: list[Where] = [(other, None) for other in self._pool.order() if other != endpoint]
        if address is not None:
            others += [(endpoint, other) for other in self._transport.other_addresses(endpoint, address)]
        return others

    def take(self, found: list[str]) -> None:
        """Use endpoints that were found anew, the best first, if one of them is new."""
        if any(each not in self._pool for each in found):
            self._reporter.discovered(found)
            self._pool.give(found, ranked=True)

    def suspect(self, endpoint: str, address: str | None = None) -> None:
        """Begin elsewhere for a while: this endpoint, or this address of its name, did not answer a probe."""
        self._pool.failed(endpoint)
        if address is not None:
            self._transport.avoid(address)

    def call(self, request: Request, decode: Decoder[T]) -> Awaitable[T]:
        """Send a request, and decode its answer.

        Raises:
            APIError: The server refused it.
            InvalidResponseError: All that answered are no etcd, or do not serve this API.
            ClusterError: No endpoint answered.
            ClientClosedError: The client is closed.
        """
        self._tally.calls += 1
        return self._each(request, None, self._transport.exchange, decode)

    def open(
        self, make: Callable[[str], Request], check: Callable[[OpenStream, Request], OpenStream]
    ) -> Awaitable[OpenStream]:
        """Send a request, and return with the header of a good answer.

        Args:
            make: Makes the request for an endpoint.
            check: Returns a stream whose header is good, and raises what another one means.

        Raises:
            APIError: The server refused it.
            ClusterError: No endpoint answered.
            ClientClosedError: The client is closed.
        """
        return self._each(make(self._pool.pinned), make, self._transport.open, check)

    async def at(self, endpoint: str, request: Request, decode: Decoder[T], *, address: str | None = None) -> T:
        """Send a request to one endpoint and no other, with credentials only if it is one of this client's.

        Args:
            endpoint: The endpoint.
            request: What is asked.
            decode: Decodes the answer.
            address: Which address of the endpoint's name; `None` = any.

        Raises:
            APIError: The server refused it.
            ClusterError: It did not answer.
            ClientClosedError: The client is closed.
        """
        try:
            trusted = endpoint in self._pool
            result = await self._transport.exchange(endpoint, request, trusted=trusted, address=address)
            return decode(result, request)
        except UnauthorizedError as error:
            self._tell_who(error)
            raise
        except InvalidResponseError as error:
            raise error._as_outcome(str(request), [error._as_failure()]) from None
        except EndpointError as error:
            raise ClusterError(str(request), [error]) from error

    async def _each(
        self,
        request: Request,
        make: Callable[[str], Request] | None,
        send: Callable[[str, Request], Awaitable[A]],
        finish: Callable[[A, Request], T],
    ) -> T:
        if self.on_use is not None:
            begin, self.on_use = self.on_use, None
            begin()
        guard = self._guard
        way = Pass(self._pool)
        failures: list[EndpointError] = []
        told: EtcdError | None = None
        while (endpoint := way.next() or await self._discovered(way)) is not None:
            is_stranger = request.writes and endpoint in guard.strangers
            if is_stranger and (stranger := await self._passed_over(endpoint, request)):
                told = stranger
                continue
            request = request if make is None else make(endpoint)
            if failures:
                self._tally.retries += 1
            epoch = guard.epoch
            try:
                answer = await send(endpoint, request)
                try:
                    head = answer if isinstance(answer, HTTPResult) else answer.head
                    if 300 <= head.status < 400:
                        answer = await self._redirects.follow(send, endpoint, request, answer)
                        head = head_of(answer)
                    guard.admit(endpoint, request, head, epoch)
                    value = finish(answer, request)
                except BaseException:
                    drop(answer)
                    raise
            except EtcdError as error:
                self._tell_who(error)
                outcome = outcome_of(error, request)
                told = await self._explained(outcome, endpoint, request, error, told)
                step = self._note(outcome, way, endpoint, request, failures, error)
                if step is Step.RAISE:
                    raise
                if step is Step.GIVE_UP:
                    break
            else:
                if failures or self._pool.failing or self._reporter.failing:  # else there is nothing to heal
                    self._note(Outcome.ANSWERED, way, endpoint, request, failures)
                return value
        raise sum_up(request, failures, told)

    def _tell_who(self, error: EtcdError) -> None:
        """Have a refusal say as whom we have asked, which is nobody at another's endpoint."""
        if isinstance(error, UnauthorizedError):
            error._sent_as(self._transport.username if error.endpoint in self._pool else None)

    def _passed_over(self, endpoint: str, request: Request) -> Awaitable[EtcdError | None]:
        return self._guard.passes_over(endpoint, request, self._ask(endpoint, request))

    def _ask(self, endpoint: str, request: Request) -> Ask:
        """What an API may ask an endpoint for the sake of a request: each answer may take as long as its own."""
        return lambda question: self._transport.exchange(endpoint, question.within(request.timeout))

    async def _explained(
        self, outcome: Outcome, endpoint: str, request: Request, error: EtcdError, told: EtcdError | None
    ) -> EtcdError | None:
        """What the API's own knowledge says by now of a pass that brings nothing."""
        if outcome is Outcome.STRANGE:
            return error
        if outcome is Outcome.NOT_SERVED and told is None:
            return await self._guard.explain(endpoint, self._ask(endpoint, request))
        return told

    def _note(
        self,
        outcome: Outcome,
        way: Pass,
        endpoint: str,
        request: Request,
        failures: list[EndpointError],
        error: EtcdError | None = None,
    ) -> Step:
        """Judge an outcome, tell the pool whether the endpoint is healthy, and keep its failure."""
        place = Place.AFTER_FAILURES if failures else Place.FIRST
        judged = verdict(outcome, request, place, repeat_writes=self._repeat_writes)
        if judged.heals:
            if error is not None:
                self._transport.check_open()
            self._pool.answered(endpoint)
            if endpoint in self._reporter.failing:
                self._reporter.endpoint_recovered(endpoint)
            if judged.pins:
                self._pool.pin(endpoint)
        if judged.cools:
            way.failed(endpoint)
        if error is not None and judged.step in (Step.NEXT, Step.GIVE_UP):
            failure = failure_of(error, request, judged)
            failures.append(failure)
            self._reporter.endpoint_failed(request, failure)
            if failure.maybe_applied and judged.step is Step.NEXT:
                self._reporter.write_is_repeated(request, endpoint)
        return judged.step

    async def _discovered(self, way: Pass) -> str | None:
        """Look for other endpoints when all have failed, once a pass: the first of them; `None` where there is none."""
        rediscovery = self.rediscovery
        if rediscovery is None or way.has_searched:
            return None
        way.has_searched = True
        await rediscovery.search()
        self._transport.check_open()
        return None if rediscovery.over else way.next()


class Caller(Protocol):
    """What a facade needs of a client: its failover."""

    _failover: Failover
