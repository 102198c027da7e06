"""Statistics: of the member that answers, of the leader, of a store."""

from __future__ import annotations

from typing import Protocol

import msgspec

from . import _response
from ._endpoints import parse_endpoint
from ._failover import Failover
from ._request import build
from .errors import APIError, InvalidEndpointError
from .members import MembersAPI
from .models import HTTPResult, LeaderStats, SelfStats, StoreStats

__all__ = ["StatsAPI"]

PATH = "/v2/stats"

_decode_self = msgspec.json.Decoder(SelfStats).decode
_decode_leader = msgspec.json.Decoder(LeaderStats).decode
_decode_store = msgspec.json.Decoder(StoreStats).decode


class Caller(Protocol):
    """What the statistics need of a client."""

    _failover: Failover


class StatsAPI:
    """Statistics of the cluster; `client.stats`. They are open to everyone, and counted since a member's start.

    Example:
        >>> (await client.stats.store()).watchers
        0
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover
        self._members = MembersAPI(client)

    async def self(self) -> SelfStats:
        """What the member that answers says of itself.

        Raises:
            ClusterError: No endpoint answered.
        """
        return await self._failover.call(build("GET", f"{PATH}/self"), _self)

    async def leader(self) -> LeaderStats:
        """What the leader knows of its followers. Only the leader answers, so it is looked up where need be.

        Raises:
            APIError: The member asked is not the leader, and the leader has no client URL that can be used.
            ClusterError: No endpoint answered, or there is no leader.
        """
        request = build("GET", f"{PATH}/leader")
        try:
            return await self._failover.call(request, _leader)
        except APIError as refusal:
            if refusal.status != 403:
                raise
            for url in (await self._members.leader()).client_urls:
                try:
                    return await self._failover.at(parse_endpoint(url), request, _leader)
                except InvalidEndpointError:
                    continue
            raise

    async def store(self) -> StoreStats:
        """How often the operations of the member's store succeeded and failed, and its open watches.

        Raises:
            ClusterError: No endpoint answered.
        """
        return await self._failover.call(build("GET", f"{PATH}/store"), _store)


def _succeeded(result: HTTPResult, request: object) -> HTTPResult:
    if result.status != 200:
        raise _response.refusal(result, request, {})
    return result


def _self(result: HTTPResult, request: object) -> SelfStats:
    stats: SelfStats = _response.decode(_decode_self, _succeeded(result, request))
    return stats


def _leader(result: HTTPResult, request: object) -> LeaderStats:
    stats: LeaderStats = _response.decode(_decode_leader, _succeeded(result, request))
    return stats


def _store(result: HTTPResult, request: object) -> StoreStats:
    stats: StoreStats = _response.decode(_decode_store, _succeeded(result, request))
    return stats
