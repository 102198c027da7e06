"""Servers that answer as no etcd does: each call ends soon with a value or an `EtcdError`, and takes bounded memory.

Answers begin as those of a real server, and are then damaged in every layer: HTTP's status line, headers, framing and
timing, the JSON in them, the meaning of that.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import itertools
import json
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from async_timeout import timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioetcd2 import (
    Client,
    ClusterError,
    EtcdError,
    HeaderTimeoutError,
    Health,
    HTTPResult,
    InvalidResponseError,
    Node,
    Permission,
    Response,
    Version,
)
from aioetcd2._net import transport
from aioetcd2._v2 import stream
from aioetcd2.watch import Watcher

from .misbehaver import CLUSTER_ID, Exchange, Misbehaver, answer, chunk, hang, key_event, raw, wait_header

pytestmark = pytest.mark.slow

Call = Callable[[Client], Awaitable[object]]

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))
"""How many random answers; 0 = a few, and always the same."""

hostile = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

HEADER_TIMEOUT = 0.2

LISTENING = 0.1

AWHILE = 30.0
"""Seconds after which a call hangs, also on a machine that is very busy."""

SMALL = 1 << 20
"""What the limits of 256 and 64 MiB are set to here."""

# ---- what a real server answers ----------------------------------------------------------------------------------

FILE = {"key": "/k/é", "value": "v", "modifiedIndex": 7, "createdIndex": 7}
BRIEF = {**FILE, "expiration": "2026-11-23T10:46:04.822343658Z", "ttl": 100}
DIRECTORY = {"key": "/k", "dir": True, "nodes": [FILE, BRIEF], "modifiedIndex": 5, "createdIndex": 5}
MEMBER = {"id": "ce2a822cea30bfca", "name": "m0", "peerURLs": ["http://127.0.0.1:1"], "clientURLs": []}
ROLE = {"role": "r", "permissions": {"kv": {"read": ["/a/*"], "write": None}}}
LATENCY = {"current": 0.5, "average": 0.5, "standardDeviation": 0.1, "minimum": 0.1, "maximum": 1.5}
FOLLOWER = {"latency": LATENCY, "counts": {"fail": 0, "success": 9}}
STARTED = "2026-11-23T10:46:04.8Z"
REFUSAL = {"errorCode": 100, "message": "Key not found", "cause": "/k", "index": 10}

ANSWERS: dict[str, Any] = {
    "GET /v2/keys": {"action": "get", "node": {"dir": True, "nodes": [DIRECTORY]}},
    "PUT /v2/keys": {"action": "set", "node": BRIEF, "prevNode": FILE},
    "POST /v2/keys": {"action": "create", "node": FILE},
    "DELETE /v2/keys": {"action": "delete", "node": {**FILE, "value": None}, "prevNode": BRIEF},
    "GET /v2/members/leader": MEMBER,
    "GET /v2/members": {"members": [MEMBER, MEMBER]},
    "POST /v2/members": MEMBER,
    "GET /v2/auth/enable": {"enabled": True},
    "GET /v2/auth/users/u": {"user": "u", "roles": [ROLE, "guest"]},
    "GET /v2/auth/users": {"users": [{"user": "u", "roles": None}, "root"]},
    "GET /v2/auth/roles/r": ROLE,
    "GET /v2/auth/roles": {"roles": [ROLE, "root"]},
    "PUT /v2/auth/users": {"user": "u", "roles": ["r"]},
    "PUT /v2/auth/roles": ROLE,
    "GET /v2/stats/self": {
        "name": "m0",
        "state": "StateLeader",
        "startTime": STARTED,
        "leaderInfo": {"leader": "1", "uptime": "7ms", "startTime": STARTED},
        "recvPkgRate": 1.5,
    },
    "GET /v2/stats/leader": {"leader": "1", "followers": {"2": FOLLOWER}},
    "GET /v2/stats/store": {"getsSuccess": 7, "watchers": 1},
    "GET /version": {"etcdserver": "3.5.1", "etcdcluster": "3.5.0"},
    "GET /health": {"health": "true", "reason": ""},
}

CALLS: dict[str, Call] = {
    "get": lambda client: client.keys.get("/k", recursive=True, sort=True),
    "set": lambda client: client.keys.set("/k", "v", ttl=9),
    "compare-and-set": lambda client: client.keys.set("/k", "v", prev_index=7),
    "create": lambda client: client.keys.create("/k", "v"),
    "create-in-order": lambda client: client.keys.create_in_order("/k", "v"),
    "refresh": lambda client: client.keys.refresh("/k", 9),
    "mkdir": lambda client: client.keys.mkdir("/k"),
    "delete": lambda client: client.keys.delete("/k", recursive=True),
    "members.list": lambda client: client.members.list(),
    "members.leader": lambda client: client.members.leader(),
    "members.add": lambda client: client.members.add("http://127.0.0.1:1"),
    "members.update": lambda client: client.members.update("1", "http://127.0.0.1:1"),
    "members.remove": lambda client: client.members.remove("1"),
    "auth.enabled": lambda client: client.auth.enabled(),
    "auth.enable": lambda client: client.auth.enable(),
    "users.list": lambda client: client.auth.users.list(),
    "users.get": lambda client: client.auth.users.get("u"),
    "users.add": lambda client: client.auth.users.add("u", "p"),
    "users.grant": lambda client: client.auth.users.grant("u", "r"),
    "roles.list": lambda client: client.auth.roles.list(),
    "roles.get": lambda client: client.auth.roles.get("r"),
    "roles.grant": lambda client: client.auth.roles.grant("r", "/a/*", permission=Permission.READ),
    "stats.self": lambda client: client.stats.self(),
    "stats.leader": lambda client: client.stats.leader(),
    "stats.store": lambda client: client.stats.store(),
    "version": lambda client: client.version(),
    "health": lambda client: client.health(),
    "request": lambda client: client.request("GET", "/v2/keys/k"),
    "sync": lambda client: client.sync(),
}

EVENTS = [
    key_event("/k/é", 11, node={**BRIEF, "modifiedIndex": 11}, prevNode=FILE),
    key_event("/k", 12, "delete", prevNode=DIRECTORY),
    key_event("/k/b", 13, "expire"),
]

# ---- what is done to it ------------------------------------------------------------------------------------------

STATUS = [b"HTTP/1.1 %d Whatever" % code for code in (200, 201, 204, 205, 206, 301, 302, 304, 307, 308)]
STATUS += [b"HTTP/1.1 %d Whatever" % code for code in (400, 401, 403, 404, 405, 410, 412, 416, 421, 500, 502, 503, 599)]
STATUS += [b"HTTP/1.1 %d" % code for code in (100, 101, 102, 103, 199, 200, 600, 999)]
STATUS += [
    b"HTTP/1.0 200 OK",
    b"HTTP/0.9 200 OK",
    b"HTTP/2 200 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 -1 OK",
    b"ICY 200 OK",
]
STATUS += [b"HTTP/1.1 200 " + b"x" * 9000, b"HTTP/1.1 200 \xff\0", b"", b"\0\0\0", b"SSH-2.0-OpenSSH", b"\x16\x03\x01"]
STATUS += [
    b"HTTP/1.1 200 OK\r\nHTTP/1.1 500 Oh",
    b"HTTP/1.1",
    b"http/1.1 200 ok",
    b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK",
]

HEADERS = [b"X-Etcd-Index: " + value for value in (b"", b"-1", b"0", b"9" * 20, b"9" * 4090, b"9" * 5000, b"1_0")]
HEADERS += [b"X-Etcd-Index: " + value for value in (b"nan", b"1.5", b"\xff", "١".encode(), b"18446744073709551615")]
HEADERS += [b"X-Raft-Term: x", b"X-Raft-Index: -", b"X-Etcd-Cluster-Id:", b"X-Etcd-Cluster-Id: \xff\xfe"]
HEADERS += [
    b"Location: " + where for where in (b"/v2/keys/k", b"/../../x", b"\xff", b"/ /", b"", b"http://[::1", b"ftp://x/")
]
HEADERS += [
    b"Location: " + where for where in (b"http://127.0.0.1:1/", b"unix:///tmp/x", b"//", b"?" + b"x" * 8000, b"/%zz#")
]
HEADERS += [b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: close", b"Connection: \xff", b"Set-Cookie: \xff=;;=,"]
HEADERS += [
    b"Content-Encoding: gzip",
    b"Content-Encoding: br, \xff",
    b"Content-Type: ;;charset=\xff",
    b"Link: <;rel=<>",
]
HEADERS += [b"no colon", b": no name", b" folded", b"X:" + b"x" * 9000, b"X\0: y", b"X: a\0b", b"X: a\rb", b"\xff: x"]
HEADERS += [b"\r\n".join(b"X-%d: x" % number for number in range(200)), b"Trailer: X-Etcd-Index", b"TE: trailers"]

INTEGERS = (
    "-1",
    "0",
    "1",
    "100",
    "300",
    "401",
    "9223372036854775808",
    "18446744073709551616",
    "9" * 30,
    "9" * 4090,
    "9" * 5000,
)
DATES = (
    "2026-13-45T99:99:99Z",
    "2026-02-29T23:59:60Z",
    "0000-00-00T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "1-1-1",
    "now",
)
VALUES = [value.encode() for value in (*INTEGERS, *(f'"{date}"' for date in DATES))]
VALUES += [
    b"null",
    b"true",
    b"1.5",
    b"-0",
    b"1e400",
    b"1E+2",
    b"NaN",
    b"-Infinity",
    b"0x10",
    b"01",
    b"'",
    b"",
    b"[]",
    b"{}",
]
VALUES += [
    b'""',
    b'"x"',
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\n"',
    b'"/_x/../y"',
]
VALUES += [b"[" * 100_000, b"[" * 400 + b"]" * 400, b'{"nodes":[' * 5000, b'{"key":"/","nodes":[' * 400 + b"]}" * 400]
VALUES += [
    b'["/a"]',
    b'[{"key":"/k/x","modifiedIndex":1}]',
    b'{"key":"/k","key":"/j","value":null}',
    b'"' + b"x" * 200_000 + b'"',
]

Damage = Callable[[bytes], bytes]

DAMAGES: list[Damage] = [
    lambda body: b"",
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: body.decode("utf-8", "replace").encode("utf-16"),
    lambda body: body.decode("utf-8", "replace").encode("latin-1", "replace"),
    lambda body: body + body,
    lambda body: body + b"\0",
    lambda body: b"\n" + body + b"\n\n",
    lambda body: body.replace(b'"', b"'"),
    lambda body: body.replace(b"{", b'{"key":"/k",'),
    lambda body: body.replace(b"modifiedIndex", b"modified_index"),
    lambda body: gzip.compress(body),
    lambda body: b"<html><body>It works!</body></html>",
    lambda body: b"404 page not found\n",
    lambda body: b" " * 100_000 + body,
]

FRAMINGS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "right": lambda body: (b"Content-Length: %d" % len(body), body),
    "too long": lambda body: (b"Content-Length: %d" % (len(body) + 9), body),
    "too short": lambda body: (b"Content-Length: %d" % (len(body) // 2), body),
    "negative": lambda body: (b"Content-Length: -1", body),
    "huge": lambda body: (b"Content-Length: 99999999999999999999999", body),
    "large": lambda body: (b"Content-Length: 1099511627776", body),
    "twice": lambda body: (b"Content-Length: %d\r\nContent-Length: 7" % len(body), body),
    "no number": lambda body: (b"Content-Length: +\xb2", body),
    "none": lambda body: (b"X-Framing: none", body),
    "chunked": lambda body: (b"Transfer-Encoding: chunked", chunk(body) + chunk(b"")),
    "bytewise": lambda body: (
        b"Transfer-Encoding: chunked",
        b"".join(chunk(body[i : i + 1]) for i in range(len(body))),
    ),
    "both": lambda body: (b"Transfer-Encoding: chunked\r\nContent-Length: 3", chunk(body) + chunk(b"")),
    "chunk too long": lambda body: (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) + 3, body)),
    "chunk too short": lambda body: (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) // 2, body)),
    "chunk size": lambda body: (b"Transfer-Encoding: chunked", b"-5\r\n%s\r\n0\r\n\r\n" % body),
    "huge chunk": lambda body: (b"Transfer-Encoding: chunked", b"f" * 30 + b"\r\n" + body),
    "long chunk size": lambda body: (b"Transfer-Encoding: chunked", b"0" * 100_000 + b"1\r\n" + body),
    "chunk extension": lambda body: (b"Transfer-Encoding: chunked", b"1;" + b"x" * 100_000 + b"\r\n" + body),
    "trailers": lambda body: (b"Transfer-Encoding: chunked", chunk(body) + b"0\r\n" + b"X-Etcd-Index: 99\r\n" * 2000),
    "unknown": lambda body: (b"Transfer-Encoding: gzip, identity", body),
}

ENDINGS: dict[str, tuple[bytes, bool]] = {  # what comes for ever after the answer, and whether the server hangs up
    "stays": (b"", False),
    "hangs up": (b"", True),
    "resets": (b"", True),
    "never ends": (b"x" * 50_000, False),
    "never ends a line": (b" " * 50_000, False),
    "never ends chunks": (chunk(b" " * 50_000), False),
    "never ends headers": (b"X-More: x\r\n" * 5000, False),
    "never ends answering": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" * 1000, False),
    "never ends events": (chunk(json.dumps(key_event()).encode() + b"\n") * 500, False),
}

INTERIM = [
    b"",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 2000,
    b"\r\n" * 3000,
    b"\xff\r\n\r\n",
]


class Hostility(NamedTuple):
    """What is done to an answer; by default nothing."""

    status: bytes = b"HTTP/1.1 200 OK"
    headers: tuple[bytes, ...] = ()
    graft: tuple[int, bytes] | None = None
    refuses: bool = False
    damage: Damage | None = None
    framing: str = "right"
    interim: bytes = b""
    noise: tuple[float, bytes] | None = None
    cut: float = 1.0
    pieces: int = 1
    ending: str = "stays"

    async def answer(self, exchange: Exchange) -> bool | None:
        """Answer a request."""
        return await self.send(exchange, [REFUSAL if self.refuses else answer_to(exchange)])

    async def send(self, exchange: Exchange, documents: list[Any]) -> bool | None:
        answer = self.write(documents)
        for start in range(0, len(answer), len(answer) // self.pieces + 1):
            await exchange.send(answer[start : start + len(answer) // self.pieces + 1])
            await asyncio.sleep(0.002 if self.pieces > 1 else 0)
        more, hangs_up = ENDINGS[self.ending]
        while more:
            await exchange.send(more)
            await asyncio.sleep(0)
        if self.ending == "resets":
            exchange.reset()
        return not hangs_up

    def write(self, documents: list[Any]) -> bytes:
        """The answer, as far as it ends."""
        lines = [grafted(document, *self.graft) if self.graft else encoded(document) for document in documents]
        body = b"\n".join(lines)
        if self.damage is not None:
            body = self.damage(body)
        length, framed = FRAMINGS[self.framing](body)
        headers = [*self.headers, b"X-Etcd-Index: 10", b"X-Etcd-Cluster-Id: " + CLUSTER_ID.encode(), length]
        answer = self.interim + b"\r\n".join([self.status, *headers, b"", framed])
        if self.noise is not None:
            place, noise = self.noise
            position = int(place * len(answer))
            answer = answer[:position] + noise + answer[position + len(noise) :]
        return answer[: round(self.cut * len(answer))]


def answer_to(exchange: Exchange) -> Any:
    line = f"{exchange.seen.method} {exchange.seen.target}"
    return next((answer for start, answer in ANSWERS.items() if line.startswith(start)), {})


def encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def grafted(document: Any, number: int, value: bytes) -> bytes:
    """The document with one of all its values replaced by some bytes."""
    places = list(values_in(document))
    if not places:
        return value
    parent, name = places[number % len(places)]
    kept, parent[name] = parent[name], "GRAFT"
    text = encoded(document)
    parent[name] = kept
    return text.replace(b'"GRAFT"', value)


def values_in(document: Any) -> Iterator[tuple[Any, Any]]:
    for name, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, name
        if isinstance(value, (dict, list)):
            yield from values_in(value)


def mostly(usual: Any, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is usual in most answers, so that the others get to what comes after."""
    return st.integers(0, 3).flatmap(lambda number: st.just(usual) if number else strategy)


