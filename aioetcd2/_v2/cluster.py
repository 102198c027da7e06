"""The members and statistics of a cluster, in v2: requests, and decoders of their answers."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from .._net.request import Replay, Request, build, quote_segment
from ..errors import APIError, EtcdError, MemberConflictError, MemberNotFoundError, ServerError
from ..models import HTTPResult, LeaderStats, Member, SelfStats, StoreStats
from . import responses

PATH = "/v2/members"
STATS = "/v2/stats"

_BY_STATUS: dict[int, type[APIError]] = {
    404: MemberNotFoundError,
    409: MemberConflictError,
    410: MemberNotFoundError,
}


class _Members(Struct):
    members: tuple[Member, ...] | None = ()


_decode_members = msgspec.json.Decoder(_Members).decode
_decode_member = msgspec.json.Decoder(Member).decode
_decode_self = msgspec.json.Decoder(SelfStats).decode
_decode_leader = msgspec.json.Decoder(LeaderStats).decode
_decode_store = msgspec.json.Decoder(StoreStats).decode

LIST = build("GET", PATH)
LEADER = build("GET", f"{PATH}/leader")
SELF_STATS = build("GET", f"{STATS}/self")
LEADER_STATS = build("GET", f"{STATS}/leader")
STORE_STATS = build("GET", f"{STATS}/store")


def add(peer_urls: tuple[str, ...]) -> Request:
    """A new member."""
    return build("POST", PATH, json=_peer_urls(peer_urls))


def remove(member_id: str) -> Request:
    """The removal of a member."""
    return build("DELETE", _path(member_id), replay=Replay.IF_ALLOWED)


def update(member_id: str, peer_urls: tuple[str, ...]) -> Request:
    """New peer URLs for a member."""
    return build("PUT", _path(member_id), json=_peer_urls(peer_urls), replay=Replay.IF_ALLOWED)


def members(result: HTTPResult, request: object) -> list[Member]:
    """The members, from the answer of a list."""
    if result.status != 200:
        raise _refusal(result, request)
    return list(responses.decode(_decode_members, result).members or ())


def member(result: HTTPResult, request: object) -> Member:
    """The member that an answer holds."""
    if result.status not in (200, 201):
        raise _refusal(result, request)
    found: Member = responses.decode(_decode_member, result)
    return found


def removed(result: HTTPResult, request: object) -> None:
    """Check the answer of a removal; a member that was removed before is no error."""
    if result.status != 410:
        done(result, request)


def done(result: HTTPResult, request: object) -> None:
    """Check an answer that only says that it is done."""
    if result.status not in (200, 204):
        raise _refusal(result, request)


def self_stats(result: HTTPResult, request: object) -> SelfStats:
    """What a member says of itself."""
    stats: SelfStats = responses.decode(_decode_self, _succeeded(result, request))
    return stats


def leader_stats(result: HTTPResult, request: object) -> LeaderStats:
    """What the leader says of its followers."""
    stats: LeaderStats = responses.decode(_decode_leader, _succeeded(result, request))
    return stats


def store_stats(result: HTTPResult, request: object) -> StoreStats:
    """What a member says of its store."""
    stats: StoreStats = responses.decode(_decode_store, _succeeded(result, request))
    return stats


def _path(member_id: str) -> str:
    return f"{PATH}/{quote_segment('a member ID', member_id)}"


def _peer_urls(urls: tuple[str, ...]) -> bytes:
    return msgspec.json.encode({"peerURLs": urls})


def _refusal(result: HTTPResult, request: object) -> EtcdError:
    error = responses.refusal(result, request, _BY_STATUS)
    if isinstance(error, ServerError) and not str(request).startswith("GET"):
        hint = "the cluster is unhealthy, has an unstarted member, or one that connected less than 5 s ago"
        return ServerError(error.endpoint, f"{error.reason}; perhaps {hint}", status=error.status)
    return error


def _succeeded(result: HTTPResult, request: object) -> HTTPResult:
    if result.status != 200:
        raise responses.refusal(result, request, {})
    return result
