"""Every error of this library.

```
EtcdError
├── ClientClosedError
├── InvalidEndpointError        also ValueError
├── NoEndpointsError            also ValueError
├── DiscoveryError
├── ClusterError                .errors, .maybe_applied
├── ClusterMismatchError        .maybe_applied
├── V2DisabledError             .server_version
├── NoNodeError                 a property of a response without a node
├── RedirectError               .maybe_applied
├── LockLostError               .reason, .token
│   └── LeadershipLostError
├── LockHeldError               .holder
├── TreeBehindError
├── TreeStaleError              .age
├── InvalidResponseError        .endpoint, .status, .body, .maybe_applied
├── EndpointError               .endpoint, .reason, .maybe_applied
│   ├── ConnectError            never sent
│   ├── HeaderTimeoutError      also TimeoutError
│   ├── ConnectionLostError
│   ├── NoLeaderError
│   └── ServerError             .status
└── APIError                    .code, .message, .cause, .index, .status
    └── one class per error code, and those of members and auth
```

What one endpoint did wrong is an `EndpointError`; a call raises `ClusterError`, which holds one of them for
each try. Where all of them did answer, only not as an etcd does, it raises `InvalidResponseError`. What a healthy
server said about the request is an `APIError`, raised as it is.
All of them pickle and copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipes import Holder

__all__ = [
    "APIError",
    "AuthError",
    "ClientClosedError",
    "ClusterError",
    "ClusterMismatchError",
    "CompareFailedError",
    "ConnectError",
    "ConnectionLostError",
    "DirNotEmptyError",
    "DiscoveryError",
    "EndpointError",
    "ErrorCode",
    "EtcdError",
    "EventIndexClearedError",
    "HeaderTimeoutError",
    "InvalidEndpointError",
    "InvalidFieldError",
    "InvalidFormError",
    "InvalidIndexError",
    "InvalidResponseError",
    "InvalidTTLError",
    "KeyNotFoundError",
    "LeaderElectError",
    "LeadershipLostError",
    "LockHeldError",
    "LockLostError",
    "MemberConflictError",
    "MemberNotFoundError",
    "NoEndpointsError",
    "NoLeaderError",
    "NoNodeError",
    "NodeExistsError",
    "NotDirError",
    "NotFileError",
    "PrevValueRequiredError",
    "RaftInternalError",
    "RedirectError",
    "RoleExistsError",
    "RoleNotFoundError",
    "RootReadOnlyError",
    "ServerError",
    "TreeBehindError",
    "TreeStaleError",
    "UnauthorizedError",
    "UserExistsError",
    "UserNotFoundError",
    "V2DisabledError",
    "WatcherClearedError",
]


_READ_FIRST = "the write may have been applied, read before writing again"


def _restore(cls: type[EtcdError], args: tuple[Any, ...], state: dict[str, Any]) -> EtcdError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class EtcdError(Exception):
    """The base of every error this library raises on its own account."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class ClientClosedError(EtcdError):
    """The client, or the watcher, was closed; make a new one."""


class InvalidEndpointError(EtcdError, ValueError):
    """The text is no endpoint: `http://`, `https://` or `unix://`, a host and a port, nothing else."""


class NoEndpointsError(EtcdError, ValueError):
    """The set of endpoints is empty."""


class DiscoveryError(EtcdError):
    """Discovery by DNS SRV found nothing; the message holds the cause for each service."""


