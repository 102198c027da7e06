"""Text of any content stays in its place in the request, or is refused before anything is sent.

Checked on the bytes that arrive at a raw server, which are taken apart here by hand.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import json
import logging
import re
import socket
import struct
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp
import dns.asyncresolver
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aioetcd2 import (
    Client,
    ClusterError,
    DiscoveryError,
    EtcdError,
    InvalidEndpointError,
    KeysAPI,
    Permission,
    SRVDiscoverer,
)

pytestmark = pytest.mark.slow

Call = Callable[[Client], Awaitable[object]]

bounded = settings(max_examples=60, deadline=None, derandomize=True)

LONG = 4096

FRAGMENTS = [
    *("/", "//", ".", "..", "../", "/../", "/./", "%2e%2e", "%2E%2E/", "%2f", "%252f", "\\..\\", "\uff0e\uff0e\uff0f"),
    *("\r\n", "\n", "\r", "\0", "\t", " ", "%0d%0a", "%00", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e"),
    *("?", "#", ";", "&", "+", "=", "@", ":", "%", "%zz", "|", "'", '"', "`", "<", "[", "{", "*", "~", "_"),
    *("\ud800", "\udfff", "\udc80", "é", "ß", "e\u0301", "😀", "\U0010ffff", "\uffff", "\ufffd"),
    "\r\nX-Injected: yes",
    "\r\nContent-Length: 0\r\n\r\nDELETE /v2/keys/?recursive=true HTTP/1.1\r\nHost: x\r\n\r\n",
    " HTTP/1.1\r\nHost: evil\r\n\r\n",
    "&prevExist=false&dir=true;recursive=true",
    '","password":"stolen","x":"',
    "/v2/members",
    "a" * 3000,
    "a" * 4040,
    "é" * 700,
]

hostile = st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(), max_size=5), max_size=4).map("".join)
pairs = st.lists(st.tuples(hostile, hostile), max_size=3)

EVERYTHING = {
    "action": "get",
    "node": {"key": "/k", "value": "v", "modifiedIndex": 1, "createdIndex": 1},
    "id": "1",
    "name": "",
    "peerURLs": [],
    "clientURLs": [],
    "user": "u",
    "role": "r",
}
"""An answer that every call takes for its own."""


INDEX = 9


def answer(body: object = EVERYTHING, status: int = 200, header: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nX-Etcd-Index: {INDEX}\r\n{header}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


# --- a server that records, and a parser that owes nothing to any library ---------------------------------------------


class Arrived(NamedTuple):
    """A request, decoded."""

    method: str
    path: list[str]
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> list[tuple[str, str]]:
        assert self.headers["content-type"] == "application/x-www-form-urlencoded"
        return decode_form(self.body)

    @property
    def json(self) -> Any:
        """The body, objects as lists of pairs: a name that is there twice would show."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body.decode(), object_pairs_hook=list)


def unescape(data: bytes, *, plus: bool) -> str:
    """Undo percent-encoding, and let nothing pass that should have been encoded."""
    text = bytearray()
    at = 0
    while at < len(data):
        byte = data[at : at + 1]
        if byte == b"%":
            text += binascii.unhexlify(data[at + 1 : at + 3])
            at += 3
            continue
        assert re.fullmatch(rb"[A-Za-z0-9_.~-]", byte) or (plus and byte == b"+"), byte
        text += b" " if byte == b"+" else byte
        at += 1
    return text.decode()


def decode_form(data: bytes) -> list[tuple[str, str]]:
    fields = []
    for field in data.split(b"&") if data else []:
        name, value = field.split(b"=")
        fields.append((unescape(name, plus=True), unescape(value, plus=True)))
    return fields


HEADERS = {"host", "user-agent", "accept", "accept-encoding", "authorization", "content-type", "content-length"}


def parse(head: bytes, body: bytes) -> Arrived:
    request_line, *lines = head.split(b"\r\n")
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert b"\n" not in head.replace(b"\r\n", b"")
    method, target, version = request_line.split(b" ")
    assert version == b"HTTP/1.1"
    assert len(request_line) + 2 <= LONG
    path, *query = target.split(b"?")
    assert len(query) < 2
    headers: dict[str, str] = {}
    for line in lines:
        name, value = line.decode("ascii").split(": ", 1)
        assert name.lower() in HEADERS - set(headers), line
        headers[name.lower()] = value
    first, *segments = [unescape(segment, plus=False) for segment in path.split(b"/")]
    assert first == ""
    assert {".", ".."}.isdisjoint(segments)
    assert "" not in segments[:-1]
    assert not any("/" in segment for segment in segments)
    return Arrived(method.decode(), segments, decode_form(query[0] if query else b""), headers, body)


