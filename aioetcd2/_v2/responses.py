"""From bytes and headers to a model, or to the error that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr
from multidict import istr

from .._net.exchange import OpenStream
from .._net.foreign import foreign
from .._net.secrets import text_for, words_for
from .._net.verdict import NotServedError
from ..errors import (
    APIError,
    CompareFailedError,
    DirNotEmptyError,
    EndpointError,
    ErrorCode,
    EtcdError,
    EventIndexClearedError,
    InvalidFieldError,
    InvalidFormError,
    InvalidIndexError,
    InvalidResponseError,
    InvalidTTLError,
    KeyNotFoundError,
    LeaderElectError,
    NodeExistsError,
    NoLeaderError,
    NotDirError,
    NotFileError,
    PrevValueRequiredError,
    RaftInternalError,
    RedirectError,
    RootReadOnlyError,
    ServerError,
    UnauthorizedError,
    WatcherClearedError,
)
from ..models import _MAX_INDEX, Action, Health, HTTPResult, Node, Response, Version, _Index

INDEX, RAFT_INDEX, RAFT_TERM, CLUSTER_ID = map(
    istr, ("X-Etcd-Index", "X-Raft-Index", "X-Raft-Term", "X-Etcd-Cluster-Id")
)
"""Names of headers, which are looked up in half the time as `istr`."""

PAGE_NOT_FOUND = b"404 page not found"
"""What an etcd answers for a path it does not serve, among them all of v2 where that is off."""

WORDS = 4096
"""How many bytes of an answer that is no JSON go into an error."""

_HINTS: dict[tuple[int, str], str] = {
    (
        ErrorCode.NOT_FILE,
        "DELETE",
    ): "it is a directory: recursive=True deletes it with all below it, dir=True an empty one",
    (ErrorCode.NOT_FILE, "PUT"): "it is a directory, which has no value",
    (ErrorCode.DIR_NOT_EMPTY, "DELETE"): "recursive=True deletes it with all below it",
    (ErrorCode.NOT_DIR, "PUT"): "it is a key with a value, and nothing can be below it",
}
"""What to do, or what is there, by errorCode and method."""

_OWN_CAUSES = ("etcdserver:", "raft:", "context ")
"""How the causes of errorCode 300 begin when the member failed; any other cause is an answer about the request."""


Marks = tuple[int, int, int, str]
"""_Index, raft's index and term, and cluster ID: what the headers of a keys answer name."""

_EXPIRATION = b'"expiration"'
"""Found by `find`, for `in` first takes it for a number, and makes and drops an error, in half a microsecond."""

_MALFORMED = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)


class _KeysBody(Struct, gc=False, rename="camel"):
    action: Action
    node: Node | None = None
    prev_node: Node | None = None


class _ErrorBody(Struct, gc=False, rename="camel"):
    error_code: int = 0
    message: str = ""
    cause: str = ""
    index: _Index = 0


class _VersionBody(Struct):
    etcdserver: str
    etcdcluster: str = ""


class _HealthBody(Struct):
    health: str | bool
    reason: str = ""


_keys_decoder = msgspec.json.Decoder(_KeysBody)
_decode_keys = _keys_decoder.decode
_decode_lines = _keys_decoder.decode_lines
_decode_error = msgspec.json.Decoder(_ErrorBody).decode
_decode_version = msgspec.json.Decoder(_VersionBody).decode
_decode_health = msgspec.json.Decoder(_HealthBody).decode


_BY_CODE: dict[int, type[APIError]] = {
    ErrorCode.KEY_NOT_FOUND: KeyNotFoundError,
    ErrorCode.TEST_FAILED: CompareFailedError,
    ErrorCode.NOT_FILE: NotFileError,
    ErrorCode.NOT_DIR: NotDirError,
    ErrorCode.NODE_EXIST: NodeExistsError,
    ErrorCode.ROOT_READ_ONLY: RootReadOnlyError,
    ErrorCode.DIR_NOT_EMPTY: DirNotEmptyError,
    ErrorCode.UNAUTHORIZED: UnauthorizedError,
    ErrorCode.PREV_VALUE_REQUIRED: PrevValueRequiredError,
    ErrorCode.TTL_NAN: InvalidTTLError,
    ErrorCode.INDEX_NAN: InvalidIndexError,
    ErrorCode.INVALID_FIELD: InvalidFieldError,
    ErrorCode.INVALID_FORM: InvalidFormError,
    ErrorCode.RAFT_INTERNAL: RaftInternalError,
    ErrorCode.LEADER_ELECT: LeaderElectError,
    ErrorCode.WATCHER_CLEARED: WatcherClearedError,
    ErrorCode.EVENT_INDEX_CLEARED: EventIndexClearedError,
}


