"""The keys of a cluster, spoken to in v2: each call a request, its answer, and what both say of the cluster."""

from __future__ import annotations

from collections.abc import Awaitable
from copy import copy
from typing import TYPE_CHECKING

from .._net.failover import Decoder, Failover
from .._net.reporter import Reporter
from .._net.request import MANY_SLASHES, Request, build, quote_path
from .._watching.steps import Answered
from .._watching.surroundings import Surroundings
from ..errors import (
    APIError,
    ClusterError,
    ConnectError,
    HeaderTimeoutError,
    InvalidResponseError,
    KeyNotFoundError,
    NotDirError,
)
from ..models import Health, HTTPResult, Response
from . import requests, responses
from .census import Subtree
from .identity import Identity

if TYPE_CHECKING:
    from .._watching.driver import Driver
    from .._watching.steps import Seen
    from .watch_machine import WatchMachine

HEALTH = build("GET", "/health", urgent=True)
NOTHING = build("GET", f"{requests.PREFIX}/_nothing", urgent=True)
LEADER = build("GET", "/v2/members/leader", urgent=True)


def surroundings_of(
    failover: Failover,
    identity: Identity,
    reporter: Reporter,
    *,
    probe_interval: float,
    header_timeout: float | None,
) -> Surroundings:
    """What the watches of a client share, spoken to in v2: probes, looks and questions are its own requests."""

    async def probe(endpoint: str, address: str | None, thorough: bool) -> Health:
        """Ask the member for its leader, which costs the cluster nothing; for its health where that is in doubt."""
        if not thorough:
            try:
                health = await failover.at(endpoint, LEADER, responses.leader, address=address)
            except (ClusterError, InvalidResponseError) as error:
                if isinstance(error, ClusterError) and isinstance(error.errors[0], (ConnectError, HeaderTimeoutError)):
                    raise
                health = None  # servers that emulate v2 break off the connection
            if health is not None:
                return health
        return await failover.at(endpoint, HEALTH, responses.health, address=address)

    async def answers(endpoint: str) -> None:
        """A read with credentials, which takes as long as the registration of a wait; whatever it says."""
        await failover.at(endpoint, NOTHING, responses.raw)

    def call(request: Request) -> Awaitable[Response]:
        return failover.call(request, responses.keys)

    async def read(path: str, recursive: bool, quorum: bool) -> Seen:
        try:
            response = await identity.read(call, requests.read(path, recursive, quorum=quorum))
        except (KeyNotFoundError, NotDirError) as absent:
            return absent.index, Subtree(None, recursive, identity.cluster, identity.life)
        return response.index, Subtree(response.node, recursive, identity.cluster, identity.life)

    async def ask(path: str) -> Answered:
        index = await identity.ask(call, requests.read(path, quorum=True))
        return Answered(index, identity.life, identity.cluster)

    shared = Surroundings(
        failover, probe, answers, read, ask, reporter, probe_interval=probe_interval, header_timeout=header_timeout
    )
    identity.on_end_of_life = shared.begin_anew
    return shared


class KeysEngine:
    """Behind `KeysAPI`: takes arguments that were checked.

    Args:
        failover: Carries the requests.
        identity: What is known of the cluster.
        surroundings: What all watches share.
        prefix: Where the server has its keys.
    """

    def __init__(self, failover: Failover, identity: Identity, surroundings: Surroundings, prefix: str) -> None:
        self._failover = failover
        self._identity = identity
        self._surroundings = surroundings
        self._timeout: float | None = None
        self._prefix = quote_path(prefix, "key").rstrip("/")
        self._root = MANY_SLASHES.sub("/", f"/{prefix}").rstrip("/").partition(requests.PREFIX)[2]

    def within(self, seconds: float) -> KeysEngine:
        """The same keys, with at most so many seconds for each try."""
        hurried = copy(self)
        hurried._timeout = seconds if self._timeout is None else min(seconds, self._timeout)
        return hurried

    def get(self, key: str, recursive: bool, sort: bool, quorum: bool) -> Awaitable[Response]:
        """Read a key, or list a directory."""
        return self._identity.read(self._call, requests.read(self._path(key), recursive, sort, quorum))

    def set(
        self,
        key: str,
        value: str,
        ttl: int | None,
        prev_value: str | None,
        prev_index: int | None,
        prev_exist: bool | None,
        no_value_on_success: bool,
    ) -> Awaitable[Response]:
        """Write a key, on a condition perhaps."""
        path = self._path(key)
        return self._write(requests.put(path, value, ttl, prev_value, prev_index, prev_exist, no_value_on_success))

    def create_in_order(self, directory: str, value: str, ttl: int | None) -> Awaitable[Response]:
        """Write a new key whose name the server makes."""
        return self._write(requests.post(self._path(directory), value, ttl))

    def refresh(self, key: str, ttl: int, prev_value: str | None, prev_index: int | None) -> Awaitable[Response]:
        """Give a key a new TTL, on a condition perhaps."""
        return self._write(requests.refresh(self._path(key), ttl, prev_value, prev_index))

    def mkdir(self, key: str, ttl: int | None, prev_exist: bool | None) -> Awaitable[Response]:
        """Make a directory."""
        return self._write(requests.mkdir(self._path(key), ttl, prev_exist))

    def delete(
        self, key: str, recursive: bool, dir: bool, prev_value: str | None, prev_index: int | None
    ) -> Awaitable[Response]:
        """Delete a key, on a condition perhaps."""
        return self._write(requests.delete(self._path(key), recursive, dir, prev_value, prev_index))

    def watch(self, key: str, recursive: bool, after_index: int | None, resync: bool) -> tuple[Driver, WatchMachine]:
        """Watch a key; nothing is sent yet. What only watches need is loaded with the first of them."""
        from .._watching.driver import Driver
        from .position import Position
        from .watch_machine import WatchMachine
        from .watching import WatchSpeaker

        path = self._path(key)
        requests.wait(path, True, 2**63, stream=True)  # the longest that may be sent later
        position = Position(f"{self._root}/{key}", recursive, after_index)
        shared = self._surroundings
        machine = WatchMachine(position, resync)
        speaker = WatchSpeaker(self._failover, self._identity, shared.looks, path, recursive, position)
        return Driver(shared, machine, speaker), machine

    def _path(self, key: str) -> str:
        return self._prefix + quote_path(key, "key")

    def _call(self, request: Request, decode: Decoder[Response] = responses.keys) -> Awaitable[Response]:
        if self._timeout is not None:
            request = request.within(self._timeout)
        return self._failover.call(request, decode)

    def _write(self, request: Request) -> Awaitable[Response]:
        return self._call(request, self._written)

    def _written(self, result: HTTPResult, request: object) -> Response:
        """The answer of a write, and what it says of how far the cluster has come."""
        try:
            response = responses.keys(result, request)
        except APIError as refusal:
            self._identity.reached(refusal.index)
            raise
        self._identity.reached(response.index, response.raft_index, response.raft_term)
        return response
