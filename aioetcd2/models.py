"""What the server answers, as immutable values: msgspec Structs, decoded from bytes in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from .errors import ErrorCode, NoNodeError, NotFileError

__all__ = [
    "Action",
    "Counts",
    "FollowerStats",
    "HTTPResult",
    "Health",
    "Latency",
    "LeaderInfo",
    "LeaderStats",
    "Member",
    "Node",
    "Permission",
    "Response",
    "Role",
    "SelfStats",
    "StoreStats",
    "User",
    "Version",
]


_MAX_INDEX = 2**63 - 1
"""More than any cluster reaches; a server that names a higher index is none."""

_Index = Annotated[int, Meta(ge=0, le=_MAX_INDEX)]


class HTTPResult(Struct, frozen=True, gc=False):
    """An HTTP answer as it came, for paths that this library has no call for.

    Its `repr` shows neither headers nor body, which may hold a token.

    Attributes:
        status: The HTTP status.
        headers: The headers; names are looked up without regard to case.
        body: The whole body.
        endpoint: The endpoint that answered.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    endpoint: str

    def __repr__(self) -> str:
        hidden = f"headers=<{len(self.headers)}>, body=<{len(self.body)} bytes>"
        return f"HTTPResult(status={self.status}, {hidden}, endpoint={self.endpoint!r})"


class Node(Struct, frozen=True, gc=False, rename="camel"):
    """A key or a directory of the store.

    Attributes:
        key: The full key, `/` for the root.
        value: The value; `None` for a directory and for a deleted key.
        dir: Whether it is a directory.
        nodes: What a listed directory holds, hidden keys (`_...`) left out as the server does.
        created_index (int): The index at which it was created; a plain `set` creates anew.
        modified_index (int): The index of its last change.
        ttl: Seconds left, rounded up; 0 at its end, for as long as the cluster has not removed it: half a second, or
            until there is a leader again. `None` = no TTL: the key is permanent.
        expiration: When it expires, aware and in UTC whatever offset the server writes; `None` = never.
    """

    key: str = "/"
    value: str | None = None
    dir: bool = False
    nodes: tuple[Node, ...] = ()
    created_index: _Index = 0
    modified_index: _Index = 0
    ttl: int | None = None
    expiration: datetime | None = None

    def leaves(self) -> Iterator[Node]:
        """Every non-directory below this node, depth first, in the order of the listing."""
        pending = list(reversed(self.nodes))
        while pending:
            node = pending.pop()
            if node.dir:
                pending.extend(reversed(node.nodes))
            else:
                yield node


Action = Literal["get", "set", "create", "update", "delete", "expire", "compareAndSwap", "compareAndDelete", "resync"]
"""What a response tells of: as the server says, or `resync`, which a watcher makes where events are lost."""