def class_for_code(code: int) -> type[APIError]:
    """The class for one of etcd's error codes; `APIError` itself for an unknown one."""
    return _BY_CODE.get(code, APIError)


def raw(result: HTTPResult, request: object) -> HTTPResult:
    """Any answer as it is; a 5xx is the endpoint's failure."""
    if result.status >= 500 and isinstance(error := _failure(result, request), EndpointError):
        raise error
    return msgspec.structs.replace(result, body=bytes(result.body))


def keys(result: HTTPResult, request: object) -> Response:
    """The answer of a keys call."""
    if result.status not in (200, 201):
        raise failure(result, request)
    find = result.headers.get
    try:
        try:
            body = _decode_keys(result.body)
        except RecursionError:
            body = _deep_keys(result.body)
        node = body.node
        if node is None or node.expiration is not None or node.nodes or body.prev_node is not None:
            _complete(body, result.body.find(_EXPIRATION) >= 0)
        return Response(
            body.action,
            node,
            body.prev_node,
            _index(find(INDEX, 0)),
            int(find(RAFT_INDEX, 0)),
            int(find(RAFT_TERM, 0)),
            find(CLUSTER_ID, ""),
        )
    except _MALFORMED as error:
        raise invalid(result, error) from error


def _deep_keys(body: bytes) -> _KeysBody:
    """A keys answer that is nested too deeply for the usual way, and seldom comes: what reads it is loaded then."""
    from . import deep

    whole = deep.decode(body)
    found = _KeysBody("get", whole.pop("node", None), whole.pop("prevNode", None))
    if not all(part is None or isinstance(part, Node) for part in (found.node, found.prev_node)):
        raise msgspec.ValidationError("Expected `object` for a node")
    found.action = msgspec.convert(whole, _KeysBody).action
    return found


def opened(stream: OpenStream, request: object) -> OpenStream:
    """Check that the server has registered a wait; the stream, whose body is still to come."""
    if stream.head.status != 200:
        raise failure(stream.head, request)
    if INDEX not in stream.head.headers:  # or any web page would do for a wait without an event
        raise invalid(stream.head, "no X-Etcd-Index")
    return stream


def events(lines: bytes, marks: Marks, result: HTTPResult) -> list[Response]:
    """The events in some lines of a wait, one JSON document a line."""
    try:
        try:
            bodies = _decode_lines(lines)
        except RecursionError:
            bodies = [_deep_keys(line) for line in lines.splitlines() if line.strip()]
        some_end = lines.find(_EXPIRATION) >= 0
        for body in bodies:
            _complete(body, some_end)
        return [Response(body.action, body.node, body.prev_node, *marks) for body in bodies]
    except _MALFORMED as error:
        raise invalid(result, error, body=lines) from error


def marks(result: HTTPResult) -> Marks:
    """The indexes and the cluster that the headers of an answer name; 0 and empty where one is missing."""
    find = result.headers.get
    try:
        return _index(find(INDEX, 0)), int(find(RAFT_INDEX, 0)), int(find(RAFT_TERM, 0)), find(CLUSTER_ID, "")
    except _MALFORMED as error:
        raise invalid(result, error) from error


def _index(text: str | int) -> int:
    index = int(text)
    if not 0 <= index <= _MAX_INDEX:
        raise ValueError(f"X-Etcd-Index is out of range: {str(text)[:30]}")
    return index


def _complete(body: _KeysBody, some_end: bool) -> None:
    """Add to nodes that nobody has seen yet what servers leave out, or write in their own way.

    Args:
        body: The answer.
        some_end: Whether any of its nodes may have an expiration; few lists have any.
    """
    node, before = body.node, body.prev_node
    if body.action == "expire" and node is not None and before is not None and before.dir:
        force_setattr(node, "dir", True)  # 2.3 to 3.1 leave it out
    if some_end:
        _tell_ends(list(filter(None, (node, before))))


def _tell_ends(pending: list[Node]) -> None:
    """Have each expiration in UTC, and a TTL with it.

    At the end of a key the server leaves out its TTL of 0, and counts on below that for as long as it can't remove it.
    """
    for each in pending:
        expiration = each.expiration
        if expiration is not None:
            if expiration.tzinfo is not timezone.utc:
                aware = expiration.replace(tzinfo=timezone.utc) if expiration.tzinfo is None else expiration
                force_setattr(each, "expiration", aware.astimezone(timezone.utc))
            if each.ttl is None or each.ttl < 0:
                force_setattr(each, "ttl", 0)
        if each.nodes:
            pending += each.nodes


def version(result: HTTPResult, request: object) -> Version:
    """The answer of `/version`."""
    if result.status != 200:
        raise failure(result, request)
    body = decode(_decode_version, result)
    return Version(body.etcdserver, body.etcdcluster)


