"""The requests of v2, as they go over the wire."""

from __future__ import annotations

import pytest

from aioetcd2._net.request import FORM, MAX_REQUEST_LINE, Replay, Request, build
from aioetcd2._v2 import requests
from aioetcd2._v2.requests import with_quorum

PLAIN, ONCE = Replay.IF_ALLOWED, Replay.IF_UNSENT


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (requests.read("/k"), "/k"),
        (requests.read("/k", True), "/k?recursive=true"),
        (requests.read("/k", False, True), "/k?sorted=true"),
        (requests.read("/k", True, True, True), "/k?recursive=true&sorted=true&quorum=true"),
        (requests.wait("/k", False, None, stream=True), "/k?wait=true&stream=true"),
        (requests.wait("/k", True, 7, stream=False), "/k?wait=true&recursive=true&waitIndex=8"),
    ],
)
def test_reads(request_: Request, target: str) -> None:
    assert request_ == Request("GET", target)


@pytest.mark.parametrize(
    ("request_", "body", "replay"),
    [
        (requests.put("/k", "v w"), b"value=v+w", PLAIN),
        (requests.put("/k", "", 5), b"value=&ttl=5", PLAIN),
        (requests.put("/k", "v", prev_exist=True), b"value=v&prevExist=true", PLAIN),
        (requests.put("/k", "v", prev_exist=False), b"value=v&prevExist=false", ONCE),
        (requests.put("/k", "v", prev_value=""), b"value=v&prevValue=", ONCE),
        (requests.put("/k", "v", prev_index=7), b"value=v&prevIndex=7", ONCE),
        (
            requests.put("/k", "v", 1, "w", 7, True, True),
            b"value=v&ttl=1&prevExist=true&noValueOnSuccess=true&prevValue=w&prevIndex=7",
            ONCE,
        ),
        (requests.refresh("/k", 9), b"refresh=true&ttl=9&prevExist=true", PLAIN),
        (requests.refresh("/k", 9, "v w"), b"refresh=true&ttl=9&prevValue=v+w", ONCE),
        (requests.refresh("/k", 9, None, 7), b"refresh=true&ttl=9&prevIndex=7", ONCE),
        (requests.refresh("/k", 9, "v", 7), b"refresh=true&ttl=9&prevValue=v&prevIndex=7", ONCE),
        (requests.mkdir("/k", None, None), b"dir=true", PLAIN),
        (requests.mkdir("/k", 3, True), b"dir=true&ttl=3&prevExist=true", PLAIN),
        (requests.mkdir("/k", None, False), b"dir=true&prevExist=false", ONCE),
    ],
)
def test_writes(request_: Request, body: bytes, replay: Replay) -> None:
    assert request_ == Request("PUT", "/k", body, FORM, replay, writes=True)


def test_a_key_in_order() -> None:
    assert requests.post("/k", "v", 5) == Request("POST", "/k", b"value=v&ttl=5", FORM, ONCE, writes=True)


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (requests.delete("/k", False, False, None, None), "/k"),
        (requests.delete("/k", True, True, None, None), "/k?recursive=true&dir=true"),
        (requests.delete("/k", False, False, "a b", 7), "/k?prevValue=a+b&prevIndex=7"),
    ],
)
def test_deletes(request_: Request, target: str) -> None:
    assert request_ == Request("DELETE", target, replay=ONCE, writes=True)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/keys/a", "/v2/keys/a?quorum=true"),
        ("/v2/keys/a?recursive=true", "/v2/keys/a?recursive=true&quorum=true"),
        ("/v2/keys/a%3Fb", "/v2/keys/a%3Fb?quorum=true"),
    ],
)
def test_quorum_is_added_to_a_read(target: str, expected: str) -> None:
    assert with_quorum(Request("GET", target)) == Request("GET", expected)


def test_read_with_quorum_is_repeated_as_the_read_itself() -> None:
    request = with_quorum(Request("GET", "/v2/keys/a", replay=Replay.IF_UNSENT))
    assert request == Request("GET", "/v2/keys/a?quorum=true", replay=Replay.IF_UNSENT)


def test_no_quorum_where_etcd_would_not_read_so_long_a_line() -> None:
    room = MAX_REQUEST_LINE - len("GET ?quorum=true HTTP/1.1\r\n")
    longest = with_quorum(build("GET", "/" + "a" * (room - 1)))
    assert longest is not None
    assert len(f"{longest} HTTP/1.1\r\n") == MAX_REQUEST_LINE
    assert with_quorum(build("GET", "/" + "a" * room)) is None
