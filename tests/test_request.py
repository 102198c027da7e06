"""Requests as values: paths, queries, forms, and what is refused before anything is sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioetcd2._net.request import (
    FORM,
    JSON,
    MAX_FORM,
    MAX_REQUEST_LINE,
    Replay,
    Request,
    build,
    check_method,
    check_text,
    encode_form,
    quote_path,
    quote_segment,
)

VALID_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NOT_UNICODE = "half a \ud83d smile"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("/a", "/a"),
        ("a", "/a"),
        ("a/b", "/a/b"),
        ("", "/"),
        ("/", "/"),
        ("///", "/"),
        ("//a///b//", "/a/b/"),
        ("/a/", "/a/"),
        ("/a b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/a%2Fb", "/a%252Fb"),
        ("/%2e%2e/a", "/%252e%252e/a"),
        ("/a?b", "/a%3Fb"),
        ("/a#b", "/a%23b"),
        ("/a+b", "/a%2Bb"),
        ("/a;b&c=d", "/a%3Bb%26c%3Dd"),
        ("/a:b@c", "/a%3Ab%40c"),
        ("/[a]\\", "/%5Ba%5D%5C"),
        ("/nul\0", "/nul%00"),
        ("/a\r\nb", "/a%0D%0Ab"),
        ("/é", "/%C3%A9"),
        ("/😀", "/%F0%9F%98%80"),
        ("/_hidden", "/_hidden"),
        ("/~a.b-c", "/~a.b-c"),
        ("/.a", "/.a"),
        ("/a.", "/a."),
        ("/...", "/..."),
        ("/..a/b..", "/..a/b.."),
        ("/.a b/..c d", "/.a%20b/..c%20d"),
    ],
)
def test_key_becomes_path(key: str, path: str) -> None:
    assert quote_path(key) == path


@given(VALID_TEXT)
def test_every_key_arrives_as_given_or_is_refused(key: str) -> None:
    segments = [segment for segment in key.split("/") if segment]
    if "." in segments or ".." in segments:
        with pytest.raises(ValueError):
            quote_path(key)
        return
    path = quote_path(key)
    assert path.isascii()
    assert path.startswith("/")
    assert "//" not in path
    assert not set(path) & set("?#+;&\\ \r\n")
    assert [part for part in unquote(path).split("/") if part] == segments


@pytest.mark.parametrize("key", [".", "..", "/.", "/..", "../members", "/a/../b", "/a/./b", "/a/..", "//..//", "/./"])
def test_no_key_leaves_the_prefix(key: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        quote_path(key)


def test_key_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="valid Unicode"):
        quote_path(f"/{NOT_UNICODE}")


@pytest.mark.parametrize("key", [b"/a", 1, None, ["a"]])
def test_key_of_another_type_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="a path is a str"):
        quote_path(key)


@pytest.mark.parametrize(
    ("name", "segment"),
    [("bob", "bob"), ("a b", "a%20b"), ("a%2Fb", "a%252Fb"), ("a?#+", "a%3F%23%2B"), ("é", "%C3%A9")],
)
def test_name_becomes_segment(name: str, segment: str) -> None:
    assert quote_segment("a user name", name) == segment


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", NOT_UNICODE])
def test_name_that_is_no_segment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a user name is"):
        quote_segment("a user name", name)


def test_name_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a user name is a str, not int"):
        quote_segment("a user name", 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([], b""),
        ([("value", "")], b"value="),
        ([("value", "a b")], b"value=a+b"),
        ([("value", "1+1=2&x;y%")], b"value=1%2B1%3D2%26x%3By%25"),
        ([("value", "é\n\0")], b"value=%C3%A9%0A%00"),
        ([("value", "v"), ("ttl", "5"), ("prevExist", "true")], b"value=v&ttl=5&prevExist=true"),
    ],
)
def test_form_is_encoded(fields: list[tuple[str, str]], body: bytes) -> None:
    assert encode_form(fields) == body


@given(VALID_TEXT)
def test_every_value_survives_a_form(value: str) -> None:
    assert dict(parse_qsl(encode_form([("value", value)]).decode(), keep_blank_values=True)) == {"value": value}


def test_request_without_query_and_body() -> None:
    request = build("GET", "/v2/keys/a")
    assert request == Request("GET", "/v2/keys/a", None, None, Replay.ALWAYS, False, False)
    assert request == Request("GET", "/v2/keys/a")
    assert str(request) == "GET /v2/keys/a"


def test_query_goes_behind_the_path() -> None:
    request = build("DELETE", "/v2/keys/a", query=[("prevValue", "a b&c+é"), ("prevIndex", "7")])
    assert request.target == "/v2/keys/a?prevValue=a+b%26c%2B%C3%A9&prevIndex=7"
    assert request.body is None


def test_form_goes_with_its_content_type() -> None:
    request = build("PUT", "/v2/keys/a", form=[("value", "x")], replay=Replay.IF_UNSENT)
    assert (request.body, request.content_type, request.replay) == (b"value=x", FORM, Replay.IF_UNSENT)
    assert request.target == "/v2/keys/a"
    assert FORM == "application/x-www-form-urlencoded"


def test_empty_form_still_goes_with_its_content_type() -> None:
    request = build("PUT", "/v2/keys/a", form=[])
    assert (request.body, request.content_type) == (b"", FORM)


def test_json_goes_with_its_content_type_and_no_charset() -> None:
    request = build("POST", "/v2/members", json=b"{}", secret=True)
    assert (request.body, request.content_type, request.secret) == (b"{}", "application/json", True)
    assert JSON == "application/json"


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/v2/auth/users/bob", True),
        ("/v3/auth/authenticate", True),
        ("/v3beta/auth/user/add", True),
        ("/behind/a/proxy/v3/auth/authenticate", True),
        ("/v2/auth", True),
        ("/auth/x", True),
        ("/v2/keys/auth/x", True),
        ("/v2/keys/authors", False),
        ("/v2/keys/oauth/x", False),
        ("/v2/keys/a", False),
    ],
)
def test_what_is_below_a_segment_auth_is_secret(path: str, secret: bool) -> None:
    request = build("PUT", path, query=[("a", "hunter2")], form=[("value", "hunter2")])
    assert request.secret is secret
    assert ("hunter2" in f"{request!r} {request}") is not secret
    assert str(request) == f"PUT {path}?{'***' if secret else 'a=hunter2'}"
    assert request.target == f"{path}?a=hunter2"
    assert str(build("GET", path)) == f"GET {path}"


def test_text_of_a_request_shows_no_body() -> None:
    assert "hunter2" not in str(build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=True))


@pytest.mark.parametrize(("secret", "body"), [(False, """b'{"password":"hunter2"}'"""), (True, "'***'")])
def test_what_a_request_shows(secret: bool, body: str) -> None:
    request = build("PUT", "/v2/x", json=b'{"password":"hunter2"}', secret=secret, replay=Replay.IF_UNSENT)
    assert repr(request) == f"Request(PUT /v2/x, {body}, if_unsent)"


def test_equal_requests_are_equal_and_immutable() -> None:
    first, second = (build("PUT", "/v2/keys/a", form=[("value", "x")]) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != build("PUT", "/v2/keys/a", form=[("value", "y")])
    with pytest.raises(AttributeError):
        first.method = "POST"  # type: ignore[misc]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_request_line_is_as_long_as_etcd_reads(method: str) -> None:
    room = MAX_REQUEST_LINE - len(f"{method}  HTTP/1.1\r\n")
    request = build(method, "/" + "a" * (room - 1))
    assert len(f"{request} HTTP/1.1\r\n") == 4096
    with pytest.raises(ValueError, match="4097 bytes, but etcd reads 4096"):
        build(method, "/" + "a" * room)


def test_query_counts_for_the_request_line() -> None:
    with pytest.raises(ValueError, match="request line"):
        build("DELETE", "/v2/keys/a", query=[("prevValue", "é" * 700)])


def test_value_in_a_form_does_not_count_for_the_request_line() -> None:
    request = build("PUT", "/v2/keys/a", form=[("value", "x" * 100_000), ("prevValue", "y" * 100_000)])
    assert request.target == "/v2/keys/a"


def test_form_is_as_long_as_etcd_reads() -> None:
    value = "x" * (MAX_FORM - len("value="))
    body = build("PUT", "/v2/keys/a", form=[("value", value)]).body
    assert body is not None
    assert len(body) == 10 * 1024 * 1024
    with pytest.raises(ValueError, match="the form would be"):
        build("PUT", "/v2/keys/a", form=[("value", value + "x")])


def test_length_of_a_form_is_that_of_its_encoded_body() -> None:
    with pytest.raises(ValueError, match="the form would be"):
        build("PUT", "/v2/keys/a", form=[("value", "é" * (MAX_FORM // 6 + 1))])


def test_query_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError):
        build("DELETE", "/v2/keys/a", query=[("prevValue", NOT_UNICODE)])


@pytest.mark.parametrize(
    ("method", "writes"),
    [
        ("GET", False),
        ("HEAD", False),
        ("OPTIONS", False),
        ("PUT", True),
        ("POST", True),
        ("DELETE", True),
        ("PATCH", True),
    ],
)
def test_writes(method: str, writes: bool) -> None:
    assert build(method, "/").writes is writes
    assert build(method, "/", writes=not writes).writes is not writes


@pytest.mark.parametrize(
    ("method", "replay"),
    [("GET", Replay.ALWAYS), ("HEAD", Replay.ALWAYS)]
    + [(method, Replay.IF_UNSENT) for method in ("OPTIONS", "PUT", "POST", "DELETE", "PATCH")],
)
def test_what_reads_is_repeated_and_nothing_else(method: str, replay: Replay) -> None:
    assert build(method, "/").replay is replay
    assert {build(method, "/", replay=wanted).replay for wanted in Replay} == set(Replay)


@pytest.mark.parametrize("text", ["", "x", "\0", "\r\n", "é", "😀", "\ufffd", "\u2028"])
def test_text_is_passed_on(text: str) -> None:
    assert check_text("value", text) is text


@pytest.mark.parametrize("text", ["\ud800", "low \udcff", f"é{NOT_UNICODE}"])
def test_text_that_is_no_unicode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"value is valid Unicode: .* at position"):
        check_text("value", text)


@pytest.mark.parametrize("value", [b"x", 1, 1.5, None, True])
def test_value_of_another_type_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^value is a str, not {type(value).__name__}$"):
        check_text("value", value)


@pytest.mark.parametrize(
    ("method", "expected"), [("get", "GET"), ("PUT", "PUT"), ("Delete", "DELETE"), ("m-search", "M-SEARCH")]
)
def test_method_is_in_capitals(method: str, expected: str) -> None:
    assert check_method(method) == expected


@pytest.mark.parametrize("method", ["", "GET ", "GET\r\nX: y", "G/T", "é", b"GET", None])
def test_method_that_is_no_token_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="not an HTTP method"):
        check_method(method)
