"""Passwords, and answers that repeat them, are shown nowhere: in no repr, curl line, log line or error."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from aioetcd2 import (
    AuthError,
    Client,
    ClusterError,
    EndpointSelection,
    EtcdError,
    HTTPResult,
    NoLeaderError,
    RedirectError,
    ServerError,
    UserNotFoundError,
)
from aioetcd2._net.request import FORM, JSON, Request, build
from aioetcd2._net.secrets import holds_password, text_for, words_for

from .misbehaver import Behaviour, Exchange, Misbehaver, answer, raw

SECRET = "hunter2\"' é+&<"

Call = Callable[[Client], Awaitable[object]]


class Credentials(msgspec.Struct):
    name: str
    PassWord: str


CALLS: dict[str, Call] = {
    "v2 user": lambda client: client.auth.users.change_password("bob", SECRET),
    "v3 authenticate": lambda client: client.request(
        "POST", "/v3/auth/authenticate", json={"name": "root", "password": SECRET}
    ),
    "v3 below a prefix": lambda client: client.request("POST", "/etcd/v3/auth/user/add", json={"password": SECRET}),
    "nested": lambda client: client.request("POST", "/x", json={"a": [1, {"b": {"password": SECRET}}]}),
    "a list": lambda client: client.request("POST", "/x", json={"password": [SECRET]}),
    "other letters": lambda client: client.request("PUT", "/x", json={"PASSWORD": SECRET}),
    "long s": lambda client: client.request("PUT", "/x", json={"paſſword": SECRET}),
    "a struct": lambda client: client.request("PUT", "/x", json=Credentials("root", SECRET)),
    "form": lambda client: client.request("POST", "/x", form={"name": "root", "password": SECRET}),
    "form, other letters": lambda client: client.request("POST", "/x", form=[("a", "b"), ("Password", SECRET)]),
    "query": lambda client: client.request("GET", "/x", params={"password": SECRET, "a": "b"}),
    "query below auth": lambda client: client.request("DELETE", "/v3/auth/x", params={"token": SECRET}),
    "form below auth": lambda client: client.request("POST", "/auth/x", form={"token": SECRET}),
    "key below auth": lambda client: client.keys.set("/auth/bob", SECRET),
}

PLAIN: dict[str, Call] = {
    "words": lambda client: client.request("PUT", "/x", json={"text": "the password: hunter2"}),
    "a value": lambda client: client.request("PUT", "/x", json=["password", "hunter2"]),
    "a like name": lambda client: client.request("PUT", "/x", json={"passwords": "hunter2", "my password": 1}),
    "form": lambda client: client.request("PUT", "/x", form={"value": "password=hunter2"}),
    "key": lambda client: client.keys.set("/oauth", "hunter2"),
}


def forms_of(secret: str) -> set[str]:
    """As it may be shown; the part that is letters and digits is in all of them."""
    return {secret, quote(secret), quote_plus(secret), json.dumps(secret)[1:-1], "hunter2"}


def repeating(write: Callable[[Exchange], bytes]) -> Behaviour:
    async def behave(exchange: Exchange) -> bool | None:
        if exchange.seen.method == "GET" and exchange.seen.target.startswith("/v2/auth/"):
            return await answer({"user": "bob"})(exchange)
        return await raw(write(exchange))(exchange)

    return behave


def said(exchange: Exchange) -> bytes:
    return exchange.seen.body + b" " + exchange.seen.target.encode()


def with_body(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def in_words(exchange: Exchange) -> bytes:
    return json.dumps({"message": said(exchange).decode(), "cause": said(exchange).decode()}).encode()


def coded(code: int) -> Callable[[Exchange], bytes]:
    return lambda exchange: json.dumps({"errorCode": code, **json.loads(in_words(exchange))}).encode()


ECHOES: dict[str, Callable[[Exchange], bytes]] = {
    "200": lambda exchange: with_body("200 OK", said(exchange)),
    "404 text": lambda exchange: with_body("404 Not Found", said(exchange)),
    "404 page not found": lambda exchange: with_body("404 Not Found", b"404 page not found " + said(exchange)),
    "401 text": lambda exchange: with_body("401 Unauthorized", said(exchange)),
    "400 words": lambda exchange: with_body("400 Bad Request", in_words(exchange)),
    "409 words": lambda exchange: with_body("409 Conflict", in_words(exchange)),
    "400 coded": lambda exchange: with_body("400 Bad Request", coded(209)(exchange)),
    "500 text": lambda exchange: with_body("500 Oops", said(exchange)),
    "500 words": lambda exchange: with_body("500 Oops", in_words(exchange)),
    "500 coded": lambda exchange: with_body("500 Oops", coded(300)(exchange)),
    "503 text": lambda exchange: with_body("503 Unavailable", said(exchange)),
    "no HTTP": lambda exchange: said(exchange) + b"\r\n\r\n",
    "bad header": lambda exchange: b"HTTP/1.1 200 OK\r\n" + said(exchange) + b"\x00\r\n\r\n",
    "bad chunk": lambda exchange: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + said(exchange) + b"\r\n",
    "redirect": lambda exchange: (
        b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/?"
        + quote(said(exchange)).encode()
        + b"\r\n\r\n"
    ),
    "bad redirect": lambda exchange: (
        b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: ftp://[/" + quote(said(exchange)).encode() + b"\r\n\r\n"
    ),
    "cut off": lambda exchange: b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + said(exchange),
}


def shown_by(error: BaseException | None, depth: int = 0) -> Iterator[str]:
    """All that an error shows of itself, and of what it holds."""
    if error is None or depth > 10:
        return
    yield from traceback.format_exception_only(type(error), error)
    yield from (repr(error), str(error), repr(error.args), repr(vars(error)))
    held = error.errors if isinstance(error, ClusterError) else ()
    for each in (error.__cause__, None if error.__suppress_context__ else error.__context__, *held):
        yield from shown_by(each, depth + 1)


async def shown_by_call(call: Call, endpoint: str) -> list[str]:
    in_order = EndpointSelection.PRIORITIZE_LEADER
    async with Client(endpoint, header_timeout=5, selection=in_order) as client:
        try:
            return [repr(await call(client))]
        except EtcdError as error:
            return list(shown_by(error))


EVERYWHERE = [
    pytest.param(call, echo, id=f"{name}-{how}")
    for name, call in CALLS.items()
    for how, echo in ECHOES.items()
    if name != "key below auth" or ("words" not in how and "coded" not in how)  # what etcd says of a key is an answer
]


@pytest.mark.parametrize(("call", "echo"), EVERYWHERE)
async def test_a_secret_is_shown_nowhere(
    call: Call, echo: Callable[[Exchange], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Misbehaver(repeating(echo)) as server:
        shown = await shown_by_call(call, server.endpoint)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("aioetcd2")]
    assert any("hunter2" in f"{seen.body.decode()} {seen.target}" for seen in server.seen)
    assert any(line.startswith("curl") for line in lines)
    assert [text for text in (*shown, *lines) if any(form in text for form in forms_of(SECRET))] == []


@pytest.mark.parametrize("call", PLAIN.values(), ids=PLAIN)
async def test_what_is_no_secret_is_shown(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Misbehaver(repeating(ECHOES["500 text"])) as server:
        shown = await shown_by_call(call, server.endpoint)
    assert any("hunter2" in text for text in shown)
    assert "hunter2" in caplog.text


async def test_the_server_s_words_remain() -> None:
    """What it says of a secret request is shown, where it is etcd's, without the password."""

    def words(status: str, message: str) -> Behaviour:
        return repeating(lambda exchange: with_body(status, json.dumps({"message": message}).encode()))

    for status, message, kind, left in (
        ("404 Not Found", "auth: User bob does not exist.", UserNotFoundError, "auth: User bob does not exist."),
        ("400 Bad", f"auth: {SECRET} is weak", AuthError, "auth: *** is weak"),
        ("500 Oops", f"it is {json.dumps(SECRET)} again", ServerError, 'it is "***" again'),
        ("503 Oops", "etcdserver: no leader", NoLeaderError, "etcdserver: no leader"),
    ):
        async with Misbehaver(words(status, message)) as server, Client(server.endpoint) as client:
            with pytest.raises(EtcdError) as caught:
                await client.auth.users.change_password("bob", SECRET)
        error = caught.value.errors[0] if isinstance(caught.value, ClusterError) else caught.value
        assert isinstance(error, kind)
        assert left in str(error)


