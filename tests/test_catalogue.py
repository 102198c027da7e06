"""What goes wrong for people, and what they read then: a class, words that name it, and the next step."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aioetcd2 import (
    Client,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    DirNotEmptyError,
    EndpointError,
    EtcdError,
    InvalidResponseError,
    NoLeaderError,
    NotDirError,
    NotFileError,
    RedirectError,
    ServerError,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2._net.causes import _shown_in
from aioetcd2.testing import EtcdServer, EtcdTLS

from .misbehaver import Behaviour, Exchange, Misbehaver, answer, close, raw, reset
from .test_names import Names
from .test_tls import Authority

Call = Callable[[Client], Awaitable[object]]


def get(client: Client) -> Awaitable[object]:
    return client.keys.get("/k")


def put(client: Client) -> Awaitable[object]:
    return client.keys.set("/k", "v")


def create(client: Client) -> Awaitable[object]:
    return client.keys.create("/k", "v")


def read(error: EtcdError, kind: type[EtcdError], maybe_applied: bool | None) -> str:
    """The text of an error, once it is seen to be of a kind; for one endpoint, that of its failure."""
    if issubclass(kind, EndpointError):
        assert isinstance(error, ClusterError), error
        (failure,) = error.errors
        assert type(failure) is kind, failure
    else:
        assert type(error) is kind, error
    if maybe_applied is not None:
        assert getattr(error, "maybe_applied", False) is maybe_applied
        assert ("may have been applied" in str(error)) is maybe_applied
    assert "ssl:default" not in str(error)
    assert "hunter2" not in str(error)
    return str(error)


class Said(NamedTuple):
    """A situation with a server that says something: what is called, what is raised, and what that tells."""

    says: Behaviour
    call: Call
    kind: type[EtcdError]
    maybe_applied: bool
    words: tuple[str, ...]


def page(text: str, status: int) -> Behaviour:
    return answer(text, status=status, index=None, cluster=None)


async def round_and_round(exchange: Exchange) -> bool | None:
    exchange.writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/keys/k\r\nContent-Length: 0\r\n\r\n")
    return None


async def one_that_adds(exchange: Exchange) -> bool | None:
    listed = {"members": [{"id": "a1", "name": "", "peerURLs": ["http://10.0.0.9:2380"], "clientURLs": []}]}
    is_list = exchange.seen.method == "GET"
    return await (answer(listed, index=None) if is_list else page("Internal Server Error", 500))(exchange)


TLS_ALERT = raw(b"\x15\x03\x01\x00\x02\x02\x0a", then=close)
HTTP2_SETTINGS = raw(
    b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00\x00\x03\x00\x00\x03\xe8", then=close
)
GO_WANTS_TLS = page("Client sent an HTTP request to an HTTPS server.\n", 400)
NGINX_WANTS_TLS = page("<html>400 The plain HTTP request was sent to HTTPS port</html>", 400)
HAPROXY_DOWN = page("<html><body><h1>503 Service Unavailable</h1>No server is available</body></html>", 503)
TOO_LARGE = page("<html><head><title>413 Request Entity Too Large</title></head></html>", 413)
NOT_MODIFIED = page("", 304)
WANTS_HTTPS = ("it serves https: write https://",)
HTTP2_ONLY = ("HTTP/2 only", "--listen-client-http-urls", "give one of those URLs")

SAID = {
    "TLS where http is spoken: an alert, get": Said(TLS_ALERT, get, ConnectError, False, ("write https://",)),
    "TLS where http is spoken: an alert, create": Said(TLS_ALERT, create, ConnectError, False, ("write https://",)),
    "TLS where http is spoken: Go's words": Said(GO_WANTS_TLS, create, ConnectError, False, WANTS_HTTPS),
    "TLS where http is spoken: nginx's words": Said(NGINX_WANTS_TLS, put, ConnectError, False, WANTS_HTTPS),
    "TLS where http is spoken: closed": Said(close, get, ConnectionLostError, False, ("does it serve https",)),
    "HTTP/2 only, get": Said(HTTP2_SETTINGS, get, ConnectError, False, HTTP2_ONLY),
    "HTTP/2 only, create": Said(HTTP2_SETTINGS, create, ConnectError, False, HTTP2_ONLY),
    "HTTP/2 only: reset": Said(reset, create, ConnectionLostError, True, ("HTTP/2 only?",)),
    "a proxy without a backend, get": Said(HAPROXY_DOWN, get, ServerError, False, ("503", "No server is available")),
    "a proxy without a backend, create": Said(HAPROXY_DOWN, create, ServerError, True, ("No server is available",)),
    "a member without a leader": Said(page("", 503), get, NoLeaderError, False, ("503",)),
    "a proxy that takes no long body": Said(TOO_LARGE, put, ServerError, False, ("413", "client_max_body_size")),
    "304 to a create": Said(NOT_MODIFIED, create, RedirectError, True, ("304 without a Location", "read before")),
    "304 to a get": Said(NOT_MODIFIED, get, RedirectError, False, ("304 without a Location",)),
    "redirects that go round": Said(
        round_and_round,
        get,
        RedirectError,
        False,
        ("GET /v2/keys/k at http://", "more than 10 redirects in a row", "check_redirect="),
    ),
    "a web server": Said(page("<h1>It works!</h1>", 200), get, InvalidResponseError, False, ("probably not an etcd",)),
    "members.add, refused, not in the list": Said(
        answer({"members": []}, status=500, index=None),
        lambda client: client.members.add("http://10.0.0.9:2380"),
        ServerError,
        True,
        ("perhaps the cluster is unhealthy",),
    ),
    "members.add, refused, in the list": Said(
        one_that_adds,
        lambda client: client.members.add("http://10.0.0.9:2380"),
        ServerError,
        True,
        ("the list of members holds it, as a1",),
    ),
    "members.add, refused, another in the list": Said(
        one_that_adds,
        lambda client: client.members.add("http://10.0.0.8:2380"),
        ServerError,
        True,
        ("the list of members does not hold it",),
    ),
    "members.remove, refused, in the list": Said(
        one_that_adds, lambda client: client.members.remove("a1"), ServerError, True, ("holds it, as a1",)
    ),
}


@pytest.mark.parametrize("name", SAID)
async def test_what_a_server_says(name: str) -> None:
    said = SAID[name]
    async with Misbehaver(said.says) as server, Client(server.endpoint, header_timeout=1) as client:
        server_is = server.endpoint
        with pytest.raises(EtcdError) as caught:
            await said.call(client)
    if "not HTTP: Expected HTTP/, RTSP/ or ICE/: b''" in str(caught.value):  # an aiohttp that does not show zero bytes
        text = read(caught.value, InvalidResponseError, None)
        assert said.words is HTTP2_ONLY
        assert "perhaps it speaks HTTP/2 only (see etcd's --listen-client-http-urls)" in text
        return
    text = read(caught.value, said.kind, said.maybe_applied)
    assert server_is in text
    for words in said.words:
        assert words in text


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("Bad status line: b'\\x15\\x03' ^", b"\x15\x03"),
        ('got b"it\'s"', b"it's"),
        ("nothing at all", b""),
        ("a broken b'\\x' and b'\\x1'", b""),
        ("no end b'abc", b""),
        ("no such escape b'\\z'", b""),
        ("b'\u00fc'", b""),
    ],
)
def test_what_a_text_shows_as_bytes(words: str, shown: bytes) -> None:
    assert _shown_in(words) == shown


async def test_another_protocol_is_passed_over_though_it_is_a_write() -> None:
    async with Misbehaver(TLS_ALERT) as wrong, Misbehaver(answer({"action": "create"})) as right:
        async with Client([wrong.endpoint, right.endpoint]) as client:
            await client.keys.create("/k", "v")
        assert len(right.seen) == 1


# --- names and ports --------------------------------------------------------------------------------------------------


class Hanging(Names):
    async def resolve(self, *args: Any, **options: Any) -> list[Any]:
        await asyncio.Event().wait()
        raise AssertionError


class Unknown(Names):
    async def resolve(self, *args: Any, **options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("call", [get, create])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (Hanging(), "the lookup of its name took longer than the header timeout of 0.1 s; is the name server silent?"),
        (Unknown(), "no such name: etcd.test (Name or service not known)"),
        (Names("127.0.0.1"), "can't connect to etcd.test:1: Connection refused"),
    ],
    ids=["hangs", "unknown", "refused"],
)
async def test_names(names: Names, words: str, call: Call) -> None:
    async with Client("http://etcd.test:1", header_timeout=0.1) as client:
        client._transport._routes._resolver._make = lambda: names
        with pytest.raises(ClusterError) as caught:
            await call(client)
    assert words in read(caught.value, ConnectError, False)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.9.9.9", "the endpoint names no port, so that 80 was tried; etcd's is 2379"),
        ("https://127.9.9.9", "the endpoint names no port, so that 443 was tried; etcd's is 2379"),
        ("http://[::1]", "so that 80 was tried"),
        ("http://127.9.9.9:1", ""),
        ("http://[::1]:1", ""),
    ],
)
async def test_an_endpoint_without_a_port(endpoint: str, words: str) -> None:
    async with Client(endpoint, header_timeout=1) as client:
        with pytest.raises(ClusterError) as caught:
            await client.keys.get("/k")
    text = read(caught.value, ConnectError, False)
    assert words in text
    assert bool(words) is ("names no port" in text)


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    async with Client(f"unix://{tmp_path}/etcd.sock") as client:
        with pytest.raises(ClusterError) as caught:
            await client.keys.get("/k")
    assert f"can't connect to {tmp_path}/etcd.sock: " in read(caught.value, ConnectError, False)


# --- a real etcd ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def failing(endpoint: str, **options: Any) -> AsyncIterator[tuple[Client, list[EtcdError]]]:
    """A client, and the error that its call ends with."""
    caught: list[EtcdError] = []
    async with Client(endpoint, **options) as client:
        try:
            yield client, caught
        except EtcdError as error:
            caught.append(error)
    assert caught, "nothing was raised"


@pytest.mark.parametrize("call", [get, create])
async def test_a_peer_port(server: EtcdServer, call: Call) -> None:
    async with failing(server.peer_url) as (client, caught):
        await call(client)
    text = read(caught[0], InvalidResponseError, False)
    assert "it is the peer port of an etcd, for its members alone; clients have another, mostly 2379" in text


@pytest.mark.etcd
async def test_v2_is_off() -> None:
    async with EtcdServer(flags=("--enable-v2=false",)) as server:
        async with failing(server.endpoint) as (client, caught):
            await client.keys.get("/k")
    assert "start etcd 3.4 or 3.5 with --enable-v2=true" in read(caught[0], V2DisabledError, None)


async def test_directories(server: EtcdServer, prefix: str) -> None:
    async with Client(server.endpoint) as client:
        await client.keys.set(f"{prefix}/a", "v")
        cases: list[tuple[Awaitable[object], type[EtcdError], str]] = [
            (
                client.keys.delete(prefix),
                NotFileError,
                "recursive=True deletes it with all below it, dir=True an empty",
            ),
            (client.keys.delete(prefix, dir=True), DirNotEmptyError, "recursive=True deletes it with all below it"),
            (client.keys.set(prefix, "v"), NotFileError, "it is a directory, which has no value"),
            (client.keys.set(f"{prefix}/a/b", "v"), NotDirError, "it is a key with a value, and nothing can be"),
        ]
        for call, kind, words in cases:
            with pytest.raises(kind) as caught:
                await call
            assert words in str(caught.value)


NOBODY = "sent without credentials; Client(username=, password=) sends them"
SOMEBODY = "sent as user 'root'; etcd does not tell a wrong password from a missing right"


async def test_refused_as_nobody_and_as_somebody() -> None:
    async with EtcdServer() as server, Client(server.endpoint, username="root", password="s3cret") as root:
        await root.auth.users.add("root", "s3cret")
        await root.auth.enable()
        await root.auth.roles.remove("guest")
        calls: list[Call] = [
            get,
            put,
            lambda client: client.auth.users.list(),
            lambda client: client.keys.watch("/k").next(),
        ]
        for call in calls:
            async with failing(server.endpoint) as (client, caught):
                await call(client)
            assert NOBODY in read(caught[0], UnauthorizedError, None)
            async with failing(server.endpoint, username="root", password="hunter2") as (client, caught):
                await call(client)
            assert SOMEBODY in read(caught[0], UnauthorizedError, None)
            assert isinstance(caught[0], UnauthorizedError)
            assert caught[0].username == "root"


@pytest.mark.etcd
async def test_tls(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    trusting = ours.context()
    mutually = EtcdTLS(ours.cert_file, ours.key_file, ca_file=ours.ca_file, context=ours.context(certificate_of=ours))
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(EtcdServer())
        secure = await stack.enter_async_context(EtcdServer(tls=ours.tls))
        mutual = await stack.enter_async_context(EtcdServer(tls=mutually))
        situations: list[tuple[str, ssl.SSLContext | None, str]] = [
            (plain.endpoint.replace("http:", "https:"), None, "does it serve plain http?"),
            (
                secure.endpoint,
                None,
                "(CERTIFICATE_VERIFY_FAILED); give its CA by ssl=ssl.create_default_context(cafile=",
            ),
            (mutual.endpoint, trusting, "the server wants a client certificate, or refuses ours"),
        ]
        for endpoint, context, words in situations:
            async with failing(endpoint, ssl=context) as (client, caught):
                await client.keys.create("/k", "v")
            assert words in read(caught[0], ConnectError, False)
        async with failing(secure.endpoint.replace("https:", "http:")) as (client, caught):
            await client.keys.get("/k")
        assert "https" in str(caught[0])
