"""The keys of a cluster, spoken to in v2: each call a request, its answer, and what both say of the cluster."""

from __future__ import annotations

from collections.abc import Awaitable

from .._net.failover import Failover
from .._net.reporter import Reporter
from .._net.request import MANY_SLASHES, Request, build, quote_path
from .._watching.surroundings import Surroundings
from ..errors import APIError, KeyNotFoundError, NotDirError
from ..models import Health, Node, Response
from . import requests, responses
from .identity import Identity
from .position import Position
from .watch_engine import WatchEngine

HEALTH = build("GET", "/health")


def surroundings_of(
    failover: Failover,
    identity: Identity,
    reporter: Reporter,
    *,
    probe_interval: float,
    header_timeout: float | None,
) -> Surroundings:
    """What the watches of a client share, spoken to in v2: probes and looks are its own requests."""

    def probe(endpoint: str) -> Awaitable[Health]:
        return failover.at(endpoint, HEALTH, responses.health)

    async def look(path: str, recursive: bool) -> tuple[int, Node | None]:
        try:
            response = await identity.read(
                lambda request: failover.call(request, responses.keys), requests.read(path, recursive)
            )
        except (KeyNotFoundError, NotDirError) as absent:
            return absent.index, None
        return response.index, response.node

    return Surroundings(failover, probe, look, reporter, probe_interval=probe_interval, header_timeout=header_timeout)


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
        self._prefix = quote_path(prefix, "key").rstrip("/")
        self._root = MANY_SLASHES.sub("/", f"/{prefix}").rstrip("/").partition(requests.PREFIX)[2]

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

    def refresh(self, key: str, ttl: int) -> Awaitable[Response]:
        """Give a key a new TTL."""
        return self._write(requests.refresh(self._path(key), ttl))

    def mkdir(self, key: str, ttl: int | None, prev_exist: bool | None) -> Awaitable[Response]:
        """Make a directory."""
        return self._write(requests.mkdir(self._path(key), ttl, prev_exist))

    def delete(
        self, key: str, recursive: bool, dir: bool, prev_value: str | None, prev_index: int | None
    ) -> Awaitable[Response]:
        """Delete a key, on a condition perhaps."""
        return self._write(requests.delete(self._path(key), recursive, dir, prev_value, prev_index))

    def watch(self, key: str, recursive: bool, after_index: int | None, resync: bool) -> WatchEngine:
        """Watch a key; nothing is sent yet."""
        path = self._path(key)
        requests.wait(path, True, 2**63, stream=True)  # the longest that may be sent later
        position = Position(f"{self._root}/{key}", recursive, after_index)
        return WatchEngine(self._surroundings, self._identity, path, recursive, position, resync)

    def _path(self, key: str) -> str:
        return self._prefix + quote_path(key, "key")

    def _call(self, request: Request) -> Awaitable[Response]:
        return self._failover.call(request, responses.keys)

    async def _write(self, request: Request) -> Response:
        try:
            response = await self._failover.call(request, responses.keys)
        except APIError as refusal:
            self._identity.reached(refusal.index)
            raise
        self._identity.reached(response.index)
        return response
