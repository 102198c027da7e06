"""Statistics: of the member that answers, of the leader, of a store."""

from __future__ import annotations

from ._net.endpoints import parse_endpoint
from ._net.failover import Caller
from ._v2 import cluster
from .errors import APIError, InvalidEndpointError
from .models import LeaderStats, SelfStats, StoreStats

__all__ = ["StatsAPI"]


class StatsAPI:
    """Statistics of the cluster; `client.stats`. They are open to everyone, and counted since a member's start.

    Examples:
        >>> (await client.stats.store()).watchers
        0
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def self(self) -> SelfStats:
        """What the member that answers says of itself.

        Raises:
            ClusterError: No endpoint answered.
        """
        return await self._failover.call(cluster.SELF_STATS, cluster.self_stats)

    async def leader(self) -> LeaderStats:
        """What the leader knows of its followers. Only the leader answers, so it is looked up where need be.

        Raises:
            APIError: The member asked is not the leader, and the leader has no client URL that can be used.
            ClusterError: No endpoint answered, or there is no leader.
        """
        try:
            return await self._failover.call(cluster.LEADER_STATS, cluster.leader_stats)
        except APIError as refusal:
            if refusal.status != 403:
                raise
            leader = await self._failover.call(cluster.LEADER, cluster.member)
            for url in leader.client_urls:
                try:
                    endpoint = parse_endpoint(url)
                except InvalidEndpointError:
                    continue
                return await self._failover.at(endpoint, cluster.LEADER_STATS, cluster.leader_stats)
            raise

    async def store(self) -> StoreStats:
        """How often the operations of the member's store succeeded and failed, and its open watches.

        Raises:
            ClusterError: No endpoint answered.
        """
        return await self._failover.call(cluster.STORE_STATS, cluster.store_stats)