class Response(Struct, frozen=True, gc=False):
    """The answer of a keys call, or one event of a watch.

    `key`, `value` and the other properties read its node, which is there in all but few answers: where it is not, they
    raise, and say what there is instead.

    Attributes:
        action: `get`, `set`, `create`, `update`, `delete`, `expire`, `compareAndSwap` or `compareAndDelete`, as the
            server says; or `resync`, which a watcher makes where events are lost.
        node: The key after the action; `None` where the server was asked to send none.
        prev_node: The key before the action, where there was one.
        index: The cluster's index when the server answered (`X-Etcd-Index`).
        raft_index: `X-Raft-Index`; 0 where the server sends none.
        raft_term: `X-Raft-Term`; 0 where the server sends none.
        cluster_id: `X-Etcd-Cluster-Id`, hexadecimal.
    """

    action: Action
    node: Node | None = None
    prev_node: Node | None = None
    index: int = 0
    raft_index: int = 0
    raft_term: int = 0
    cluster_id: str = ""

    @property
    def key(self) -> str:
        """The key.

        Raises:
            NoNodeError: There is no node.
        """
        return self._there().key

    @property
    def value(self) -> str:
        """The value of the key.

        Raises:
            NoNodeError: There is no node, or the key was deleted.
            NotFileError: It is a directory.
        """
        node = self._there()
        if node.value is not None and not node.dir:
            return node.value
        if node.dir and not self.deleted:
            hint = "it is a directory, whose keys are in .nodes and .leaves()"
            raise NotFileError(ErrorCode.NOT_FILE, "Not a file", node.key, hint=hint)
        before = "" if self.prev_value is None else ", and what it was is .prev_value"
        raise NoNodeError(f"{self.action} of {node.key} leaves no value{before}")

    @property
    def modified_index(self) -> int:
        """The index of the key's last change.

        Raises:
            NoNodeError: There is no node.
        """
        return self._there().modified_index

    @property
    def created_index(self) -> int:
        """The index at which the key was created.

        Raises:
            NoNodeError: There is no node.
        """
        return self._there().created_index

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What a listed directory holds; nothing for a key.

        Raises:
            NoNodeError: There is no node.
        """
        return self._there().nodes

    def leaves(self) -> Iterator[Node]:
        """Every key below, depth first, in the order of the listing.

        Raises:
            NoNodeError: There is no node.
        """
        return self._there().leaves()

    @property
    def prev_value(self) -> str | None:
        """The value before the action; `None` where there was none, or the server names none."""
        return None if self.prev_node is None else self.prev_node.value

    @property
    def deleted(self) -> bool:
        """Whether the key is gone by this: `delete`, `expire` or `compareAndDelete`."""
        return self.action in _DELETIONS

    def _there(self) -> Node:
        if self.node is not None:
            return self.node
        if self.action == "resync":
            raise NoNodeError("this resync found nothing: what was watched is not there")
        raise NoNodeError(f"this {self.action} has no node: the server was asked for none (no_value_on_success)")


_DELETIONS: tuple[Action, ...] = ("delete", "expire", "compareAndDelete")
"""The actions after which a key is gone."""


class Version(Struct, frozen=True):
    """What `/version` says.

    Attributes:
        server: The version of the member that answered, as `3.5.1`.
        cluster: The version of the cluster, as `3.5.0`; `not_decided` soon after its start.
    """

    server: str
    cluster: str


class Health(Struct, frozen=True):
    """What `/health` says.

    Attributes:
        healthy: Whether the member has a leader and its writes get through.
        reason: Why not; empty before etcd 3.5.
    """

    healthy: bool
    reason: str = ""


class Member(Struct, frozen=True):
    """A member of the cluster.

    Attributes:
        id: Its ID, hexadecimal.
        name: Its name; empty for a member that was added and has not started.
        peer_urls: Where the other members reach it.
        client_urls: Where clients reach it; empty for a member that has not started.
    """

    id: str
    name: str = ""
    peer_urls: tuple[str, ...] = field(default=(), name="peerURLs")
    client_urls: tuple[str, ...] = field(default=(), name="clientURLs")


class Permission(Enum):
    """What a role lets its users do below a key prefix.

    Attributes:
        READ: Get, list and watch.
        WRITE: Set, create, update, refresh and delete.
        READ_WRITE: Both.
    """

    READ = "read"
    WRITE = "write"
    READ_WRITE = "readwrite"


class User(Struct, frozen=True):
    """A user of the auth API.

    Attributes:
        name: The name.
        roles: The names of the roles.
    """

    name: str
    roles: tuple[str, ...] = ()


class Role(Struct, frozen=True):
    """A role of the auth API.

    Attributes:
        name: The name.
        read: The patterns of keys that may be read; `/a/*` covers all below `/a/`.
        write: The patterns of keys that may be written.
    """

    name: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class LeaderInfo(Struct, frozen=True, rename="camel"):
    """What a member knows of its leader.

    Attributes:
        leader: The leader's ID; empty where there is none.
        uptime: How long it has been the leader, as Go writes a duration: `1h2m3.5s`.
        start_time: Since when it has been the leader, as far as this member knows.
    """

    leader: str = ""
    uptime: str = ""
    start_time: datetime | None = None


class SelfStats(Struct, frozen=True, rename="camel"):
    """What `/v2/stats/self` says of the member that answered.

    Attributes:
        name: The member's name.
        id: The member's ID.
        state: `StateLeader` or `StateFollower`; it stays `StateLeader` where the quorum is lost.
        start_time: When the member started.
        leader_info: What it knows of the leader.
        recv_append_request_cnt: Append requests received.
        send_append_request_cnt: Append requests sent.
        recv_pkg_rate: Requests received a second; followers only.
        recv_bandwidth_rate: Bytes received a second; followers only.
        send_pkg_rate: Requests sent a second; leaders only.
        send_bandwidth_rate: Bytes sent a second; leaders only.
    """

    name: str
    id: str = ""
    state: str = ""
    start_time: datetime | None = None
    leader_info: LeaderInfo = LeaderInfo()
    recv_append_request_cnt: int = 0
    send_append_request_cnt: int = 0
    recv_pkg_rate: float = 0.0
    recv_bandwidth_rate: float = 0.0
    send_pkg_rate: float = 0.0
    send_bandwidth_rate: float = 0.0


class Latency(Struct, frozen=True, rename="camel"):
    """How long a follower takes to answer its leader, in milliseconds.

    Attributes:
        current: The last time.
        average: The mean of all.
        standard_deviation: Their standard deviation.
        minimum: The shortest.
        maximum: The longest.
    """

    current: float = 0.0
    average: float = 0.0
    standard_deviation: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0


class Counts(Struct, frozen=True):
    """How many of a leader's requests to a follower failed and succeeded.

    Attributes:
        fail: Those that failed.
        success: Those that succeeded.
    """

    fail: int = 0
    success: int = 0


class FollowerStats(Struct, frozen=True):
    """What a leader knows of one follower.

    Attributes:
        latency: Its answers' latency.
        counts: Its answers' number.
    """

    latency: Latency = Latency()
    counts: Counts = Counts()


class LeaderStats(Struct, frozen=True):
    """What `/v2/stats/leader` says.

    Attributes:
        leader: The leader's ID.
        followers: Its followers by their ID.
    """

    leader: str
    followers: dict[str, FollowerStats] = field(default_factory=dict)


class StoreStats(Struct, frozen=True, rename="camel"):
    """What `/v2/stats/store` says: how often the operations of one member's store succeeded and failed.

    Attributes:
        gets_success: Gets of a key that is there.
        gets_fail: Gets of a key that is not.
        sets_success: Sets without a condition.
        sets_fail: Those that were refused.
        delete_success: Deletions without a condition.
        delete_fail: Those that were refused.
        update_success: Updates of a key that is there, without another condition.
        update_fail: Those that were refused.
        create_success: Creations of a key that was not there.
        create_fail: Those that were refused.
        compare_and_swap_success: Compare-and-sets whose condition held.
        compare_and_swap_fail: Those that were refused.
        compare_and_delete_success: Compare-and-deletes whose condition held.
        compare_and_delete_fail: Those that were refused.
        expire_count: Keys that have expired.
        watchers: How many watches are open at that member.
    """

    gets_success: int = 0
    gets_fail: int = 0
    sets_success: int = 0
    sets_fail: int = 0
    delete_success: int = 0
    delete_fail: int = 0
    update_success: int = 0
    update_fail: int = 0
    create_success: int = 0
    create_fail: int = 0
    compare_and_swap_success: int = 0
    compare_and_swap_fail: int = 0
    compare_and_delete_success: int = 0
    compare_and_delete_fail: int = 0
    expire_count: int = 0
    watchers: int = 0