class Wire:
    """A client, the server it talks to, and their event loop.

    `arrived` holds heads and bodies of the requests that came, `leftover` what came besides, `open` the connections;
    `answer` makes an answer to a head, of no bytes to hang up.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.arrived: list[tuple[bytes, bytes]] = []
        self.leftover = bytearray()
        self.open: set[Connection] = set()
        self.answer: Callable[[bytes], bytes] = lambda head: answer()
        server = self.run(self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        self.client = Client(self.endpoint)
        self._server = server

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def ask(self, call: Call, client: Client | None = None) -> list[Arrived]:
        """What arrives of a call: nothing if it is refused, which it may be by ValueError and TypeError only."""

        async def calling() -> bool:
            try:
                await call(client or self.client)
            except (ValueError, TypeError):
                return True
            return False

        refused = self.run(calling())
        self.run(self._read_what_was_given_up({self.client, client or self.client}))
        arrived, self.arrived = self.arrived, []
        assert not self.leftover
        assert refused == (not arrived)
        return [parse(head, body) for head, body in arrived]

    async def _read_what_was_given_up(self, clients: set[Client]) -> None:
        """A watch that ends gives up the look it has begun: its connection is closed, and may not be read yet."""
        for _ in range(20_000):
            if len(self.open) <= sum(client.counters.connections_open for client in clients):
                return
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self.run(self.client.close())
        self._server.close()
        self.run(asyncio.sleep(0.01))
        assert not self.arrived
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


class Connection(asyncio.Protocol):
    """Cuts requests off what arrives; bytes that are no part of one stay behind, to be seen."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.wire.open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.wire.open.discard(self)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        buffer = self.wire.leftover
        buffer += data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", buffer[:end])
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                return
            head, body = bytes(buffer[:end]), bytes(buffer[end + 4 : whole])
            del buffer[:whole]
            self.wire.arrived.append((head, body))
            if words := self.wire.answer(head):
                self.transport.write(words)
            else:
                self.transport.close()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The tests are no coroutines, so that one loop serves all that hypothesis thinks of; `wire` looks at its end."""


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


# --- what is to be expected ------------------------------------------------------------------------------------------


def is_unicode(*texts: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for text in texts for character in text)


def encoded_length(text: str, *, plus: bool = False) -> int:
    kept = re.findall(rb"[A-Za-z0-9_.~ -]" if plus else rb"[A-Za-z0-9_.~-]", text.encode())
    return 3 * len(text.encode()) - 2 * len(kept)


def fits(method: str, segments: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether etcd reads so long a request line."""
    path = sum(1 + encoded_length(segment) for segment in segments)
    fields = sum(2 + encoded_length(name, plus=True) + encoded_length(value, plus=True) for name, value in query)
    return len(f"{method}  HTTP/1.1\r\n") + path + fields <= LONG


def segments_of(key: str) -> list[str]:
    """The path of a key: slashes fold, and one at its end stays."""
    return [segment for segment in key.split("/") if segment] + ([""] if key.endswith("/") or not key else [])


def is_path(text: str) -> bool:
    return is_unicode(text) and {".", ".."}.isdisjoint(text.split("/"))


def is_segment(text: str) -> bool:
    return is_path(text) and bool(text) and "/" not in text


# --- keys ------------------------------------------------------------------------------------------------------------


async def watch(keys: KeysAPI, key: str) -> None:
    async with keys.watch(key, recursive=True, after_index=INDEX):
        pass


class KeyCall(NamedTuple):
    call: Callable[[KeysAPI, str], Awaitable[object]]
    method: str
    query: Sequence[tuple[str, str]] = ()
    form: list[tuple[str, str]] | None = None


WATCH_QUERY = [("wait", "true"), ("stream", "true"), ("recursive", "true"), ("waitIndex", str(INDEX + 1))]

