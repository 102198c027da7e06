"""From bytes and headers to a model or an error, for every shape in which servers answer."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioetcd2 import (
    APIError,
    AuthError,
    CompareFailedError,
    DirNotEmptyError,
    EndpointError,
    EtcdError,
    EventIndexClearedError,
    Health,
    HTTPResult,
    InvalidFieldError,
    InvalidFormError,
    InvalidIndexError,
    InvalidResponseError,
    InvalidTTLError,
    KeyNotFoundError,
    LeaderElectError,
    MemberConflictError,
    MemberNotFoundError,
    Node,
    NodeExistsError,
    NoLeaderError,
    NotDirError,
    NotFileError,
    PrevValueRequiredError,
    RaftInternalError,
    RedirectError,
    Response,
    RootReadOnlyError,
    ServerError,
    UnauthorizedError,
    Version,
    WatcherClearedError,
)
from aioetcd2._net.verdict import NotServedError
from aioetcd2._v2 import responses as decode

ENDPOINT = "http://10.0.0.1:2379"
REQUEST = "GET /v2/keys/k"
HEADERS = {
    "X-Etcd-Index": "17",
    "X-Raft-Index": "4711",
    "X-Raft-Term": "3",
    "X-Etcd-Cluster-Id": "cdf818194e3a8c32",
}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def result(body: bytes | str | dict[str, Any] = b"", status: int = 200, **headers: str) -> HTTPResult:
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    return HTTPResult(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, ENDPOINT)


def keys(body: bytes | str | dict[str, Any], status: int = 200, **headers: str) -> Response:
    return decode.keys(result(body, status, **headers), REQUEST)


def node_in(response: Response) -> Node:
    assert response.node is not None
    return response.node


def node_of(**node: Any) -> Node:
    return node_in(keys({"action": "get", "node": node}))


def error_of(body: bytes | str | dict[str, Any], status: int) -> EtcdError:
    error = decode.failure(result(body, status), REQUEST)
    with pytest.raises(type(error)):
        keys(body, status)
    return error


# What succeeds


def test_set_of_a_new_key() -> None:
    body = b'{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}\n'
    response = decode.keys(HTTPResult(201, HEADERS, body, ENDPOINT), "PUT /v2/keys/a")
    assert response == Response(
        "set", Node("/a", "1", created_index=4, modified_index=4), None, 17, 4711, 3, "cdf818194e3a8c32"
    )


def test_set_of_an_old_key_has_the_previous_node() -> None:
    response = keys(
        '{"action":"set","node":{"key":"/a","value":"2","modifiedIndex":5,"createdIndex":5},'
        '"prevNode":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}'
    )
    assert response.node == Node("/a", "2", created_index=5, modified_index=5)
    assert response.prev_node == Node("/a", "1", created_index=4, modified_index=4)


def test_deleted_key_has_no_value() -> None:
    response = keys(
        '{"action":"delete","node":{"key":"/a","modifiedIndex":6,"createdIndex":4},'
        '"prevNode":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}'
    )
    assert response.node is not None
    assert response.node.value is None
    assert not response.node.dir


def test_empty_value_is_no_missing_value() -> None:
    assert node_of(key="/a", value="").value == ""


def test_root_has_no_key_and_no_index() -> None:
    node = node_of(dir=True, nodes=[{"key": "/a", "value": "1", "modifiedIndex": 4, "createdIndex": 4}])
    assert node == Node("/", None, True, (Node("/a", "1", created_index=4, modified_index=4),))


def test_empty_directory_has_no_nodes() -> None:
    assert node_of(key="/d", dir=True, modifiedIndex=4, createdIndex=4) == Node(
        "/d", None, True, (), created_index=4, modified_index=4
    )


def test_directory_is_listed_to_the_bottom_and_in_order() -> None:
    node = node_of(
        key="/d", dir=True, nodes=[{"key": "/d/b"}, {"key": "/d/a", "dir": True, "nodes": [{"key": "/d/a/x"}]}]
    )
    assert [child.key for child in node.nodes] == ["/d/b", "/d/a"]
    assert [leaf.key for leaf in node.leaves()] == ["/d/b", "/d/a/x"]


def test_no_value_on_success_has_no_node() -> None:
    response = keys('{"action":"set"}', 201)
    assert (response.action, response.node, response.prev_node) == ("set", None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\u003cb\u003e\u0026\u2028"', "a<b>&\u2028"),
        (r'"\ud83d\ude00"', "😀"),
        ('"😀é"', "😀é"),
        (r'"\u0000\r\n\t\"\\"', '\0\r\n\t"\\'),
        ('"\ufffd"', "\ufffd"),
    ],
)
def test_value_is_unescaped(text: str, value: str) -> None:
    response = keys(f'{{"action":"get","node":{{"key":"/a","value":{text}}}}}')
    assert response.node is not None
    assert response.node.value == value


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
def test_long_value(size: int) -> None:
    assert node_of(key="/a", value="x" * size).value == "x" * size


def test_expired_directory_of_an_old_server_is_a_directory() -> None:
    response = keys(
        '{"action":"expire","node":{"key":"/d","modifiedIndex":9,"createdIndex":4},'
        '"prevNode":{"key":"/d","dir":true,"expiration":"2026-11-23T10:46:04Z","modifiedIndex":4,"createdIndex":4}}'
    )
    assert response.node == Node("/d", None, True, created_index=4, modified_index=9)


@pytest.mark.parametrize("action", ["expire", "delete"])
def test_expired_file_is_no_directory(action: str) -> None:
    response = keys({"action": action, "node": {"key": "/a"}, "prevNode": {"key": "/a", "value": "1"}})
    assert response.node is not None
    assert not response.node.dir


def test_file_in_place_of_a_directory_is_a_file() -> None:
    response = keys({"action": "set", "node": {"key": "/a", "value": "1"}, "prevNode": {"key": "/a", "dir": True}})
    assert response.node == Node("/a", "1")


@pytest.mark.parametrize(
    ("fraction", "microsecond"),
    [
        ("", 0),
        (".8", 800_000),
        (".82", 820_000),
        (".822", 822_000),
        (".8223", 822_300),
        (".82234", 822_340),
        (".822343", 822_343),
        (".8223436", 822_344),
        (".82234365", 822_344),
        (".822343158", 822_343),
        (".000000001", 0),
    ],
)
def test_expiration_has_up_to_nine_digits(fraction: str, microsecond: int) -> None:
    node = node_of(key="/a", expiration=f"2026-11-23T10:46:04{fraction}Z", ttl=100)
    assert node.expiration is not None
    exact = datetime(2026, 11, 23, 10, 46, 4, microsecond, tzinfo=timezone.utc)
    assert abs(node.expiration - exact) <= timedelta(microseconds=1)
    assert node.expiration.utcoffset() == timedelta(0)
    assert node.ttl == 100


def test_expiration_just_before_a_second_does_not_overflow() -> None:
    node = node_of(key="/a", expiration="2026-12-31T23:59:59.999999999Z")
    assert node.expiration is not None
    last = datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)
    assert last <= node.expiration <= last + timedelta(microseconds=1)


def test_expiration_may_be_far_away() -> None:
    node = node_of(key="/a", expiration="2248-09-15T07:20:00Z", ttl=7_000_000_000)
    assert node.ttl == 7_000_000_000


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("2026-11-23T10:46:04.8Z", 10),
        ("2026-11-23T10:46:04.8z", 10),
        ("2026-11-23T10:46:04.8+00:00", 10),
        ("2026-11-23T12:46:04.8+02:00", 10),
        ("2026-11-22T22:46:04.8-12:00", 10),
        ("2026-11-23T10:46:04.8", 10),  # no server leaves the offset out, and UTC is what Go has without one
    ],
)
def test_expiration_is_in_utc_whatever_the_offset(written: str, hour: int) -> None:
    file = {"key": "/d/a", "expiration": written, "ttl": 5}
    tree = {"key": "/d", "dir": True, "expiration": written, "nodes": [{"key": "/d/e", "dir": True, "nodes": [file]}]}
    response = keys({"action": "set", "node": tree, "prevNode": file})
    outer = node_in(response)
    inner, before = next(outer.leaves()), response.prev_node
    assert before is not None
    for node in (outer, inner, before):
        assert node.expiration == datetime(2026, 11, 23, hour, 46, 4, 800_000, tzinfo=timezone.utc)
        assert node.expiration.tzinfo is timezone.utc
    assert (outer.ttl, inner.ttl, before.ttl) == (0, 5, 5)


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_expiration_beyond_the_calendar_is_no_answer_of_etcd(written: str) -> None:
    with pytest.raises(InvalidResponseError, match="probably not an etcd v2 endpoint"):
        node_of(key="/a", expiration=written, ttl=5)


@pytest.mark.parametrize("ttl", [{}, {"ttl": None}, {"ttl": 0}, {"ttl": -1}, {"ttl": -43}], ids=str)
def test_ttl_is_0_at_the_end_of_a_key(ttl: dict[str, Any]) -> None:
    """The server leaves out a TTL of 0, and without a leader it goes on counting below that."""
    ending = {"key": "/d/a", "expiration": "2026-11-23T10:46:04.8Z", **ttl}
    response = keys({"action": "expire", "node": {"key": "/d", "nodes": [ending, ending]}, "prevNode": ending})
    (event,) = decode.events(json.dumps({"action": "expire", "prevNode": ending}).encode(), (0, 0, 0, ""), result())
    for node in (*node_in(response).nodes, response.prev_node, event.prev_node):
        assert node is not None
        assert node.ttl == 0
        assert node.expiration is not None


def test_no_ttl() -> None:
    node = node_of(key="/a", value="1")
    assert (node.ttl, node.expiration) == (None, None)


def test_largest_index() -> None:
    response = keys(
        {"action": "get", "node": {"key": "/a", "modifiedIndex": 2**63 - 1, "createdIndex": 2**62}},
        X_Etcd_Index=str(2**63 - 1),
    )
    assert response.node is not None
    assert (response.node.modified_index, response.node.created_index) == (2**63 - 1, 2**62)
    assert response.index == 2**63 - 1


@pytest.mark.parametrize("index", [-1, 2**63, 2**64, 10**4000])
def test_index_that_no_cluster_reaches(index: int) -> None:
    with pytest.raises(InvalidResponseError):
        keys({"action": "get", "node": {"key": "/a", "modifiedIndex": index}})
    with pytest.raises(InvalidResponseError):
        keys({"action": "get", "node": {"key": "/a"}}, X_Etcd_Index=str(index))
    with pytest.raises(InvalidResponseError):
        decode.marks(result(b"", X_Etcd_Index=str(index)))


def test_unknown_fields_are_passed_over() -> None:
    response = keys({"action": "get", "node": {"key": "/a", "value": "1", "new": [{"x": 1}]}, "more": None})
    assert response.node == Node("/a", "1")


def test_missing_headers_are_zero() -> None:
    response = keys('{"action":"get"}')
    assert (response.index, response.raft_index, response.raft_term, response.cluster_id) == (0, 0, 0, "")


def test_event_of_a_stream_has_the_marks_of_its_head() -> None:
    head = HTTPResult(200, HEADERS, b"", ENDPOINT)
    line = b'{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":19,"createdIndex":19}}\n'
    first, second = decode.events(line * 2, decode.marks(head), head)
    assert (
        first
        == second
        == Response("set", Node("/a", "1", created_index=19, modified_index=19), None, 17, 4711, 3, "cdf818194e3a8c32")
    )


def test_event_that_is_none_is_shown_itself() -> None:
    head = result(b"")
    with pytest.raises(InvalidResponseError) as caught:
        decode.events(b"<html>", decode.marks(head), head)
    assert caught.value.body == b"<html>"


# What the server refuses

CODES: list[tuple[int, int, str, type[APIError]]] = [
    (100, 404, "Key not found", KeyNotFoundError),
    (101, 412, "Compare failed", CompareFailedError),
    (102, 403, "Not a file", NotFileError),
    (103, 400, "Reached the max number of peers in the cluster", APIError),
    (104, 400, "Not a directory", NotDirError),
    (105, 412, "Key already exists", NodeExistsError),
    (106, 400, "The prefix of given key is a keyword in etcd", APIError),
    (107, 400, "Root is read only", RootReadOnlyError),
    (108, 403, "Directory not empty", DirNotEmptyError),
    (109, 400, "Peer address has existed", APIError),
    (110, 401, "The request requires user authentication", UnauthorizedError),
    (200, 400, "Value is Required in POST form", APIError),
    (201, 400, "PrevValue is Required in POST form", PrevValueRequiredError),
    (202, 400, "The given TTL in POST form is not a number", InvalidTTLError),
    (203, 400, "The given index in POST form is not a number", InvalidIndexError),
    (204, 400, "Value or TTL is required in POST form", APIError),
    (205, 400, "The given timeout in POST form is not a number", APIError),
    (206, 400, "Name is required in POST form", APIError),
    (207, 400, "Index or value is required", APIError),
    (208, 400, "Index and value cannot both be specified", APIError),
    (209, 400, "Invalid field", InvalidFieldError),
    (210, 400, "Invalid POST form", InvalidFormError),
    (211, 400, "Value provided on refresh", APIError),
    (212, 400, "A TTL must be provided on refresh", APIError),
    (301, 400, "During Leader Election", LeaderElectError),
    (400, 400, "watcher is cleared due to etcd recovery", WatcherClearedError),
    (401, 400, "The event in requested index is outdated and cleared", EventIndexClearedError),
    (402, 400, "Standby Internal Error", APIError),
    (403, 400, "Invalid active size", APIError),
    (404, 400, "Standby remove delay", APIError),
    (500, 400, "Client Internal Error", APIError),
    (999, 400, "Never heard of", APIError),
    (-1, 400, "Never heard of", APIError),
]


@pytest.mark.parametrize(("code", "status", "message", "cls"), CODES)
def test_error_code_becomes_a_class(code: int, status: int, message: str, cls: type[APIError]) -> None:
    error = error_of({"errorCode": code, "message": message, "cause": "/k", "index": 18}, status)
    assert type(error) is cls
    assert isinstance(error, APIError)
    assert (error.code, error.message, error.cause, error.index, error.status) == (code, message, "/k", 18, status)
    assert error.endpoint == ENDPOINT
    assert str(error) == f"{REQUEST} at {ENDPOINT}: {code} {message} (/k) [index 18]"


def test_code_counts_more_than_status() -> None:
    assert type(error_of({"errorCode": 102, "message": "Not a file"}, 401)) is NotFileError
    assert type(error_of({"errorCode": 999, "message": "New"}, 403)) is APIError


def test_error_without_a_cause() -> None:
    error = error_of('{"errorCode":102,"message":"Not a file","index":0}\n', 403)
    assert isinstance(error, NotFileError)
    assert (error.cause, error.index) == ("", 0)
    assert str(error) == f"{REQUEST} at {ENDPOINT}: 102 Not a file"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "Insufficient credentials"}, "Insufficient credentials"),
        ("Forbidden by the gateway\n", "Forbidden by the gateway"),
        ("<html>401</html>", "<html>401</html>"),
        ("", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("{}", "{}"),
    ],
)
def test_every_plain_401_and_403_is_unauthorized(status: int, body: bytes | str | dict[str, Any], message: str) -> None:
    error = error_of(body, status)
    assert type(error) is UnauthorizedError
    assert (error.code, error.status, error.message) == (0, status, message)


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "bad"), (404, "Not found"), (409, "exists"), (410, "gone"), (415, "Bad Content-Type"), (429, "slow down")],
)
def test_refusal_without_a_code(status: int, message: str) -> None:
    error = error_of({"message": message}, status)
    assert type(error) is APIError
    assert (error.code, error.status, error.message) == (0, status, message)
    assert str(error) == f"{REQUEST} at {ENDPOINT}: {status} {message}"


@pytest.mark.parametrize("body", ["404 page not found\n", "404 page not found"])
def test_page_that_is_not_found(body: str) -> None:
    error = error_of(body, 404)
    assert type(error) is NotServedError
    assert isinstance(error, InvalidResponseError)
    assert error.status == 404


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirect_that_was_not_followed(status: int) -> None:
    error = decode.failure(result(b"", status, Location="http://b:1/x"), REQUEST)
    assert type(error) is RedirectError
    assert f"redirect {status} to 'http://b:1/x'" in str(error)


# What an endpoint gets wrong

OWN_CAUSES = [
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: server stopped",
    "etcdserver: no leader",
    "raft: stopped",
    "context deadline exceeded",
    "context canceled",
    "",
]


@pytest.mark.parametrize("cause", OWN_CAUSES)
def test_300_of_the_server_itself_is_no_leader(cause: str) -> None:
    error = error_of({"errorCode": 300, "message": "Raft Internal Error", "cause": cause, "index": 0}, 500)
    assert type(error) is NoLeaderError
    assert error.endpoint == ENDPOINT
    assert "Raft Internal Error" in error.reason
    assert cause in error.reason


@pytest.mark.parametrize("cause", ["nodePath /1/d : Not a file ()", "Not a file", "TTLs are unsupported"])
def test_300_about_the_request_is_an_answer(cause: str) -> None:
    error = error_of({"errorCode": 300, "message": "Raft Internal Error", "cause": cause, "index": 0}, 500)
    assert type(error) is RaftInternalError
    assert (error.code, error.cause, error.status) == (300, cause, 500)


def test_301_is_no_leader() -> None:
    assert type(error_of({"errorCode": 301, "message": "During Leader Election"}, 500)) is NoLeaderError


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ""),
        ({"message": "During election"}, "During election"),
    ],
)
def test_bare_503_is_no_leader(body: str | dict[str, Any], words: str) -> None:
    error = error_of(body, 503)
    assert type(error) is NoLeaderError
    assert f"503 {words}".strip() in str(error)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("proxy: zero endpoints currently available\n", "proxy: zero endpoints currently available"),
        ("<html>503</html>", "<html>503</html>"),
        ("[" * 1000, "["),
    ],
)
def test_a_proxy_s_503_is_the_proxy_s(body: str, words: str) -> None:
    error = error_of(body, 503)
    assert type(error) is ServerError
    assert f"503 {words}" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, "", "500"),
        (500, {"message": "Internal Server Error"}, "500 Internal Server Error"),
        (500, {"errorCode": 500, "message": "Client Internal Error", "cause": "x"}, "500 Client Internal Error (x)"),
        (503, {"errorCode": 402, "message": "Standby Internal Error"}, "503 Standby Internal Error"),
        (
            502,
            {"message": "proxy: unable to get response from 1 endpoint(s)"},
            "502 proxy: unable to get response from 1",
        ),
        (502, "<html>Bad Gateway</html>", "502 <html>Bad Gateway</html>"),
        (504, "upstream timed out\n", "504 upstream timed out"),
        (501, "", "501"),
        (500, b"\xff\x00", "500 \ufffd\x00"),
        (599, "{}", "599 {}"),
    ],
)
def test_other_5xx_keeps_the_server_s_words(status: int, body: bytes | str | dict[str, Any], words: str) -> None:
    error = error_of(body, status)
    assert type(error) is ServerError
    assert error.status == status
    assert words in str(error)


def test_long_words_are_cut() -> None:
    error = error_of("x" * 1_000_000, 502)
    assert len(str(error)) < 5_000
    assert "y" * 300 in str(error_of("y" * 300, 502))


NO_ANSWERS = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\n", id="blank"),
    pytest.param(b"<html><body>It works!</body></html>", id="html"),
    pytest.param(b"OK", id="text"),
    pytest.param(b'{"action":"get","node":{"key":"/a"', id="half"),
    pytest.param(b'{"action":"get","node":{"key":"/a","value":"x', id="half a string"),
    pytest.param(b'{"action":"get"}}', id="too much"),
    pytest.param(b'{"action":"get"}{"action":"get"}', id="two"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="array"),
    pytest.param(b"7", id="number"),
    pytest.param(b'"get"', id="string"),
    pytest.param(b"{}", id="no action"),
    pytest.param(b'{"message":"hello"}', id="other json"),
    pytest.param(b'{"action":7}', id="action of another type"),
    pytest.param(b'{"action":null}', id="action is null"),
    pytest.param(b'{"action":"get","node":[]}', id="node is an array"),
    pytest.param(b'{"action":"get","node":{"key":7}}', id="key is a number"),
    pytest.param(b'{"action":"get","node":{"value":{}}}', id="value is an object"),
    pytest.param(b'{"action":"get","node":{"dir":"true"}}', id="dir is a string"),
    pytest.param(b'{"action":"get","node":{"nodes":{}}}', id="nodes is an object"),
    pytest.param(b'{"action":"get","node":{"nodes":[null]}}', id="node in nodes is null"),
    pytest.param(b'{"action":"get","node":{"modifiedIndex":"7"}}', id="index is a string"),
    pytest.param(b'{"action":"get","node":{"modifiedIndex":1.5}}', id="index is a fraction"),
    pytest.param(b'{"action":"get","node":{"modifiedIndex":' + b"9" * 5000 + b"}}", id="index of 5000 digits"),
    pytest.param(b'{"action":"get","node":{"ttl":"5"}}', id="ttl is a string"),
    pytest.param(b'{"action":"get","node":{"ttl":1e400}}', id="ttl is infinite"),
    pytest.param(b'{"action":"get","node":{"expiration":"soon"}}', id="expiration is no time"),
    pytest.param(b'{"action":"get","node":{"expiration":"2026-13-23T10:46:04Z"}}', id="expiration in month 13"),
    pytest.param(b'{"action":"get","prevNode":7}', id="prevNode is a number"),
    pytest.param(b'{"action":"\xff"}', id="no utf-8"),
    pytest.param(b"\x00\x01\x02\x1f\x8b", id="binary"),
    pytest.param(b"[" * 100_000, id="deep arrays"),
    pytest.param(b'{"action":"get","more":' + b"[" * 100_000, marks=pytest.mark.slow, id="deep unknown arrays"),
    pytest.param(b'{"action":"get","more":' + b'{"a":' * 100_000, marks=pytest.mark.slow, id="deep unknown objects"),
    pytest.param(b'{"action":"get","node":' + b'{"nodes":[' * 100_000, marks=pytest.mark.slow, id="deep nodes"),
]


@pytest.mark.parametrize("body", NO_ANSWERS)
def test_what_is_no_answer_of_etcd(body: bytes) -> None:
    for status in (200, 201):
        with pytest.raises(InvalidResponseError, match="probably not an etcd v2 endpoint") as caught:
            keys(body, status)
        assert caught.value.status == status
        assert caught.value.endpoint == ENDPOINT
        assert caught.value.body == body[:200]
        assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("body", NO_ANSWERS)
def test_what_is_no_refusal_of_etcd(body: bytes) -> None:
    expected = APIError if body == b'{"message":"hello"}' else InvalidResponseError
    for status in (204, 400, 404, 418):
        error = error_of(body, status)
        assert type(error) is expected
        assert error.status == status


@pytest.mark.parametrize("body", NO_ANSWERS)
def test_what_is_no_failure_of_etcd_is_a_failure_all_the_same(body: bytes) -> None:
    assert type(error_of(body, 500)) is ServerError
    own = not body.strip() or b'"message"' in body
    assert type(error_of(body, 503)) is (NoLeaderError if own else ServerError)


@pytest.mark.parametrize(
    "body",
    [
        {"errorCode": "100", "message": "Key not found"},
        {"errorCode": 100.5, "message": "Key not found"},
        {"errorCode": 100, "message": 7},
        {"errorCode": None, "message": "x"},
        {"errorCode": 0},
        [100],
    ],
)
def test_error_of_a_wrong_shape(body: Any) -> None:
    assert type(error_of(json.dumps(body), 404)) is InvalidResponseError


@pytest.mark.parametrize("value", ["", "abc", "1.5", "0x10", "7, 8", "9" * 5000], ids=lambda value: value[:9])
def test_header_that_is_no_number(value: str) -> None:
    for name in ("X-Etcd-Index", "X-Raft-Index", "X-Raft-Term"):
        with pytest.raises(InvalidResponseError):
            decode.keys(HTTPResult(200, {name: value}, b'{"action":"get"}', ENDPOINT), REQUEST)


def outcome_of(body: bytes | str, status: int) -> Response | EtcdError:
    try:
        return keys(body, status)
    except EtcdError as error:
        return error


@given(st.binary(), st.integers(100, 599))
def test_any_bytes_become_a_response_or_an_error_of_ours(body: bytes, status: int) -> None:
    assert isinstance(
        outcome_of(body, status), (Response, APIError, EndpointError, InvalidResponseError, RedirectError)
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["action", "node", "nodes", "prevNode", "key", "value", "dir", "ttl", "errorCode", "message"]
            ),
            inner,
        )
    ),
)


@given(JSON, st.sampled_from([200, 201, 400, 401, 404, 500, 503]))
@pytest.mark.slow
def test_any_json_becomes_a_response_or_an_error_of_ours(body: Any, status: int) -> None:
    assert isinstance(outcome_of(json.dumps(body), status), (Response, APIError, EndpointError, InvalidResponseError))


# Version, health, and what has no error codes


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ('{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}', Version("3.5.1", "3.5.0")),
        ('{"etcdserver":"3.0.17","etcdcluster":"not_decided"}', Version("3.0.17", "not_decided")),
        ('{"etcdserver":"3.6.4","etcdcluster":"3.6.0","storage":"3.6.0"}', Version("3.6.4", "3.6.0")),
        ('{"etcdserver":"2.0.0"}', Version("2.0.0", "")),
    ],
)
def test_version(body: str, version: Version) -> None:
    assert decode.version(result(body), "GET /version") == version


@pytest.mark.parametrize("body", ["", "etcd 0.4.9", "{}", "[]", '{"etcdserver":3}'])
def test_version_of_no_etcd(body: str) -> None:
    with pytest.raises(InvalidResponseError):
        decode.version(result(body), "GET /version")


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (200, '{"health": "true"}', Health(True)),
        (200, '{"health":"true"}', Health(True)),
        (200, '{"health":"true","reason":""}', Health(True)),
        (200, '{"health":true}', Health(True)),
        (503, '{"health": "false"}', Health(False)),
        (503, '{"health":"false","reason":"RAFT NO LEADER"}', Health(False, "RAFT NO LEADER")),
        (200, '{"health":false}', Health(False)),
    ],
)
def test_health(status: int, body: str, health: Health) -> None:
    assert decode.health(result(body, status), "GET /health") == health


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"health":7}'])
def test_health_of_no_etcd(status: int, body: str) -> None:
    with pytest.raises(InvalidResponseError):
        decode.health(result(body, status), "GET /health")


@pytest.mark.parametrize(("status", "cls"), [(404, NotServedError), (500, ServerError), (421, InvalidResponseError)])
def test_health_and_version_fail_as_any(status: int, cls: type[EtcdError]) -> None:
    for parse in (decode.health, decode.version):
        with pytest.raises(cls):
            parse(result("404 page not found", status), REQUEST)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 418])
def test_raw_passes_on_what_is_below_500(status: int) -> None:
    given = result(b"<html>", status)
    assert decode.raw(given, REQUEST) == given


def test_raw_body_is_bytes_whatever_the_transport_read_it_into() -> None:
    given = HTTPResult(200, {}, bytearray(b"<html>"), ENDPOINT)  # type: ignore[arg-type]
    assert type(decode.raw(given, REQUEST).body) is bytes


@pytest.mark.parametrize(("status", "cls"), [(500, ServerError), (502, ServerError), (503, NoLeaderError)])
def test_raw_raises_what_is_the_endpoint_s_failure(status: int, cls: type[EtcdError]) -> None:
    with pytest.raises(cls):
        decode.raw(result(b"", status), REQUEST)


BY_STATUS: dict[int, type[APIError]] = {404: MemberNotFoundError, 409: MemberConflictError}


@pytest.mark.parametrize(
    ("status", "body", "cls", "message"),
    [
        (404, {"message": "No such member: zzz"}, MemberNotFoundError, "No such member: zzz"),
        (409, {"message": "membership: peerURL exists"}, MemberConflictError, "membership: peerURL exists"),
        (400, {"message": "no valid URLs given"}, AuthError, "no valid URLs given"),
        (401, {"message": "Insufficient credentials"}, UnauthorizedError, "Insufficient credentials"),
        (403, "no", UnauthorizedError, "no"),
    ],
)
def test_refusal_is_told_by_its_status(
    status: int, body: str | dict[str, Any], cls: type[APIError], message: str
) -> None:
    error = decode.refusal(result(body, status), REQUEST, BY_STATUS, AuthError)
    assert type(error) is cls
    assert isinstance(error, APIError)
    assert (error.message, error.status, error.endpoint) == (message, status, ENDPOINT)


def test_refusal_by_status_may_be_a_403() -> None:
    error = decode.refusal(result({"message": "not current leader"}, 403), REQUEST, {403: AuthError})
    assert type(error) is AuthError


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (404, "404 page not found\n", NotServedError),
        (404, "<html>", InvalidResponseError),
        (500, {"message": "Internal Server Error"}, ServerError),
        (503, {"message": "During election"}, NoLeaderError),
        (404, {"errorCode": 100, "message": "Key not found"}, KeyNotFoundError),
    ],
)
def test_other_failures_stay_what_they_are(status: int, body: str | dict[str, Any], cls: type[EtcdError]) -> None:
    assert type(decode.refusal(result(body, status), REQUEST, BY_STATUS)) is cls


@pytest.mark.parametrize(
    ("body", "words"),
    [({"message": "auth: already enabled"}, "auth: already enabled"), (" plain \n", "plain"), ("", ""), ("{}", "{}")],
)
def test_words_of_a_refusal(body: str | dict[str, Any], words: str) -> None:
    assert decode.message_of(result(body, 409), REQUEST) == words


def test_hint_follows_the_words() -> None:
    error = decode.api_error(AuthError, result(b"", 409), "PUT /v2/auth/enable", "no root user", "add one first")
    assert str(error) == f"PUT /v2/auth/enable at {ENDPOINT}: 409 no root user; add one first"
