"""The errors: their tree, what they hold, and that they travel."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from aioetcd2 import errors
from aioetcd2._net.verdict import NotServedError
from aioetcd2._v2.responses import class_for_code
from aioetcd2.errors import (
    APIError,
    AuthError,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    CompareFailedError,
    ConnectError,
    ConnectionLostError,
    DirNotEmptyError,
    DiscoveryError,
    EndpointError,
    ErrorCode,
    EtcdError,
    EventIndexClearedError,
    HeaderTimeoutError,
    InvalidEndpointError,
    InvalidFieldError,
    InvalidFormError,
    InvalidIndexError,
    InvalidResponseError,
    InvalidTTLError,
    KeyNotFoundError,
    LeaderElectError,
    LeadershipLostError,
    LockHeldError,
    LockLostError,
    MemberConflictError,
    MemberNotFoundError,
    NodeExistsError,
    NoEndpointsError,
    NoLeaderError,
    NoNodeError,
    NotDirError,
    NotFileError,
    PrevValueRequiredError,
    RaftInternalError,
    RedirectError,
    RoleExistsError,
    RoleNotFoundError,
    RootReadOnlyError,
    ServerError,
    TreeBehindError,
    TreeStaleError,
    UnauthorizedError,
    UserExistsError,
    UserNotFoundError,
    V2DisabledError,
    WatcherClearedError,
)
from aioetcd2.recipes import Holder

A = "http://a:2379"

ENDPOINT_ERRORS: list[type[EndpointError]] = [
    ConnectError,
    HeaderTimeoutError,
    ConnectionLostError,
    NoLeaderError,
    ServerError,
]
API_ERRORS: list[type[APIError]] = [
    KeyNotFoundError,
    CompareFailedError,
    NotFileError,
    NotDirError,
    NodeExistsError,
    RootReadOnlyError,
    DirNotEmptyError,
    UnauthorizedError,
    PrevValueRequiredError,
    InvalidTTLError,
    InvalidIndexError,
    InvalidFieldError,
    InvalidFormError,
    RaftInternalError,
    LeaderElectError,
    WatcherClearedError,
    EventIndexClearedError,
    MemberNotFoundError,
    MemberConflictError,
    UserNotFoundError,
    UserExistsError,
    RoleNotFoundError,
    RoleExistsError,
    AuthError,
]
TREE: dict[type[EtcdError], list[type[EtcdError]]] = {
    EtcdError: [
        ClientClosedError,
        InvalidEndpointError,
        NoEndpointsError,
        DiscoveryError,
        NoNodeError,
        ClusterError,
        ClusterMismatchError,
        V2DisabledError,
        EndpointError,
        RedirectError,
        LockLostError,
        LockHeldError,
        InvalidResponseError,
        TreeBehindError,
        TreeStaleError,
        APIError,
    ],
    EndpointError: [*ENDPOINT_ERRORS],
    APIError: [*API_ERRORS],
    LockLostError: [LeadershipLostError],
}

PUBLIC = {cls for name in errors.__all__ if issubclass(cls := getattr(errors, name), BaseException)}

SAMPLES: list[EtcdError] = [
    EtcdError("anything"),
    ClientClosedError("the client is closed"),
    InvalidEndpointError("not an endpoint: 'x'"),
    NoEndpointsError("no endpoints"),
    DiscoveryError("nothing", "at all"),
    NoNodeError("this set has no node"),
    TreeBehindError("a reader was more than 10 changes behind"),
    TreeStaleError("/config", 31.5, 30),
    RedirectError("redirect 304 without a Location", maybe_applied=True),
    ClusterError("GET /x", [ConnectError(A, "refused"), ConnectionLostError(A, "reset", maybe_applied=True)]),
    ClusterError("GET /x", []),
    ClusterMismatchError(A, "1", "2", "GET /x"),
    V2DisabledError(A, "3.5.1"),
    RedirectError("too many"),
    LockLostError("/locks/db/1f", 7, "its key is gone"),
    LeadershipLostError("/leaders/1f", 8, "not kept alive in time"),
    LockHeldError("/locks/db", Holder("host:7", 7, None)),
    LockHeldError("/locks/db", None),
    EndpointError(A, "something"),
    EndpointError(A, "something", maybe_applied=True),
    ConnectError(A, "refused"),
    HeaderTimeoutError(A, "no answer", maybe_applied=True),
    ConnectionLostError(A, "reset", maybe_applied=True),
    NoLeaderError(A, "503", maybe_applied=True),
    ServerError(A, "502 bad gateway", status=502, maybe_applied=True),
    InvalidResponseError(A, "no JSON", status=200, body=b"\xff<html>", maybe_applied=True),
    NotServedError(A, "no such page", status=404, body=b"404 page not found"),
    *(
        cls(100, "Key not found", "/k", 17, 404, endpoint=A, request="GET /x", hint="look elsewhere")
        for cls in API_ERRORS
    ),
    APIError(999, "Never heard of"),
]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def state(error: EtcdError) -> tuple[Any, ...]:
    """All that two equal errors have in common."""
    held = {name: tuple(map(state, value)) if name == "errors" else value for name, value in vars(error).items()}
    return type(error), str(error), repr(error), held


TRAVELS: list[Callable[[EtcdError], EtcdError]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
]


def test_every_public_error_is_in_the_tree() -> None:
    assert {EtcdError}.union(*TREE.values()) == PUBLIC


@pytest.mark.parametrize(("parent", "children"), TREE.items())
def test_tree(parent: type[EtcdError], children: list[type[EtcdError]]) -> None:
    for child in children:
        assert issubclass(child, parent)
        if parent is EtcdError:
            assert not any(issubclass(child, other) for other in (APIError, ClusterError) if other is not child)


def test_api_errors_and_endpoint_errors_are_apart() -> None:
    assert not {cls for cls in PUBLIC if issubclass(cls, APIError) and issubclass(cls, EndpointError)}


def test_tree_is_drawn_in_the_docstring() -> None:
    drawn = inspect.getdoc(errors) or ""
    missing = {cls.__name__ for cls in PUBLIC - set(API_ERRORS)} - set(drawn.replace(",", " ").split())
    assert not missing


def test_every_public_error_is_sampled() -> None:
    assert {type(error) for error in SAMPLES} >= PUBLIC


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_error_travels(error: EtcdError) -> None:
    for travel in TRAVELS:
        arrived = travel(error)
        assert arrived is not error
        assert state(arrived) == state(error)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_error_that_was_raised_travels(error: EtcdError) -> None:
    with pytest.raises(EtcdError) as caught:
        raise error from OSError(111, "refused")
    assert state(pickle.loads(pickle.dumps(caught.value))) == state(error)


def test_error_that_has_travelled_travels_on() -> None:
    error = SAMPLES[5]
    assert state(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))) == state(error)


def test_attributes_of_one_s_own_travel() -> None:
    error = ConnectError(A, "refused")
    vars(error)["attempt"] = 7
    assert vars(copy.copy(error))["attempt"] == 7


def test_header_timeout_is_a_timeout() -> None:
    error = HeaderTimeoutError(A, "no answer within 5 s", maybe_applied=True)
    with pytest.raises(TimeoutError):
        raise error
    assert (error.endpoint, error.reason, error.maybe_applied) == (A, "no answer within 5 s", True)
    assert str(error) == f"{A}: no answer within 5 s"


@pytest.mark.parametrize("cls", [InvalidEndpointError, NoEndpointsError])
def test_endpoints_are_values(cls: type[EtcdError]) -> None:
    with pytest.raises(ValueError, match=r"^oh$"):
        raise cls("oh")


@pytest.mark.parametrize("cls", ENDPOINT_ERRORS)
def test_endpoint_error_names_endpoint_and_reason(cls: type[EndpointError]) -> None:
    error = cls(A, "because")
    assert (error.endpoint, error.reason, error.maybe_applied) == (A, "because", False)
    assert str(error) == f"{A}: because"
    assert cls(A, "because", maybe_applied=True).maybe_applied


def test_server_error_has_a_status() -> None:
    assert ServerError(A, "502 bad gateway", status=502).status == 502


def test_invalid_response_holds_a_cut_of_the_body() -> None:
    error = InvalidResponseError(A, "no JSON", status=200, body=b"x" * 1_000_000)
    assert (error.status, error.body) == (200, b"x" * 200)
    assert str(error).startswith(f"{A}: probably not an etcd v2 endpoint: no JSON (status 200, body b'xxx")
    assert len(str(error)) < 400


def test_cluster_error_without_tries() -> None:
    error = ClusterError("GET /x", iter(()))
    assert error.errors == ()
    assert not error.maybe_applied
    assert str(error) == "GET /x: no endpoint answered"


def test_mismatch_says_what_to_do() -> None:
    error = ClusterMismatchError(A, "1", "2", "GET /x")
    assert (error.endpoint, error.expected, error.actual) == (A, "1", "2")
    assert str(error).startswith(f"GET /x at {A}: it belongs to cluster 2, but this client talks to cluster 1")
    assert "set_endpoints()" in str(error)


def test_v2_disabled_says_what_to_do() -> None:
    error = V2DisabledError(A, "3.5.1")
    assert (error.endpoint, error.server_version) == (A, "3.5.1")
    assert str(error) == f"{A}: etcd 3.5.1 does not serve the v2 API; start etcd 3.4 or 3.5 with --enable-v2=true"


@pytest.mark.parametrize("version", ["3.6.16", "3.7.3", "3.10.0-rc.1", "4.0.0"])
def test_where_v2_is_gone_no_flag_is_advised(version: str) -> None:
    text = str(V2DisabledError(A, version))
    assert (
        text == f"{A}: etcd {version} does not serve the v2 API; it is gone from 3.6 on, and no flag brings it back; "
        "use etcd 2.3 to 3.5"
    )


@pytest.mark.parametrize("version", ["", "not_decided", "3"])
def test_a_version_that_is_none_may_have_v2(version: str) -> None:
    assert "--enable-v2" in str(V2DisabledError(A, version))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (APIError(100, "Key not found"), "100 Key not found"),
        (APIError(100, "Key not found", "/k"), "100 Key not found (/k)"),
        (APIError(100, "Key not found", "/k", 17), "100 Key not found (/k) [index 17]"),
        (APIError(0, "exists", status=409), "409 exists"),
        (APIError(100, "no", endpoint=A), f"{A}: 100 no"),
        (APIError(100, "no", request="GET /x"), "GET /x: 100 no"),
        (APIError(100, "no", endpoint=A, request="GET /x", hint="try b"), f"GET /x at {A}: 100 no; try b"),
    ],
)
def test_text_of_an_api_error(error: APIError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (100, KeyNotFoundError),
        (101, CompareFailedError),
        (102, NotFileError),
        (104, NotDirError),
        (105, NodeExistsError),
        (107, RootReadOnlyError),
        (108, DirNotEmptyError),
        (110, UnauthorizedError),
        (201, PrevValueRequiredError),
        (202, InvalidTTLError),
        (203, InvalidIndexError),
        (209, InvalidFieldError),
        (210, InvalidFormError),
        (300, RaftInternalError),
        (301, LeaderElectError),
        (400, WatcherClearedError),
        (401, EventIndexClearedError),
    ],
)
def test_class_of_a_code(code: int, cls: type[APIError]) -> None:
    assert class_for_code(code) is cls
    assert class_for_code(ErrorCode(code)) is cls
    assert str(code) in (cls.__doc__ or "")


def test_other_codes_have_no_class_of_their_own() -> None:
    classes = {code: class_for_code(code) for code in range(-1, 1000)}
    assert len([code for code, cls in classes.items() if cls is not APIError]) == 17


def test_codes_are_ints() -> None:
    assert isinstance(ErrorCode.KEY_NOT_FOUND, int)
    assert {int(code) for code in ErrorCode} == {
        *range(100, 111),
        *range(200, 213),
        300,
        301,
        *range(400, 405),
        500,
    }