async def test_an_answer_with_a_token_shows_nothing_of_it() -> None:
    async with Misbehaver(answer({"header": {}, "token": "hunter2.7"})) as server, Client(server.endpoint) as client:
        result = await client.request("POST", "/v3/auth/authenticate", json={"name": "a", "password": "b"})
    assert json.loads(result.body)["token"] == "hunter2.7"
    assert "hunter2" not in f"{result!r} {result}"
    hidden = f"headers=<{len(result.headers)}>, body=<{len(result.body)} bytes>"
    assert repr(result) == f"HTTPResult(status=200, {hidden}, endpoint={result.endpoint!r})"
    assert "hunter2" not in repr(HTTPResult(200, {"Set-Cookie": "hunter2"}, b"", result.endpoint))


@pytest.mark.parametrize(
    "fields",
    [
        {"form": [["password", SECRET]]},
        {"form": [("password", SECRET, "x")]},
        {"form": [f"password={SECRET}"]},
        {"params": {"password": SECRET.encode()}},
        {"form": {"password": f"{SECRET}\ud800"}},
        {"json": {"password": f"{SECRET}\ud800"}},
        {"params": {"password": SECRET * 999}},
        {"form": {"password": SECRET * 999_999}},
        {"form": {"password": SECRET}, "json": {}},
    ],
    ids=lambda fields: str(fields)[:40].encode("ascii", "replace").decode(),
)
async def test_what_is_refused_shows_nothing_of_it(fields: dict[str, Any]) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises((TypeError, ValueError)) as caught:
            await client.request("POST", "/x", **fields)
    assert [text for text in shown_by(caught.value) if "hunter2" in text] == []