HOSTILITY = st.builds(
    Hostility,
    status=mostly(b"HTTP/1.1 200 OK", st.sampled_from(STATUS)),
    headers=mostly((), st.lists(st.sampled_from(HEADERS), min_size=1, max_size=3).map(tuple)),
    graft=st.none() | st.tuples(st.integers(0, 40), st.sampled_from(VALUES)),
    refuses=mostly(False, st.just(True)),
    damage=mostly(None, st.sampled_from(DAMAGES)),
    framing=mostly("right", st.sampled_from(sorted(FRAMINGS))),
    interim=mostly(b"", st.sampled_from(INTERIM)),
    noise=mostly(None, st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9))),
    cut=mostly(1.0, st.floats(0, 1)),
    pieces=mostly(1, st.integers(2, 9)),
    ending=mostly("stays", st.sampled_from(sorted(ENDINGS))),
)


ONE_BY_ONE = [
    *(Hostility(status=status) for status in STATUS),
    *(Hostility(headers=(header,)) for header in HEADERS),
    *(Hostility(b"HTTP/1.1 307 There", headers=(header,)) for header in HEADERS if header.startswith(b"Location")),
    *(Hostility(graft=(number, value)) for number in (1, 3) for value in VALUES),
    *(Hostility(graft=(4, value.encode()), framing="none", ending="hangs up") for value in INTEGERS),
    *(Hostility(b"HTTP/1.1 400 Bad", graft=(number, value), refuses=True) for number in (0, 3) for value in VALUES),
    *(Hostility(damage=damage) for damage in DAMAGES),
    *(Hostility(framing=framing) for framing in FRAMINGS),
    *(Hostility(interim=interim) for interim in INTERIM),
    *(Hostility(ending=ending, framing=framing) for ending in ENDINGS for framing in ("right", "none")),
]