KEY_CALLS = {
    "get": KeyCall(lambda keys, key: keys.get(key, sort=True), "GET", [("sorted", "true")]),
    "set": KeyCall(lambda keys, key: keys.set(key, "v", ttl=5), "PUT", form=[("value", "v"), ("ttl", "5")]),
    "create": KeyCall(lambda keys, key: keys.create(key, ""), "PUT", form=[("value", ""), ("prevExist", "false")]),
    "create_in_order": KeyCall(lambda keys, key: keys.create_in_order(key, "v"), "POST", form=[("value", "v")]),
    "mkdir": KeyCall(lambda keys, key: keys.mkdir(key, prev_exist=None), "PUT", form=[("dir", "true")]),
    "refresh": KeyCall(
        lambda keys, key: keys.refresh(key, 5), "PUT", form=[("refresh", "true"), ("ttl", "5"), ("prevExist", "true")]
    ),
    "delete": KeyCall(lambda keys, key: keys.delete(key, prev_index=7), "DELETE", [("prevIndex", "7")]),
    "watch": KeyCall(watch, "GET", WATCH_QUERY),
}


ASKED_BESIDE = (["version"], ["v2", "members", "leader"])
"""What a recursive watch asks for once, and what it asks for after 5 s, if the machine has stood still for so long."""


@pytest.mark.parametrize("name", KEY_CALLS)
@given(key=hostile)
@bounded
def test_key(wire: Wire, name: str, key: str) -> None:
    call, method, query, form = KEY_CALLS[name]
    arrived = wire.ask(lambda client: call(client.keys, key))
    path = ["v2", "keys", *segments_of(key)]
    longest = [("recursive", "true"), ("wait", "true"), ("waitIndex", str(2**64 - 1))] if name == "watch" else query
    if not is_path(key) or not fits(method, path, longest):
        assert not arrived
        return
    asked = [each for each in arrived if each.path not in ASKED_BESIDE]
    request, *looks = sorted(asked, key=lambda each: ("wait", "true") not in each.query)  # a look may overtake the wait
    strange = [look for look in looks if name != "watch" or look[:2] != ("GET", path)]
    assert strange == []  # a watch counts the keys beside its wait
    assert request[:3] == (method, path, list(query))
    assert request.body == b"" if form is None else request.form == form


@given(prefix=hostile, key=hostile)
@bounded
def test_prefix(wire: Wire, prefix: str, key: str) -> None:
    arrived = wire.ask(lambda client: client_keys(client, prefix, key))
    path = [segment for segment in prefix.split("/") if segment] + segments_of(key)
    if is_path(prefix) and is_path(key) and fits("GET", path):
        (request,) = arrived
        assert request[:3] == ("GET", path, [])
    else:
        assert not arrived


async def client_keys(client: Client, prefix: str, key: str) -> None:
    await KeysAPI(client, prefix=prefix).get(key)


@given(value=hostile, previous=hostile)
@bounded
def test_value(wire: Wire, value: str, previous: str) -> None:
    arrived = wire.ask(lambda client: client.keys.set("/k", value, prev_value=previous, prev_index=7))
    if is_unicode(value, previous):
        (request,) = arrived
        assert request[:3] == ("PUT", ["v2", "keys", "k"], [])
        assert request.form == [("value", value), ("prevValue", previous), ("prevIndex", "7")]
    else:
        assert not arrived


@given(previous=hostile)
@bounded
def test_value_in_a_query(wire: Wire, previous: str) -> None:
    arrived = wire.ask(lambda client: client.keys.delete("/k", prev_value=previous))
    path, query = ["v2", "keys", "k"], [("prevValue", previous)]
    if is_unicode(previous) and fits("DELETE", path, query):
        (request,) = arrived
        assert request[:3] == ("DELETE", path, query)
        assert request.body == b""
    else:
        assert not arrived


# --- members, users, roles -------------------------------------------------------------------------------------------


class NameCall(NamedTuple):
    call: Callable[[Client, str], Awaitable[object]]
    method: str
    path: tuple[str, ...]
    body: Callable[[str], object] | None = None


USERS, ROLES = ("v2", "auth", "users"), ("v2", "auth", "roles")
NOTHING: list[tuple[str, list[str]]] = [("read", []), ("write", [])]

NAME_CALLS = {
    "members-remove": NameCall(lambda client, name: client.members.remove(name), "DELETE", ("v2", "members")),
    "members-update": NameCall(
        lambda client, name: client.members.update(name, "u"), "PUT", ("v2", "members"), lambda _: [("peerURLs", ["u"])]
    ),
    "users-get": NameCall(lambda client, name: client.auth.users.get(name), "GET", USERS),
    "users-remove": NameCall(lambda client, name: client.auth.users.remove(name), "DELETE", USERS),
    "users-grant": NameCall(
        lambda client, name: client.auth.users.grant(name, "r"),
        "PUT",
        USERS,
        lambda name: [("user", name), ("grant", ["r"])],
    ),
    "users-revoke": NameCall(
        lambda client, name: client.auth.users.revoke(name, "r"),
        "PUT",
        USERS,
        lambda name: [("user", name), ("revoke", ["r"])],
    ),
    "roles-get": NameCall(lambda client, name: client.auth.roles.get(name), "GET", ROLES),
    "roles-remove": NameCall(lambda client, name: client.auth.roles.remove(name), "DELETE", ROLES),
    "roles-add": NameCall(
        lambda client, name: client.auth.roles.add(name),
        "PUT",
        ROLES,
        lambda name: [("role", name), ("permissions", [("kv", NOTHING)])],
    ),
}


