"""The members of the cluster: list, add, remove, update, leader."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ._net.failover import Caller
from ._net.request import check_text
from ._v2 import cluster
from .errors import ClusterError, EtcdError, NoLeaderError, ServerError
from .models import Member

__all__ = ["MembersAPI"]


class MembersAPI:
    """The members of the cluster; `client.members`.

    Every call raises `ClusterError` where no endpoint answered, and `UnauthorizedError` where auth is on and the user
    is not root (`list` and `leader` are open to everyone). An unhealthy cluster answers 500 without a reason.

    Examples:
        >>> for member in await client.members.list():
        ...     print(member.name, member.client_urls)
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[Member]:
        """All members, in no particular order."""
        return await self._failover.call(cluster.LIST, cluster.members)

    async def leader(self) -> Member:
        """The leader.

        Raises:
            ClusterError: There is none at the moment (`NoLeaderError` in its `errors`).
        """
        return await self._failover.call(cluster.LEADER, cluster.member)

    async def add(self, *peer_urls: str) -> Member:
        """Add a member, which is to be started then with `--initial-cluster-state existing`. Sent at most once.

        Args:
            peer_urls: Where the other members will reach it, at least one.

        Raises:
            MemberConflictError: Another member has one of these URLs.
            ClusterError: The cluster can't add one now: etcd 3.1 and later answer 500 while a member is unhealthy,
                has not started, or has been connected for less than 5 s; they do so for a URL in conflict, too. The
                message says whether the list of members holds it then, by one more read.
        """
        urls = _check_peer_urls(peer_urls)
        try:
            return await self._failover.call(cluster.add(urls), cluster.member)
        except ClusterError as error:
            await self._tell_of_the_list(error, lambda member: set(member.peer_urls) == set(urls))
            raise

    async def remove(self, member_id: str) -> None:
        """Remove a member. One that was removed before is no error.

        Args:
            member_id: The member's ID.

        Raises:
            MemberNotFoundError: There never was such a member.
            ClusterError: As with `add()`.
        """
        try:
            await self._failover.call(cluster.remove(member_id), cluster.removed)
        except ClusterError as error:
            await self._tell_of_the_list(error, lambda member: member.id == member_id)
            raise

    async def update(self, member_id: str, *peer_urls: str) -> None:
        """Change where the other members reach a member.

        Args:
            member_id: The member's ID.
            peer_urls: All of its peer URLs, at least one.

        Raises:
            MemberNotFoundError: There is no such member.
            MemberConflictError: Another member has one of these URLs.
        """
        await self._failover.call(cluster.update(member_id, _check_peer_urls(peer_urls)), cluster.done)

    async def _tell_of_the_list(self, error: ClusterError, is_it: Callable[[Member], bool]) -> None:
        """Have an error say whether the list holds a member, where a 5xx leaves open whether it has changed."""
        if not any(isinstance(each, (ServerError, NoLeaderError)) and each.maybe_applied for each in error.errors):
            return
        with suppress(EtcdError):
            found = [member.id for member in await self.list() if is_it(member)]
            error._add_words(
                f"the list of members holds it, as {found[0]}" if found else "the list of members does not hold it"
            )


def _check_peer_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    if not urls:
        raise ValueError("at least one peer URL is needed, as in 'http://10.0.0.1:2380'")
    return tuple(check_text("a peer URL", url) for url in urls)