def health(result: HTTPResult, request: object) -> Health:
    """The answer of `/health`, which is 503 where the member is not healthy."""
    if result.status not in (200, 503):
        raise failure(result, request)
    body = decode(_decode_health, result)
    return Health(str(body.health).lower() == "true", body.reason)


def leader(result: HTTPResult, request: object) -> Health | None:
    """What the answer to a question for the leader says of the member's health; `None` = it is in doubt."""
    if result.status == 200:
        return Health(True)
    return Health(False, "no leader") if result.status == 503 else None


def peers(result: HTTPResult, request: object) -> bool:
    """Whether it is the answer of `/members`, which only a peer port gives."""
    return result.status == 200 and result.body.lstrip().startswith(b"[")


def decode(decoder: Any, result: HTTPResult) -> Any:
    """Decode a JSON body.

    Raises:
        InvalidResponseError: It is not JSON, or has another shape.
    """
    try:
        return decoder(result.body)
    except _MALFORMED as error:
        raise invalid(result, error) from error


def invalid(result: HTTPResult, error: object, *, body: bytes | None = None) -> InvalidResponseError:
    """The error for an answer that etcd's v2 API would not give."""
    return InvalidResponseError(
        result.endpoint, str(error), status=result.status, body=result.body if body is None else body
    )


def failure(result: HTTPResult, request: object) -> EtcdError:
    """What an answer that is no success means: an `APIError`, or an `EndpointError` where the endpoint failed."""
    if result.status >= 500:
        return _failure(result, request)
    if 300 <= result.status < 400:
        where = result.headers.get("Location")
        words = text_for(request, repr(where))
        return RedirectError(f"{request} at {result.endpoint}: unexpected redirect {result.status} to {words}")
    if result.status == 404 and result.body.startswith(PAGE_NOT_FOUND):
        return NotServedError(result.endpoint, "no such page", status=404, body=result.body)
    body = _error_body(result)
    if body is None:
        if result.status in (401, 403):
            return api_error(UnauthorizedError, result, request, text_for(request, _text(result)))
        return foreign(result) or invalid(result, "not an answer of etcd")
    if body.error_code:
        return _coded(body, result, request)
    return api_error(UnauthorizedError if result.status in (401, 403) else APIError, result, request, body.message)


def refusal(
    result: HTTPResult, request: object, by_status: Mapping[int, type[APIError]], default: type[APIError] = APIError
) -> EtcdError:
    """The error for an answer of members, auth or stats, which have no error codes: told apart by their status."""
    error = failure(result, request)
    if type(error) is APIError or (isinstance(error, UnauthorizedError) and result.status in by_status):
        return api_error(by_status.get(result.status, default), result, request, message_of(result, request))
    return error


def api_error(cls: type[APIError], result: HTTPResult, request: object, message: str, hint: str = "") -> APIError:
    """An `APIError` for an answer without an errorCode."""
    message = words_for(request, message)
    return cls(0, message, status=result.status, endpoint=result.endpoint, request=str(request), hint=hint)


def message_of(result: HTTPResult, request: object) -> str:
    """The server's own words in an answer of members, auth or stats: its message, or else the body as text."""
    body = _error_body(result)
    return body.message if body is not None and body.message else text_for(request, _text(result))


def _coded(body: _ErrorBody, result: HTTPResult, request: object) -> APIError:
    return class_for_code(body.error_code)(
        body.error_code,
        words_for(request, body.message),
        words_for(request, body.cause),
        body.index,
        result.status,
        endpoint=result.endpoint,
        request=str(request),
        hint=_HINTS.get((body.error_code, str(request).partition(" ")[0]), ""),
    )


def _failure(result: HTTPResult, request: object) -> EtcdError:
    body = _error_body(result)
    code = body.error_code if body is not None else 0
    words = text_for(request, _text(result))
    if body is not None and body.message:
        words = words_for(request, f"{body.message} ({body.cause})" if body.cause else body.message)
    if code == ErrorCode.RAFT_INTERNAL and body is not None and body.cause and not body.cause.startswith(_OWN_CAUSES):
        return _coded(body, result, request)
    reason = f"{result.status} {words}".rstrip()
    own = code == 0 and result.status == 503 and (body is not None or not result.body.strip())
    if code in (ErrorCode.RAFT_INTERNAL, ErrorCode.LEADER_ELECT) or own:
        return NoLeaderError(result.endpoint, reason)
    return ServerError(result.endpoint, reason, status=result.status)


def _error_body(result: HTTPResult) -> _ErrorBody | None:
    try:
        body = _decode_error(result.body)
    except _MALFORMED:
        return None
    return body if body.error_code or body.message else None


def _text(result: HTTPResult) -> str:
    return result.body[:WORDS].decode("utf-8", "replace").strip()