@pytest.mark.parametrize("name", NAME_CALLS)
@given(text=hostile)
@bounded
def test_name(wire: Wire, name: str, text: str) -> None:
    call, method, path, body = NAME_CALLS[name]
    arrived = wire.ask(lambda client: call(client, text))
    segments = [*path, text]
    if not is_segment(text) or not fits(method, segments):
        assert not arrived
        return
    (request,) = arrived
    assert request[:3] == (method, segments, [])
    assert request.body == b"" if body is None else request.json == body(text)


@given(names=st.lists(hostile, min_size=1, max_size=3), member=st.booleans())
@bounded
def test_names_in_a_body(wire: Wire, names: list[str], member: bool) -> None:
    arrived = wire.ask(lambda client: client.members.add(*names) if member else client.auth.users.grant("bob", *names))
    if not is_unicode(*names):
        assert not arrived
        return
    (request,) = arrived
    assert request.json == [("peerURLs", names)] if member else [("user", "bob"), ("grant", names)]
    assert request.path == (["v2", "members"] if member else [*USERS, "bob"])


@given(patterns=st.lists(hostile, min_size=1, max_size=3), permission=st.sampled_from(Permission), grants=st.booleans())
@bounded
def test_permission_prefix(wire: Wire, patterns: list[str], permission: Permission, grants: bool) -> None:
    def call(client: Client) -> Awaitable[object]:
        change = client.auth.roles.grant if grants else client.auth.roles.revoke
        return change("r", *patterns, permission=permission)

    arrived = wire.ask(call)
    if not is_unicode(*patterns):
        assert not arrived
        return
    (request,) = arrived
    reads = patterns if permission is not Permission.WRITE else []
    writes = patterns if permission is not Permission.READ else []
    assert request[:3] == ("PUT", [*ROLES, "r"], [])
    change = [("kv", [("read", reads), ("write", writes)])]
    assert request.json == [("role", "r"), ("grant" if grants else "revoke", change)]


@given(name=hostile, password=hostile, exists=st.booleans())
@bounded
def test_password(wire: Wire, name: str, password: str, exists: bool) -> None:
    """Adding a user, and changing a password, first ask whether there is such a user."""
    absent = answer({"message": "auth: User it does not exist."}, 404)
    wire.answer = lambda head: absent if head.startswith(b"GET") and not exists else answer()
    try:
        arrived = wire.ask(lambda client: password_call(client, exists)(name, password))
    finally:
        wire.answer = lambda head: answer()
    path = [*USERS, name]
    if not is_segment(name) or not is_unicode(password) or not fits("PUT", path) or (":" in name and not exists):
        assert not arrived
        return
    asked, changed = arrived
    assert asked[:3] == ("GET", path, [])
    assert changed[:3] == ("PUT", path, [])
    assert changed.json == [("user", name), ("password", password)]


def password_call(client: Client, exists: bool) -> Callable[[str, str], Awaitable[object]]:
    return client.auth.users.change_password if exists else client.auth.users.add


# --- request() -------------------------------------------------------------------------------------------------------


@given(method=hostile | st.sampled_from(["get", "PURGE", "m-search"]), path=hostile, params=pairs)
@bounded
def test_request(wire: Wire, method: str, path: str, params: list[tuple[str, str]]) -> None:
    arrived = wire.ask(lambda client: client.request(method, path, params=params))
    texts = [text for pair in params for text in pair]
    token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", method)
    segments = segments_of(path)
    if not token or not is_path(path) or not is_unicode(*texts) or not fits(method, segments, params):
        assert not arrived
        return
    (request,) = arrived
    assert request[:3] == (method.upper(), segments, params)


