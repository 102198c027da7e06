"""The members of the cluster: list, add, remove, update, leader."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Struct

from . import _response
from ._failover import Failover
from ._request import Replay, build, check_text, quote_segment
from .errors import APIError, EtcdError, MemberConflictError, MemberNotFoundError, ServerError
from .models import HTTPResult, Member

__all__ = ["MembersAPI"]

PATH = "/v2/members"

_BY_STATUS: dict[int, type[APIError]] = {
    404: MemberNotFoundError,
    409: MemberConflictError,
    410: MemberNotFoundError,
}


class _Members(Struct):
    members: tuple[Member, ...] | None = ()


_decode_members = msgspec.json.Decoder(_Members).decode
_decode_member = msgspec.json.Decoder(Member).decode


class Caller(Protocol):
    """What the members need of a client."""

    _failover: Failover


class MembersAPI:
    """The members of the cluster; `client.members`.

    Every call raises `ClusterError` where no endpoint answered, and `UnauthorizedError` where auth is on and the user
    is not root (`list` and `leader` are open to everyone). An unhealthy cluster answers 500 without a reason.

    Example:
        >>> for member in await client.members.list():
        ...     print(member.name, member.client_urls)
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[Member]:
        """All members, in no particular order."""
        return await self._failover.call(build("GET", PATH), _members)

    async def leader(self) -> Member:
        """The leader.

        Raises:
            ClusterError: There is none at the moment (`NoLeaderError` in its `errors`).
        """
        return await self._failover.call(build("GET", f"{PATH}/leader"), _member)

    async def add(self, *peer_urls: str) -> Member:
        """Add a member, which is to be started then with `--initial-cluster-state existing`. Sent at most once.

        Args:
            peer_urls: Where the other members will reach it, at least one.

        Raises:
            MemberConflictError: Another member has one of these URLs.
            ClusterError: The cluster can't add one now: etcd 3.1 and later answer 500 while a member is unhealthy,
                has not started, or has been connected for less than 5 s; they do so for a URL in conflict, too.
        """
        request = build("POST", PATH, json=_peer_urls(peer_urls), replay=Replay.IF_UNSENT)
        return await self._failover.call(request, _member)

    async def remove(self, member_id: str) -> None:
        """Remove a member. One that was removed before is no error.

        Args:
            member_id: The member's ID.

        Raises:
            MemberNotFoundError: There never was such a member.
        """
        await self._failover.call(build("DELETE", _path(member_id)), _removed)

    async def update(self, member_id: str, *peer_urls: str) -> None:
        """Change where the other members reach a member.

        Args:
            member_id: The member's ID.
            peer_urls: All of its peer URLs, at least one.

        Raises:
            MemberNotFoundError: There is no such member.
            MemberConflictError: Another member has one of these URLs.
        """
        await self._failover.call(build("PUT", _path(member_id), json=_peer_urls(peer_urls)), _done)


def _path(member_id: str) -> str:
    return f"{PATH}/{quote_segment('a member ID', member_id)}"


def _peer_urls(urls: tuple[str, ...]) -> bytes:
    if not urls:
        raise ValueError("at least one peer URL is needed, as in 'http://10.0.0.1:2380'")
    return msgspec.json.encode({"peerURLs": [check_text("a peer URL", url) for url in urls]})


def _members(result: HTTPResult, request: object) -> list[Member]:
    if result.status != 200:
        raise _refusal(result, request)
    return list(_response.decode(_decode_members, result).members or ())


def _member(result: HTTPResult, request: object) -> Member:
    if result.status not in (200, 201):
        raise _refusal(result, request)
    member: Member = _response.decode(_decode_member, result)
    return member


def _removed(result: HTTPResult, request: object) -> None:
    if result.status != 410:
        _done(result, request)


def _done(result: HTTPResult, request: object) -> None:
    if result.status not in (200, 204):
        raise _refusal(result, request)


def _refusal(result: HTTPResult, request: object) -> EtcdError:
    error = _response.refusal(result, request, _BY_STATUS)
    if isinstance(error, ServerError) and not str(request).startswith("GET"):
        hint = "the cluster is unhealthy, has an unstarted member, or one that connected less than 5 s ago"
        return ServerError(error.endpoint, f"{error.reason}; perhaps {hint}", status=error.status)
    return error