async def test_a_secret_body_is_not_redirected_to_a_stranger() -> None:
    async with Misbehaver(answer("{}")) as stranger:
        moved = answer(status=307, headers={"Location": f"{stranger.endpoint}/v3/auth/authenticate"})
        async with Misbehaver(moved) as server, Client(server.endpoint) as client:
            with pytest.raises(RedirectError, match="may hold a password"):
                await client.request("POST", "/v3/auth/authenticate", json={"password": SECRET})
            assert (await client.request("GET", "/v3/auth/status")).status == 200
        assert [seen.method for seen in stranger.seen] == ["GET"]


@pytest.mark.parametrize("password", ["", "a", SECRET, "\\", "\n", "%41", "\u2028", "a b"], ids=ascii)
@pytest.mark.parametrize("kind", [JSON, FORM])
def test_words_without_a_password(password: str, kind: str) -> None:
    fields = (
        {"json": msgspec.json.encode({"Password": password})} if kind == JSON else {"form": [("Password", password)]}
    )
    request = build("PUT", "/x", secret=True, **fields)
    quoted = [
        password,
        json.dumps(password)[1:-1],
        repr(password)[1:-1],
        quote_plus(password),
    ]
    for text in quoted if password else []:
        assert words_for(request, f"[{text}]") == "[***]"
    assert words_for(build("PUT", "/x", **fields), f"[{password}]") == f"[{password}]"
    assert words_for("PUT /x", password) == password


def test_text_that_is_none_of_etcd_s() -> None:
    assert text_for(Request("PUT", "/x", secret=True), "<html>") == "not shown, for the request held a secret"
    assert text_for(Request("PUT", "/x", secret=True), "") == ""
    assert text_for(Request("PUT", "/x"), "<html>") == "<html>"
    assert text_for("PUT /x", "<html>") == "<html>"


@pytest.mark.parametrize(
    ("fields", "body", "held"),
    [
        ([], None, False),
        ([("a", "password")], b'{"a":"password"}', False),
        ([], b'{"a":"\\"password\\":"}', False),
        ([], b'{"a":["password"]}', False),
        ([], b'{"password":1}', True),
        ([], b'{"a":[{"PassWord" : "x"}]}', True),
        ([], msgspec.json.encode({"paſſword": 1}), True),
        ([("PASSWORD", "")], None, True),
        ([("a", "b"), ("password", "x")], b"{}", True),
    ],
)
def test_what_holds_a_password(fields: list[tuple[str, str]], body: bytes | None, held: bool) -> None:
    assert holds_password(fields, body) is held