@given(form=pairs, body=st.none() | st.recursive(hostile | st.integers(0, 9), lambda each: st.lists(each, max_size=3)))
@bounded
def test_request_body(wire: Wire, form: list[tuple[str, str]], body: Any) -> None:
    arrived = wire.ask(lambda client: client.request("PUT", "/x", form=form if body is None else None, json=body))
    texts = [text for pair in form for text in pair] if body is None else [json.dumps(body, ensure_ascii=False)]
    if not is_unicode(*texts):
        assert not arrived
        return
    (request,) = arrived
    assert request[:3] == ("PUT", ["x"], [])
    assert request.form == form if body is None else request.json == body


# --- credentials, endpoints, domains ---------------------------------------------------------------------------------


@given(username=hostile, password=hostile)
@bounded
def test_credentials(wire: Wire, username: str, password: str) -> None:
    async def call(_: Client) -> None:
        async with Client(wire.endpoint, username=username, password=password) as client:
            await client.keys.get("/k")

    arrived = wire.ask(call)
    if ":" in username or not is_unicode(username, password):
        assert not arrived
        return
    (request,) = arrived
    scheme, token = request.headers["authorization"].split(" ")
    assert scheme == "Basic"
    assert base64.b64decode(token, validate=True).decode() == f"{username}:{password}"


class Everywhere(AbstractResolver):
    """A resolver for which every host is our server."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=family, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        pass


DECORATIONS: list[Callable[[str, str], str]] = [
    lambda host, text: f"http://{host}{text}",
    lambda host, text: f"{text}http://{host}",
    lambda host, text: f"{text}{host}",
    lambda host, text: f"http://{text}.{host}",
    lambda host, text: f"http://{text}@{host}",
    lambda host, text: f"http://{host}/{text}",
    lambda host, text: f"http://{host}:{text}",
    lambda host, text: f"{text}://{host}",
    lambda host, text: f"http://[{text}]",
    lambda host, text: f"http://[::1%{text}]:1",
]

HOST = re.compile(r"http://([a-z0-9_][a-z0-9_.-]*)(?::([1-9]\d{0,4}))?")


@given(text=hostile, decorate=st.sampled_from(DECORATIONS))
@settings(bounded, max_examples=300)
def test_endpoint(wire: Wire, text: str, decorate: Callable[[str, str], str]) -> None:
    given_text = decorate("etcd.test", text)
    try:
        client = Client(given_text)
    except InvalidEndpointError:
        return
    (endpoint,) = client.endpoints
    assert endpoint.isascii() or endpoint.startswith("unix://")
    assert endpoint.isprintable()
    assert not set(endpoint) & set(" ?#@\\")
    if endpoint.startswith("http://["):
        address = endpoint[len("http://[") : endpoint.index("]")]
        assert ipaddress.IPv6Address(address.partition("%")[0])
        return
    match = HOST.fullmatch(endpoint)
    assert match or endpoint.startswith(("https://", "unix://"))
    if match:
        check_host(wire, endpoint, match[1], match[2])


def check_host(wire: Wire, endpoint: str, host: str, port: str | None) -> None:
    async def call(_: Client) -> None:
        async with aiohttp.TCPConnector(resolver=Everywhere(wire.port)) as connector:
            async with Client(endpoint, connector=connector) as client:
                await client.keys.get("/k")

    assume(host.strip(".0123456789"))  # an address would not be looked up
    (request,) = wire.ask(call)
    host = host.rstrip(".")  # that of the root says nothing to a server
    assert request.headers["host"] == (host if port in (None, "80") else f"{host}:{port}")
    assert request.path == ["v2", "keys", "k"]


class NameServer(asyncio.DatagramProtocol):
    """Takes the labels out of every question, and knows no name."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        questions, others = struct.unpack(">H6s", data[4:12])
        assert questions == 1
        assert not others.strip(b"\0") or data.endswith(b"\0" * 4)  # but for EDNS
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
        assert data[at + 1 : at + 5] == b"\0\x21\0\x01"  # SRV, IN
        self.asked.append(labels)
        self.transport.sendto(data[:2] + b"\x81\x83" + data[4:6] + bytes(6) + data[12 : at + 5], address)


@given(text=hostile, around=st.sampled_from(["{}", "{}.example.com", "example.com{}", "a.{}.com"]))
@bounded
def test_domain(wire: Wire, text: str, around: str) -> None:
    domain = around.format(text)
    asked = wire.run(questions_about(domain))
    if not asked:
        assert not re.fullmatch(r"([a-z0-9]{1,63}\.)+com", domain)
        return
    secure, plain = asked
    assert secure[:2] == [b"_etcd-client-ssl", b"_tcp"]
    assert plain[:2] == [b"_etcd-client", b"_tcp"]
    assert secure[2:] == plain[2:] != []
    if domain.isascii() and "\\" not in domain:
        assert secure[2:] == domain.rstrip(".").encode().split(b".")