class ClusterMismatchError(EtcdError):
    """Two endpoints of one client belong to two different clusters (`X-Etcd-Cluster-Id` differs).

    Attributes:
        expected (str): The cluster this client has been talking to.
        actual (str): The cluster that the endpoint belongs to.
        endpoint (str): The endpoint that answered for another cluster.
        reason (str): What is wrong with it, without the endpoint.
        maybe_applied (bool): Whether the request was a write that the other cluster may have carried out; never for a
            read.
    """

    def __init__(
        self, endpoint: str, expected: str, actual: str, request: str = "", *, maybe_applied: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.expected = expected
        self.actual = actual
        self.maybe_applied = maybe_applied
        self.reason = (
            f"it belongs to cluster {actual}, but this client talks to cluster {expected}; take it out of the "
            "endpoints, or call forget_cluster() if the cluster was rebuilt, or set_endpoints() to move to another one"
        )
        super().__init__(f"{_prefix(request, endpoint)}{self.reason}")


_V2_GONE_SINCE = (3, 6)


class V2DisabledError(EtcdError):
    """The cluster is an etcd, but it does not serve the v2 API.

    The v2 API is off by default from etcd 3.4 on, and gone from 3.6 on, where its flag keeps etcd from starting.

    Attributes:
        server_version (str): What the server says of itself at `/version`.
        endpoint (str): The endpoint that was asked.
    """

    def __init__(self, endpoint: str, server_version: str) -> None:
        self.endpoint = endpoint
        self.server_version = server_version
        parts = server_version.split(".")[:2]
        gone = all(map(str.isdecimal, parts)) and tuple(map(int, parts)) >= _V2_GONE_SINCE
        way_out = (
            "it is gone from 3.6 on, and no flag brings it back; use etcd 2.3 to 3.5"
            if gone
            else "start etcd 3.4 or 3.5 with --enable-v2=true"
        )
        super().__init__(f"{endpoint}: etcd {server_version} does not serve the v2 API; {way_out}")


class NoNodeError(EtcdError):
    """A response has no node, or its key no value, where one was asked for by a property as `Response.value`."""


class TreeBehindError(EtcdError):
    """A reader of `Tree.changes()` was more than the tree's `limit` behind; the copy itself goes on."""


class TreeStaleError(EtcdError):
    """A `Tree` has not heard of the cluster for longer than its `stale_after`.

    Attributes:
        age (float): For how many seconds.
    """

    def __init__(self, prefix: str, age: float, stale_after: float) -> None:
        self.age = age
        super().__init__(f"the copy of {prefix} is {age:.1f} s old, more than {stale_after:g} s")


class RedirectError(EtcdError):
    """A redirect could not be followed: too many, refused, or with a missing or bad `Location`.

    Attributes:
        maybe_applied (bool): Whether the request was a write, and the answer one that says nothing of its fate.
    """

    def __init__(self, words: str = "", *, maybe_applied: bool = False) -> None:
        self.maybe_applied = maybe_applied
        super().__init__(f"{words}; {_READ_FIRST}" if maybe_applied else words)


class LockLostError(EtcdError):
    """A lock, a share of a semaphore, or a claim is not held any more: act no further on the strength of it.

    Raised by `Held.check()`, and by the block of a recipe in place of the cancellation by which it is ended.

    Attributes:
        reason (str): Why, as far as this process knows.
        token (int): The token of what was held. What was written with it is behind whatever the next holder writes.
    """

    def __init__(self, key: str, token: int, reason: str) -> None:
        self.reason = reason
        self.token = token
        super().__init__(f"{key} (token {token}) is not held any more: {reason}")


class LeadershipLostError(LockLostError):
    """The leadership of an election is over before its block was."""


class LockHeldError(EtcdError):
    """Another holds what was asked for with `wait=False`.

    Attributes:
        holder (Holder | None): The one who is first, a `recipes.Holder`; `None` where he has left meanwhile.
    """

    def __init__(self, path: str, holder: Holder | None) -> None:
        self.holder = holder
        who = "another" if holder is None else f"{holder.name} (token {holder.token})"
        super().__init__(f"{path} is held by {who}; try again later, or wait")


class EndpointError(EtcdError):
    """One try at one endpoint failed.

    Attributes:
        endpoint (str): Where it was tried.
        reason (str): What went wrong, without the endpoint.
        maybe_applied (bool): Whether the request was a write that the server may have carried out all the same.
    """

    def __init__(self, endpoint: str, reason: str, *, maybe_applied: bool = False) -> None:
        self.endpoint = endpoint
        self.reason = reason
        self.maybe_applied = maybe_applied
        super().__init__(f"{endpoint}: {reason}")


class ConnectError(EndpointError):
    """No connection: name lookup, connect or TLS failed. The request was never sent.

    Attributes:
        ours (bool): Whether it is this process that has no descriptor, no memory or no connection left, which says
            nothing of the endpoint.
        no_free_connection (bool): Whether no connection of the `connector` that was given to the client came free
            within the header timeout; `ours` is true then.
    """

    def __init__(
        self,
        endpoint: str,
        reason: str,
        *,
        maybe_applied: bool = False,
        ours: bool = False,
        no_free_connection: bool = False,
    ) -> None:
        super().__init__(endpoint, reason, maybe_applied=maybe_applied)
        self.ours = ours or no_free_connection
        self.no_free_connection = no_free_connection


class HeaderTimeoutError(EndpointError, TimeoutError):
    """The server did not answer within the header timeout, or stalled that long in the middle of its answer."""


class ConnectionLostError(EndpointError):
    """The connection broke after the request, or a part of it, was sent."""


class NoLeaderError(EndpointError):
    """The member has no leader, or no quorum, to carry out the request, by its own words.

    A 500 with errorCode 300 or 301, or a 503 that is empty or etcd's own; a proxy's page is a `ServerError`.
    """


class ServerError(EndpointError):
    """Any other 5xx.

    Attributes:
        status (int): The HTTP status.
    """

    def __init__(self, endpoint: str, reason: str, *, maybe_applied: bool = False, status: int = 500) -> None:
        super().__init__(endpoint, reason, maybe_applied=maybe_applied)
        self.status = status


class InvalidResponseError(EtcdError):
    """The answer is not one of etcd's v2 API: not JSON, of a wrong shape, empty, or too long.

    Attributes:
        endpoint (str): Where it came from.
        reason (str): What is wrong with it, without the endpoint.
        maybe_applied (bool): Whether the request was a write that may have been carried out all the same.
        status (int): The HTTP status.
        body (bytes): The first bytes of the answer.
    """

    BODY_LIMIT = 200

    def __init__(
        self, endpoint: str, reason: str, *, maybe_applied: bool = False, status: int = 0, body: bytes = b""
    ) -> None:
        self.endpoint = endpoint
        self.status = status
        self.body = bytes(body[: self.BODY_LIMIT])
        self.reason = f"probably not an etcd v2 endpoint: {reason} (status {status}, body {self.body!r})"
        self.maybe_applied = maybe_applied
        super().__init__(f"{endpoint}: {self.reason}")

    def _hide_body(self) -> None:
        """Forget what the answer was, for the request held a secret that it may repeat."""
        words = "no answer of etcd; the request held a secret, so it is not shown"
        InvalidResponseError.__init__(self, self.endpoint, words, status=self.status)

    def _as_failure(self) -> EndpointError:
        """This error as the failure of one endpoint, for the list that a `ClusterError` holds."""
        failure = EndpointError(self.endpoint, self.reason, maybe_applied=self.maybe_applied)
        failure.__cause__ = self
        return failure

    def _as_outcome(self, request: str, failures: Iterable[EndpointError]) -> InvalidResponseError:
        """This error as the outcome of a call that found nothing but such answers."""
        self.args = (f"{request} at {'; '.join(map(str, failures))}",)
        if self.maybe_applied:
            self.args = (f"{self.args[0]}; {_READ_FIRST}",)
        return self


class ClusterError(EtcdError):
    """No endpoint answered.

    Attributes:
        errors (tuple[EndpointError, ...]): One `EndpointError` for each try, in their order.
        maybe_applied (bool): Whether the request was a write that may have taken effect. If so, read before writing
            again.
    """

    def __init__(self, request: str, errors: Iterable[EndpointError]) -> None:
        self.errors = tuple(errors)
        self.maybe_applied = any(error.maybe_applied for error in self.errors)
        lines = [f"{request}: no endpoint answered"]
        if self.maybe_applied:
            lines[0] += f"; {_READ_FIRST}"
        lines += [f"  {error} [{type(error).__name__}]" for error in self.errors]
        super().__init__("\n".join(lines))

    def _add_words(self, words: str) -> None:
        """Say more, in a line of its own; a call that knows more than its endpoints does so."""
        self.args = (f"{self.args[0]}\n  {words}",)


def _prefix(request: str, endpoint: str) -> str:
    where = " at ".join(part for part in (request, endpoint) if part)
    return f"{where}: " if where else ""


class APIError(EtcdError):
    """What a healthy etcd answered instead of doing what was asked.

    Attributes:
        code (int): etcd's errorCode; 0 where the answer has none (members, auth and stats, plain text).
        message (str): etcd's message for that code, or its own words where there is no code.
        cause (str): What it was about, mostly a key; may be empty.
        index (int): The cluster's index; 0 where the server names none.
        status (int): The HTTP status.
        endpoint (str): Which endpoint answered.
    """

    def __init__(
        self,
        code: int,
        message: str,
        cause: str = "",
        index: int = 0,
        status: int = 0,
        *,
        endpoint: str = "",
        request: str = "",
        hint: str = "",
    ) -> None:
        self.code = code
        self.message = message
        self.cause = cause
        self.index = index
        self.status = status
        self.endpoint = endpoint
        text = f"{_prefix(request, endpoint)}{code or status} {message}"
        if cause:
            text += f" ({cause})"
        if index:
            text += f" [index {index}]"
        if hint:
            text += f"; {hint}"
        super().__init__(text)


class KeyNotFoundError(APIError):
    """100: there is no such key; `cause` names the first part of the path that is missing."""


class CompareFailedError(APIError):
    """101: the condition of a compare-and-set or compare-and-delete does not hold; `cause` shows both sides."""


class NotFileError(APIError):
    """102: the key is a directory."""


class NotDirError(APIError):
    """104: a part of the path is a file."""


class NodeExistsError(APIError):
    """105: the key exists already."""


class RootReadOnlyError(APIError):
    """107: the root can't be written or deleted."""


class DirNotEmptyError(APIError):
    """108: the directory still has keys, hidden ones perhaps; delete it with `recursive=True`."""


class UnauthorizedError(APIError):
    """110, and every 401 or 403 without a code: wrong user, wrong password or missing permission.

    The server does not tell these apart.

    Attributes:
        username (str | None): The user as whom the request was sent; `None` = without credentials.
    """

    username: str | None = None

    def _sent_as(self, username: str | None) -> None:
        """Say as whom the request was sent."""
        self.username = username
        if username is None:
            words = "sent without credentials; Client(username=, password=) sends them"
        else:
            words = f"sent as user {username!r}; etcd does not tell a wrong password from a missing right"
        self.args = (f"{self.args[0]}; {words}",)


class PrevValueRequiredError(APIError):
    """201: the server can't compare with an empty value; compare with `prev_index` instead."""


class InvalidTTLError(APIError):
    """202: the TTL is not a number."""


class InvalidIndexError(APIError):
    """203: the index is not a number."""


class InvalidFieldError(APIError):
    """209: a field of the request is invalid."""


class InvalidFormError(APIError):
    """210: the form could not be read."""


class RaftInternalError(APIError):
    """300 for a reason that no other member would judge otherwise, as for updating a directory on etcd 3.5."""


class LeaderElectError(APIError):
    """301: during leader election."""


class WatcherClearedError(APIError):
    """400: the watcher was cleared by a recovery of the server."""


class EventIndexClearedError(APIError):
    """401: the server no longer holds the events after the requested index; some are lost to this watcher.

    Read the key again, and go on with `watch(after_index=error.index)`.
    """


class MemberNotFoundError(APIError):
    """The cluster has no member with this ID, or no longer has."""


class MemberConflictError(APIError):
    """Another member has this ID or one of these peer URLs already."""


class UserNotFoundError(APIError):
    """There is no user of this name."""


class UserExistsError(APIError):
    """There is a user of this name already."""


class RoleNotFoundError(APIError):
    """There is no role of this name."""


class RoleExistsError(APIError):
    """There is a role of this name already."""


class AuthError(APIError):
    """Any other refusal of the auth API; `message` holds the server's words."""


class ErrorCode(IntEnum):
    """etcd's v2 error codes; the same in every release from 2.3 to 3.5.

    Attributes:
        KEY_NOT_FOUND: 100, a `KeyNotFoundError`.
        TEST_FAILED: 101, a `CompareFailedError`.
        NOT_FILE: 102, a `NotFileError`.
        NO_MORE_PEER: 103, an `APIError`.
        NOT_DIR: 104, a `NotDirError`.
        NODE_EXIST: 105, a `NodeExistsError`.
        KEY_IS_PRESERVED: 106, an `APIError`.
        ROOT_READ_ONLY: 107, a `RootReadOnlyError`.
        DIR_NOT_EMPTY: 108, a `DirNotEmptyError`.
        EXISTING_PEER_ADDR: 109, an `APIError`.
        UNAUTHORIZED: 110, an `UnauthorizedError`.
        VALUE_REQUIRED: 200, an `APIError`.
        PREV_VALUE_REQUIRED: 201, a `PrevValueRequiredError`.
        TTL_NAN: 202, an `InvalidTTLError`.
        INDEX_NAN: 203, an `InvalidIndexError`.
        VALUE_OR_TTL_REQUIRED: 204, an `APIError`.
        TIMEOUT_NAN: 205, an `APIError`.
        NAME_REQUIRED: 206, an `APIError`.
        INDEX_OR_VALUE_REQUIRED: 207, an `APIError`.
        INDEX_VALUE_MUTEX: 208, an `APIError`.
        INVALID_FIELD: 209, an `InvalidFieldError`.
        INVALID_FORM: 210, an `InvalidFormError`.
        REFRESH_VALUE: 211, an `APIError`.
        REFRESH_TTL_REQUIRED: 212, an `APIError`.
        RAFT_INTERNAL: 300, a `RaftInternalError`, or a `NoLeaderError` of an endpoint.
        LEADER_ELECT: 301, a `LeaderElectError`, or a `NoLeaderError` of an endpoint.
        WATCHER_CLEARED: 400, a `WatcherClearedError`.
        EVENT_INDEX_CLEARED: 401, an `EventIndexClearedError`.
        STANDBY_INTERNAL: 402, an `APIError`.
        INVALID_ACTIVE_SIZE: 403, an `APIError`.
        INVALID_REMOVE_DELAY: 404, an `APIError`.
        CLIENT_INTERNAL: 500, an `APIError`.
    """

    KEY_NOT_FOUND = 100
    TEST_FAILED = 101
    NOT_FILE = 102
    NO_MORE_PEER = 103
    NOT_DIR = 104
    NODE_EXIST = 105
    KEY_IS_PRESERVED = 106
    ROOT_READ_ONLY = 107
    DIR_NOT_EMPTY = 108
    EXISTING_PEER_ADDR = 109
    UNAUTHORIZED = 110
    VALUE_REQUIRED = 200
    PREV_VALUE_REQUIRED = 201
    TTL_NAN = 202
    INDEX_NAN = 203
    VALUE_OR_TTL_REQUIRED = 204
    TIMEOUT_NAN = 205
    NAME_REQUIRED = 206
    INDEX_OR_VALUE_REQUIRED = 207
    INDEX_VALUE_MUTEX = 208
    INVALID_FIELD = 209
    INVALID_FORM = 210
    REFRESH_VALUE = 211
    REFRESH_TTL_REQUIRED = 212
    RAFT_INTERNAL = 300
    LEADER_ELECT = 301
    WATCHER_CLEARED = 400
    EVENT_INDEX_CLEARED = 401
    STANDBY_INTERNAL = 402
    INVALID_ACTIVE_SIZE = 403
    INVALID_REMOVE_DELAY = 404
    CLIENT_INTERNAL = 500
