"""Which cluster this is, and how far it has come: no answer of another cluster, and none from back in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .._net.failover import Ask
from .._net.reporter import Reporter
from .._net.request import Request, build
from ..errors import APIError, ClientClosedError, ClusterMismatchError, EtcdError, V2DisabledError
from ..models import HTTPResult, Response
from . import requests, responses

Call = Callable[[Request], Awaitable[Response]]


class Identity:
    """What a client knows of the cluster behind its endpoints.

    Args:
        reporter: Told of answers that are older than what was seen.

    Attributes:
        cluster: The cluster's ID; empty before the first answer that names one.
        high_water_mark: The highest index that was seen of it.
        epoch: How often the cluster was forgotten.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._strangers: dict[str, str] = {}
        self.cluster = ""
        self.high_water_mark = 0
        self.epoch = 0

    def forget(self) -> None:
        """Know nothing of a cluster: the next to answer is the one."""
        self.cluster = ""
        self._strangers.clear()
        self.epoch += 1
        self.high_water_mark = 0

    def reached(self, index: int) -> None:
        """Take note of an index that the cluster has reached."""
        if index > self.high_water_mark:
            self.high_water_mark = index

    # --- what the loop over endpoints asks ---------------------------------------------------------------------------

    def passes_over(self, endpoint: str, request: Request) -> EtcdError | None:
        """Why an endpoint is not asked at all: no write goes to one that has answered for another cluster."""
        if self._strangers and request.writes and (stranger := self._strangers.get(endpoint)) is not None:
            return ClusterMismatchError(endpoint, self.cluster, stranger, str(request))
        return None

    def admit(self, endpoint: str, request: Request, head: HTTPResult, epoch: int) -> None:
        """Take note of whom an answer is from.

        Raises:
            ClusterMismatchError: It is from another cluster.
        """
        cluster = head.headers.get(responses.CLUSTER_ID)
        if cluster == self.cluster:
            if self._strangers:
                self._strangers.pop(endpoint, None)
        elif cluster and epoch == self.epoch:
            if self.cluster:
                self._strangers[endpoint] = cluster
                raise ClusterMismatchError(head.endpoint, self.cluster, cluster, str(request))
            self.cluster = cluster

    async def explain(self, endpoint: str, ask: Ask) -> EtcdError | None:
        """The error for a path of v2 that was not found, if it is an etcd that says so."""
        try:
            result = await ask(build("GET", "/version"))
            return V2DisabledError(endpoint, responses.version(result, "GET /version").server)
        except ClientClosedError:
            raise
        except EtcdError:
            return None

    # --- never back in time ------------------------------------------------------------------------------------------

    async def read(self, call: Call, request: Request) -> Response:
        """A read, never back in time: an answer older than what this client has seen is asked for with quorum.

        Args:
            call: Sends a request, and decodes its answer.
            request: What is read.

        Raises:
            EtcdError: As `call` does.
        """
        mark = self.high_water_mark
        error: APIError | None = None
        try:
            response = await call(request)
            index = response.index
            if index >= mark:
                if index > self.high_water_mark:
                    self.high_water_mark = index
                return response
        except APIError as refusal:
            error, index = refusal, refusal.index
        if 0 < index < mark and (again := requests.with_quorum(request)) is not None:
            return await self._read_again(call, again, index, mark)
        self.reached(index)
        if error is not None:
            raise error
        return response

    async def _read_again(self, call: Call, request: Request, index: int, mark: int) -> Response:
        self._reporter.answer_was_older(request, index, mark)
        try:
            response = await call(request)
        except APIError as refusal:
            self._settle(refusal.index, mark)
            raise
        self._settle(response.index, mark)
        return response

    def _settle(self, index: int, mark: int) -> None:
        if 0 < index < mark:  # even with quorum: the cluster was made anew from older data
            self.high_water_mark = index
        else:
            self.reached(index)