async def questions_about(domain: str) -> list[list[bytes]]:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        with pytest.raises(DiscoveryError):
            await SRVDiscoverer(resolver).discover(domain)
    finally:
        transport.close()
    return names.asked


# --- passwords show nowhere ------------------------------------------------------------------------------------------

SECRET = "hunter2"

OUTCOMES: dict[str, bytes] = {
    "fine": answer(),
    "lost": b"",
    "nonsense": b"nonsense\r\n\r\n",
    "html": answer("<html>"),
    "refused": answer({"message": "Insufficient credentials"}, 401),
    "conflict": answer({"message": "auth: User bob already exists."}, 409),
    "failed": answer({"message": "Internal Server Error"}, 500),
    "no-v2": b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n404 page not found",
    "redirect": answer("", 307, "Location: http://127.0.0.1:1/v2/auth/users/bob\r\n"),
    "bad-redirect": answer("", 307, "Location: http://[\r\n"),
}


def shown_by(error: BaseException | None) -> Iterator[str]:
    """All that an error shows of itself and of what it holds."""
    if error is None:
        return
    yield from traceback.format_exception(type(error), error, error.__traceback__)
    yield from (repr(error), str(error), repr(error.args))
    held = error.errors if isinstance(error, ClusterError) else ()
    for each in (error.__cause__, None if error.__suppress_context__ else error.__context__, *held):
        yield from shown_by(each)


async def shown_by_calls(endpoint: str, password: str) -> list[str]:
    """What errors and representations show when a password is used wherever one can be."""
    shown: list[str] = []
    client = Client(endpoint)
    for username in ("root", "ro:ot", None):
        try:
            client = Client(endpoint, username=username, password=password)
        except ValueError as error:
            shown += shown_by(error)
    users = client.auth.users
    for call in (
        users.add("bob", password),
        users.change_password("bob", password),
        users.add("b:b", password),
        client.request("POST", "/v3/auth/authenticate", json={"name": "root", "password": password}),
        client.request("POST", "/x", form={"Password": password}, params={"PASSWORD": password}),
    ):
        try:
            shown.append(repr(await call))
        except (EtcdError, ValueError) as error:
            shown += shown_by(error)
    shown += [repr(each) for each in (client, client.keys, client.members, client.auth, users, client.stats)]
    await client.close()
    return shown


@pytest.mark.parametrize("outcome", OUTCOMES)
@given(before=hostile, after=hostile)
@settings(bounded, max_examples=10)
def test_password_shows_nowhere(wire: Wire, outcome: str, before: str, after: str) -> None:
    password = f"{before}{SECRET}{after}"
    token = base64.b64encode(f"root:{password}".encode("utf-8", "replace")).decode()
    absent = answer({"message": "auth: User bob does not exist."}, 404)
    asked: list[bytes] = []

    def respond(head: bytes) -> bytes:
        asked.append(head)
        if not head.startswith(b"GET"):
            return OUTCOMES[outcome]
        return absent if len(asked) == 1 else answer()

    lines: list[str] = []
    with listening(lines):
        wire.answer = respond
        try:
            shown = wire.run(shown_by_calls(wire.endpoint, password))
        finally:
            wire.answer = lambda head: answer()
            wire.arrived.clear()
    assert bool(asked) == is_unicode(password)
    assert not [text for text in (*shown, *lines) if SECRET in text or token in text]
    assert lines or not asked


@contextmanager
def listening(lines: list[str]) -> Iterator[None]:
    """Every line that any logger writes."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, handler, level = logging.getLogger(), Listener(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@given(text=hostile, decorate=st.sampled_from(DECORATIONS), scheme=st.sampled_from(["", "http://", "https://", "x://"]))
@bounded
def test_password_in_an_endpoint_shows_nowhere(text: str, decorate: Callable[[str, str], str], scheme: str) -> None:
    for userinfo in (f"root:{SECRET}", f"root:{text}{SECRET}", f"{SECRET}{text}"):
        for wrong in (f"{scheme}{userinfo}@{decorate('host', text)}", f"{scheme}{userinfo}@host:2379{text}"):
            with pytest.raises(InvalidEndpointError) as caught:
                Client(wrong)
            assert not [each for each in shown_by(caught.value) if SECRET in each]