@pytest.fixture(autouse=True)
async def no_complaints(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The limits are small, and nothing goes wrong behind the scenes."""
    monkeypatch.setattr(transport, "MAX_BODY", SMALL)
    monkeypatch.setattr(stream, "MAX_EVENT", SMALL)
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints


def client_of(server: Misbehaver) -> Client:
    return Client(server.endpoint, header_timeout=HEADER_TIMEOUT, probe_interval=HEADER_TIMEOUT)


async def soon(name: str, work: Awaitable[object]) -> object:
    """The value of a call, or its `EtcdError`."""
    try:
        async with timeout(AWHILE):
            return await work
    except EtcdError as error:
        return error
    except asyncio.TimeoutError:
        raise AssertionError(f"{name} hangs") from None
    except Exception as error:
        raise AssertionError(f"{name} raises {error!r}") from error


@pytest.mark.parametrize("start", range(0, len(ONE_BY_ONE), 50))
async def test_each_damage_by_itself(start: int) -> None:
    async def suffer(hostility: Hostility) -> None:
        both = HostileWait(hostility, hostility, len(EVENTS))
        async with Misbehaver(both.answer) as server, client_of(server) as client:
            for name in ("get", "create", "members.list", "health"):
                await soon(f"{name} with {hostility!r:.300}", CALLS[name](client))
            await soon(f"watch with {hostility!r:.300}", listen(client.keys.watch("/k", recursive=True)))

    outcomes = await asyncio.gather(*map(suffer, ONE_BY_ONE[start : start + 50]), return_exceptions=True)
    for failure in filter(None, outcomes):
        raise failure


@hostile
@given(HOSTILITY)
async def test_every_call_ends(hostility: Hostility) -> None:
    async with Misbehaver(hostility.answer) as server, client_of(server) as client:
        await asyncio.gather(*(soon(name, call(client)) for name, call in CALLS.items()))


class HostileWait(NamedTuple):
    """What is done to the events of a wait; reads are answered as usual, or just so."""

    wait: Hostility
    reads: Hostility
    events: int

    async def answer(self, exchange: Exchange) -> bool | None:
        if "wait" in exchange.seen.query:
            return await self.wait.send(exchange, EVENTS[: self.events])
        return await self.reads.answer(exchange)


@hostile
@given(st.builds(HostileWait, HOSTILITY, mostly(Hostility(), HOSTILITY), st.integers(0, len(EVENTS))))
async def test_every_watch_ends_or_goes_on(hostile_wait: HostileWait) -> None:
    async with Misbehaver(hostile_wait.answer) as server, client_of(server) as client:
        watchers = [
            client.keys.watch("/k", recursive=recursive, after_index=after)
            for recursive in (False, True)
            for after in (None, 0, 5, 11)
        ]
        await asyncio.gather(*(soon("watch", listen(watcher)) for watcher in watchers))
        for watcher in watchers:
            await soon("close", watcher.aclose())


async def listen(watcher: Watcher) -> None:
    """Register, then take events for a moment; they are in order."""
    last = watcher.index or 0
    await watcher.__aenter__()
    with suppress(asyncio.TimeoutError):
        async with timeout(LISTENING):
            while True:
                event = await watcher.next()
                assert isinstance(event, Response)
                assert isinstance(event.node, Node)
                assert event.node.modified_index > last
                last = event.node.modified_index


# ---- the limits, one by one --------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 10\r\n"

FLOODS: dict[str, tuple[bytes, bytes]] = {
    "body": (OK + b"\r\n", b" " * 50_000),
    "announced body": (OK + b"Content-Length: 1099511627776\r\n\r\n", b" " * 50_000),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" " * 50_000)),
    "small chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" " * 50) * 1000),
    "chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 50_000),
    "chunk extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 50_000),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-More: x\r\n" * 5000),
    "status line": (b"HTTP/1.1 200 ", b"x" * 50_000),
    "header line": (OK + b"X-Long: ", b"x" * 50_000),
    "header lines": (OK, b"X-More: x\r\n" * 5000),
    "folded header line": (OK + b"X-Long: x\r\n", b" x\r\n" * 9000),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
    "empty lines": (b"", b"\r\n" * 20_000),
    "refusal": (b"HTTP/1.1 400 Bad Request\r\n\r\n", b" " * 50_000),
    "redirect": (b"HTTP/1.1 307 There\r\nLocation: /v2/keys/k\r\n\r\n", b" " * 50_000),
}

MORE_MEMORY = 32 << 20
"""What the limits, the buffers of both sides and the allocator's habits may take; a flood is ten times as much."""


class Flood:
    """An answer that never ends.

    Attributes:
        memory: The most that this process took meanwhile, in bytes.
    """

    def __init__(self, head: bytes, more: bytes) -> None:
        self._head = head
        self._more = more
        self.memory = 0

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(self._head)
        while True:
            await exchange.send(self._more)
            self.memory = max(self.memory, memory())
            await asyncio.sleep(0)


def memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


COUNTS_HEADERS = "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
"""Whether this aiohttp bounds the number of header lines; where it does not, only the header timeout does."""


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_never_ends_is_cut_off(flood: str) -> None:
    if flood in ("header lines", "trailers") and not COUNTS_HEADERS:
        pytest.skip("an older aiohttp takes any number of header lines")
    behaviour = Flood(*FLOODS[flood])
    before = memory()
    async with Misbehaver(behaviour) as server, client_of(server) as client:
        outcomes = [soon(name, CALLS[name](client)) for name in ("get", "set", "members.list", "health")]
        outcomes.append(soon("watch", listen(client.keys.watch("/k"))))
        *errors, _ = await asyncio.gather(*outcomes)
    assert all(isinstance(error, EtcdError) for error in errors)
    assert behaviour.memory < before + MORE_MEMORY


@pytest.mark.parametrize("pieces", [[b"HTTP/1.1 200 ", *[b"x"] * 500], [b"HTTP/1.1 200 OK\r\n", *[b"X: x\r\n"] * 100]])
async def test_a_header_in_drips_has_one_header_timeout(pieces: list[bytes]) -> None:
    async with Misbehaver(raw(*pieces, pause=HEADER_TIMEOUT / 20)) as server, client_of(server) as client:
        for call in (CALLS["get"], lambda client: client.keys.watch("/k").next()):
            began = time.monotonic()
            error = await soon("call", call(client))
            assert isinstance(error, ClusterError)
            assert isinstance(error.errors[0], HeaderTimeoutError)
            assert time.monotonic() - began >= 0.9 * HEADER_TIMEOUT


async def test_a_body_in_drips_ends() -> None:
    drips = [b" "] * 1000
    async with Misbehaver(raw(OK + b"\r\n", *drips, pause=HEADER_TIMEOUT / 20)) as server, client_of(server) as client:
        error = await soon("get", CALLS["get"](client))
        assert isinstance(error, ClusterError)
        assert isinstance(error.errors[0], HeaderTimeoutError)


@pytest.mark.parametrize("framing", ["right", "none", "chunked"])
async def test_the_limit_of_an_answer(framing: str) -> None:
    for status, excess in itertools.product((200, 400), (0, 1)):
        hostility = Hostility(
            b"HTTP/1.1 %d Whatever" % status, framing=framing, ending="hangs up", damage=partial(padded, SMALL + excess)
        )
        async with Misbehaver(hostility.answer) as server, client_of(server) as client:
            outcome = await soon("request", CALLS["request"](client))
            assert isinstance(outcome, EtcdError if excess else HTTPResult)
            if isinstance(outcome, HTTPResult):
                assert len(outcome.body) == SMALL
            outcome = await soon("version", CALLS["version"](client))
            assert isinstance(outcome, EtcdError if excess or status == 400 else Version)
            if excess:
                assert f"longer than {SMALL}" in str(outcome)


@pytest.mark.parametrize("excess", [-1000, 100_000])
async def test_the_limit_of_an_event(excess: int) -> None:
    """A watch takes an event of nearly that size, in pieces; a longer one it asks for three times, and says so."""
    event = padded(SMALL + excess, encoded(EVENTS[0])) + b"\n"
    pieces = [chunk(event[start : start + 30_000]) for start in range(0, len(event), 30_000)]
    async with Misbehaver(raw(wait_header() + pieces[0], *pieces[1:], then=hang), reads=answer(EVENTS[0])) as server:
        async with client_of(server) as client, client.keys.watch("/k", recursive=True) as watcher:
            if excess < 0:
                assert isinstance(await soon("next", watcher.next()), Response)
            else:
                with pytest.raises(InvalidResponseError, match=f"longer than {SMALL}"):
                    async with timeout(10 * HEADER_TIMEOUT):
                        await watcher.next()
                assert len(server.waits) == 3


async def test_what_comes_after_an_answer_is_no_answer_to_the_next_request() -> None:
    """Nor is it kept: a connection on which more came than was asked for is not used again."""
    true, false = (OK + b"Content-Length: 19\r\n\r\n" + b'{"health": "%s" }' % word for word in (b"true", b"oops"))
    flood = Flood(true, false * 1000)
    before = memory()
    async with Misbehaver(flood) as server, client_of(server) as client:
        for _ in range(5):
            assert await client.health() == Health(True)
            await asyncio.sleep(HEADER_TIMEOUT / 4)
    assert flood.memory < before + MORE_MEMORY


def padded(length: int, body: bytes) -> bytes:
    """The JSON document with as many spaces as it lacks."""
    return body[:-1] + b" " * (length - len(body)) + body[-1:]
