"""Which cluster this is, and how far it has come: no answer of another cluster, and none from back in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from .._net.failover import Ask, Decoder
from .._net.reporter import Reporter
from .._net.request import Request, build
from ..errors import (
    APIError,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    ConnectionLostError,
    EtcdError,
    InvalidResponseError,
    KeyNotFoundError,
    NotDirError,
    V2DisabledError,
)
from ..models import HTTPResult, Response, Version
from . import requests, responses

ASKED_AGAIN_AFTER = 1.0
"""Seconds between two questions to an endpoint that answered for another cluster, whether it still does."""

WHOLE_HISTORY = (3, 1)
"""The first version whose recursive waits leave out nothing of the history."""

_LEADER = build("GET", "/v2/members/leader")
_VERSION = build("GET", "/version")
_PEERS = build("GET", "/members")
_NOTHING = build("GET", f"{requests.PREFIX}/_nothing")

T = TypeVar("T")

Call = Callable[[Request], Awaitable[Response]]


class _Marks(NamedTuple):
    """How far the cluster has come, as it was known at a moment."""

    era: int
    high_water_mark: int
    raft_index: int
    raft_term: int


class Identity:
    """What a client knows of the cluster behind its endpoints.

    Args:
        reporter: Told of answers that are older than what was seen.

    Attributes:
        cluster: The cluster's ID; empty before the first answer that names one.
        strangers: The endpoints that answered for another cluster, and its ID; no write goes there.
        high_water_mark: The highest index that was seen of it.
        epoch: How often the cluster was forgotten.
        life: How often its store has begun anew, as far as an answer with quorum has shown.
        on_end_of_life: Called when it has.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._asked_again: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._raft_index = 0
        self._raft_term = 0
        self.cluster = ""
        self.strangers: dict[str, str] = {}
        self.high_water_mark = 0
        self.epoch = 0
        self.life = 0
        self._era = 0
        self.on_end_of_life: Callable[[], None] | None = None
        self._is_old: bool | None = None
        self._asking_age = asyncio.Lock()

    def forget(self) -> None:
        """Know nothing of a cluster: the next to answer is the one."""
        self.cluster = ""
        self.strangers.clear()
        self._asked_again.clear()
        self._is_old = None
        self.epoch += 1
        self._era += 1
        self.high_water_mark = self._raft_index = self._raft_term = 0

    def reached(self, index: int, raft_index: int = 0, raft_term: int = 0) -> None:
        """Take note of how far the cluster has come."""
        if index > self.high_water_mark:
            self.high_water_mark = index
        if raft_index > self._raft_index:
            self._raft_index = raft_index
        if raft_term > self._raft_term:
            self._raft_term = raft_term

    def doubts(self, index: int, raft_index: int, raft_term: int) -> bool:
        """Whether an answer is from a member that lags, or from another life of the store: the quorum knows."""
        marks = (index, self.high_water_mark), (raft_index, self._raft_index), (raft_term, self._raft_term)
        return any(0 < now < seen for now, seen in marks)

    async def ask(self, call: Call, request: Request) -> int:
        """The index that the cluster has come to, by a read with quorum; judges whether its life has ended.

        Raises:
            EtcdError: As `call` does, but for an absence.
        """
        marks = self._marks()
        try:
            response = await call(request)
        except (KeyNotFoundError, NotDirError) as absent:
            self._judge(marks, absent.index, 0, 0)
            return absent.index
        self._judge(marks, response.index, response.raft_index, response.raft_term)
        return response.index

    async def is_old(self, ask: Callable[[], Awaitable[Version]]) -> bool:
        """Whether members may be of a version before 3.1; where none says so now, they may. Asked for once."""
        async with self._asking_age:
            if self._is_old is None:
                try:
                    version = await ask()
                except ClientClosedError:
                    raise
                except ClusterError:
                    return True
                except EtcdError:  # something in between does not let that through: as most are
                    self._is_old = False
                else:
                    self._is_old = min(map(_version, (version.server, version.cluster))) < WHOLE_HISTORY
            return self._is_old

    def _marks(self) -> _Marks:
        return _Marks(self._era, self.high_water_mark, self._raft_index, self._raft_term)

    def _judge(self, seen: _Marks, index: int, raft_index: int, raft_term: int) -> None:
        """What an answer with quorum says: below what was seen before it was asked for, the store has begun anew."""
        ended = 0 < index < seen.high_water_mark or 0 < raft_index < seen.raft_index or 0 < raft_term < seen.raft_term
        if self._era != seen.era:  # it was asked of what is no more
            return
        if not ended:
            self.reached(index, raft_index, raft_term)
            return
        self.high_water_mark, self._raft_index, self._raft_term = index, raft_index, raft_term
        self.life += 1
        self._era += 1
        self._reporter.cluster_life_ended(self.cluster, index, seen.high_water_mark)
        if self.on_end_of_life is not None:
            self.on_end_of_life()

    # --- what the loop over endpoints asks ---------------------------------------------------------------------------

    async def passes_over(self, endpoint: str, request: Request, ask: Ask) -> EtcdError | None:
        """Why a stranger does not get a write: it is asked again by a cheap read, at most once a second."""
        async with self._asking.setdefault(endpoint, asyncio.Lock()):  # writes that come at once hear of one answer
            asked_at = self._asked_again.get(endpoint)
            if endpoint in self.strangers and (asked_at is None or time.monotonic() >= asked_at + ASKED_AGAIN_AFTER):
                await self._ask_again(endpoint, request, ask)
                self._asked_again[endpoint] = time.monotonic()
        stranger = self.strangers.get(endpoint)
        return None if stranger is None else ClusterMismatchError(endpoint, self.cluster, stranger, str(request))

    async def _ask_again(self, endpoint: str, request: Request, ask: Ask) -> None:
        """Ask an endpoint who it is: for its leader, and for a key where servers that emulate v2 break that off."""
        epoch = self.epoch
        for question in (_LEADER, _NOTHING):
            try:
                head = await ask(question)
                self.admit(endpoint, request, head, epoch)
            except ClientClosedError:
                raise
            except ConnectionLostError:
                continue
            except EtcdError:
                return  # it is a stranger still, or does not answer
            if responses.CLUSTER_ID in head.headers:
                return

    def admit(self, endpoint: str, request: Request, head: HTTPResult, epoch: int) -> None:
        """Take note of whom an answer is from.

        Raises:
            ClusterMismatchError: It is from another cluster.
        """
        cluster = head.headers.get(responses.CLUSTER_ID)
        if cluster == self.cluster:
            if self.strangers:
                self.strangers.pop(endpoint, None)
        elif cluster and epoch == self.epoch:
            if self.cluster:
                self.strangers[endpoint] = cluster
                raise ClusterMismatchError(head.endpoint, self.cluster, cluster, str(request))
            self.cluster = cluster

    async def explain(self, endpoint: str, ask: Ask) -> EtcdError | None:
        """The error for a path of v2 that was not found, if it is an etcd that says so."""
        version = await self._answer(ask, _VERSION, responses.version)
        if version is None:
            return None
        if await self._answer(ask, _PEERS, responses.peers):
            words = "it is the peer port of an etcd, for its members alone; clients have another, mostly 2379"
            return InvalidResponseError(endpoint, words, status=404)
        return V2DisabledError(endpoint, version.server)

    @staticmethod
    async def _answer(ask: Ask, question: Request, decode: Decoder[T]) -> T | None:
        """What an endpoint says; `None` = nothing that can be read."""
        try:
            return decode(await ask(question), question)
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
        mark, era = self.high_water_mark, self._era
        error: APIError | None = None
        raft_index = raft_term = 0
        try:
            response = await call(request)
            index, raft_index, raft_term = response.index, response.raft_index, response.raft_term
        except APIError as refusal:
            error, index = refusal, refusal.index
        if era == self._era:  # or it tells nothing of the cluster that is there now
            if 0 < index < mark and (again := requests.with_quorum(request)) is not None:
                return await self._read_again(call, again, index, mark)
            self.reached(index, raft_index, raft_term)
        if error is not None:
            raise error
        return response

    async def _read_again(self, call: Call, request: Request, index: int, mark: int) -> Response:
        self._reporter.answer_was_older(request, index, mark)
        marks = self._marks()._replace(high_water_mark=mark)
        try:
            response = await call(request)
        except APIError as refusal:
            self._judge(marks, refusal.index, 0, 0)
            raise
        self._judge(marks, response.index, response.raft_index, response.raft_term)
        return response


def _version(text: str) -> tuple[int, ...]:
    """A version to compare; none that is known, soon after the start of a cluster, is as new as any."""
    parts = text.split(".")[:2]
    return tuple(map(int, parts)) if all(map(str.isdecimal, parts)) else WHOLE_HISTORY
