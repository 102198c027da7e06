"""What the network does to a call: at most once, time-outs, broken answers, cancellation, closing, credentials."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import random
import re
import socket
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import aiohttp
import pytest
from async_timeout import timeout
from multidict import CIMultiDict, CIMultiDictProxy

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EndpointSelection,
    EtcdError,
    HeaderTimeoutError,
    HTTPResult,
    InvalidResponseError,
    KeyNotFoundError,
    NodeExistsError,
    Permission,
    Response,
    disable_curl_debug,
    enable_curl_debug,
)
from aioetcd2._net import transport as _transport
from aioetcd2._net.causes import is_certificate_refused, words_of
from aioetcd2._net.credentials import BasicCredentials
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import build
from aioetcd2._net.stream import Stream
from aioetcd2._net.tally import Tally
from aioetcd2._v2 import responses as decode

from .misbehaver import (
    Behaviour,
    Exchange,
    Misbehaver,
    answer,
    chunk,
    close,
    close_by_reset,
    hang,
    key_event,
    raw,
    reset,
    stay,
    wait,
    wait_header,
)

FORM = "application/x-www-form-urlencoded"

Call = Callable[[Client], Awaitable[object]]

PLAIN: dict[str, Call] = {
    "set": lambda client: client.keys.set("/k", "v"),
    "update": lambda client: client.keys.update("/k", "v"),
    "refresh": lambda client: client.keys.refresh("/k", 5),
    "members-update": lambda client: client.members.update("1", "http://127.0.0.1:1"),
    "members-remove": lambda client: client.members.remove("1"),
    "users-grant": lambda client: client.auth.users.grant("ann", "reader"),
    "users-revoke": lambda client: client.auth.users.revoke("ann", "reader"),
    "roles-grant": lambda client: client.auth.roles.grant("reader", "/*", permission=Permission.READ),
    "roles-revoke": lambda client: client.auth.roles.revoke("reader", "/*", permission=Permission.READ),
}
ONE_SHOT: dict[str, Call] = {
    "create": lambda client: client.keys.create("/k", "v"),
    "set-prev-value": lambda client: client.keys.set("/k", "v", prev_value="w"),
    "set-prev-index": lambda client: client.keys.set("/k", "v", prev_index=7),
    "delete": lambda client: client.keys.delete("/k"),
    "compare-and-delete": lambda client: client.keys.delete("/k", prev_index=7),
    "create-in-order": lambda client: client.keys.create_in_order("/k", "v"),
    "mkdir": lambda client: client.keys.mkdir("/k"),
    "members-add": lambda client: client.members.add("http://127.0.0.1:1"),
    "roles-add": lambda client: client.auth.roles.add("reader"),
    "roles-remove": lambda client: client.auth.roles.remove("reader"),
    "users-remove": lambda client: client.auth.users.remove("ann"),
    "auth-enable": lambda client: client.auth.enable(),
    "auth-disable": lambda client: client.auth.disable(),
    "request": lambda client: client.request("PUT", "/v2/x", one_shot=True),
    **PLAIN,
}
REPEATABLE: dict[str, Call] = {"get": lambda client: client.keys.get("/k"), **PLAIN}

MEMBER: dict[str, Any] = {"id": "1", "name": "", "peerURLs": ["http://127.0.0.1:1"], "clientURLs": []}

one_shot = pytest.mark.parametrize("call", ONE_SHOT.values(), ids=ONE_SHOT.keys())
hang_up = pytest.mark.parametrize("hang_up", [close, reset], ids=["fin", "rst"])


async def fine(exchange: Exchange) -> bool | None:
    """Answer whatever was asked as a healthy server would."""
    body = {**MEMBER, **key_event(), "user": "ann", "role": "reader"}
    if exchange.seen.target.startswith("/v2/members/"):
        return await answer(status=204)(exchange)
    return await answer(body, status=200 if exchange.seen.method == "GET" else 201)(exchange)


def client_of(*servers: Misbehaver | str, header_timeout: float | None = 30.0, **options: Any) -> Client:
    endpoints = [server if isinstance(server, str) else server.endpoint for server in servers]
    return Client(endpoints, header_timeout=header_timeout, selection=EndpointSelection.PRIORITIZE_LEADER, **options)


@contextmanager
def listener(backlog: int | None) -> Iterator[str]:
    """A socket that never accepts; without a backlog, one that refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if backlog is not None:
            bound.listen(backlog)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def unreachable() -> Iterator[str]:
    """A listener whose backlog is full: the kernel drops what comes."""
    with listener(0) as endpoint, socket.socket() as first, socket.socket() as second:
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        yield endpoint


@pytest.fixture
def refusing() -> Iterator[str]:
    with listener(None) as endpoint:
        yield endpoint


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def own_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() != "misbehaver"} - {asyncio.current_task()}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that hang on it."""
    if error is not None:
        yield error
        held = error.errors if isinstance(error, ClusterError) else ()
        for each in {id(each): each for each in (error.__cause__, error.__context__, *held)}.values():
            yield from chain(each)


async def failure_of(call: Awaitable[object]) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        await call
    return caught.value


# --- at most once ---------------------------------------------------------------------------------------------------


@one_shot
@hang_up
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
async def test_one_shot_is_sent_once(call: Call, hang_up: Behaviour, reused: bool) -> None:
    async with Misbehaver(*([fine] if reused else []), hang_up) as server, Misbehaver(fine) as other:
        async with client_of(server, other) as client:
            if reused:
                await client.keys.get("/k")
            error = await failure_of(call(client))
        assert error.maybe_applied
        assert [type(each) for each in error.errors] == [ConnectionLostError]
        assert error.errors[0].endpoint == server.endpoint
        assert server.connections == 1
        assert len(server.seen) == 1 + reused
        assert other.seen == []


@one_shot
async def test_one_shot_moves_on_where_it_was_never_sent(call: Call, refusing: str) -> None:
    async with Misbehaver(fine) as server, client_of(refusing, server) as client:
        await call(client)
        assert len(server.seen) == 1


@one_shot
async def test_one_shot_refused_everywhere_was_not_applied(call: Call, refusing: str) -> None:
    async with client_of(refusing) as client:
        error = await failure_of(call(client))
    assert not error.maybe_applied
    assert [type(each) for each in error.errors] == [ConnectError]


async def test_one_shot_moves_on_from_a_full_backlog() -> None:
    with unreachable() as endpoint:
        async with Misbehaver(fine) as server, client_of(endpoint, server, header_timeout=0.3) as client:
            await client.keys.create("/k", "v")
            assert len(server.seen) == 1


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["plain", "eof", "silence"])
@pytest.mark.slow
async def test_one_shot_moves_on_from_a_failed_handshake(words: bytes | None) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if words is None:
            await reader.read()
        else:
            writer.write(words)
        writer.close()

    plain = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    async with Misbehaver(fine) as server, client_of(f"https://127.0.0.1:{port}", server, header_timeout=0.5) as client:
        await client.keys.create("/k", "v")
        assert len(server.seen) == 1
    plain.close()


async def test_one_shot_to_who_never_accepts_may_have_been_applied() -> None:
    with listener(16) as endpoint:
        async with Misbehaver(fine) as other, client_of(endpoint, other, header_timeout=0.3) as client:
            error = await failure_of(client.keys.create("/k", "v"))
        assert error.maybe_applied
        assert [type(each) for each in error.errors] == [HeaderTimeoutError]
        assert other.seen == []


@one_shot
@pytest.mark.slow
async def test_one_shot_timed_out_may_have_been_applied(call: Call) -> None:
    async with Misbehaver(hang) as server, client_of(server, header_timeout=0.1) as client:
        error = await failure_of(call(client))
        assert error.maybe_applied
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "broken",
    [
        raw(b"HTTP/1.1 201 Created\r\nContent-Length: 90\r\n\r\n{"),
        raw(b"HTTP/1.1 201 Created\r\nContent-Length: 90\r\n\r\n{", then=hang),
        raw(b"HTTP/1.1 201 Crea", then=hang),
        raw(b"HTTP/1.1 201 Crea"),
        raw(b"nonsense\r\n\r\n"),
        answer("<html>", status=201),
        answer(b"", status=201),
    ],
    ids=["cut-body", "stalled-body", "stalled-header", "cut-header", "no-http", "html", "empty"],
)
async def test_one_shot_with_a_broken_answer_may_have_been_applied(broken: Behaviour) -> None:
    async with Misbehaver(broken) as server, Misbehaver(fine) as other:
        async with client_of(server, other, header_timeout=0.1) as client:
            with pytest.raises((ClusterError, InvalidResponseError), match="may have been applied"):
                await client.keys.create("/k", "v")
        assert (len(server.seen), len(other.seen)) == (1, 0)


@hang_up
async def test_one_shot_cut_off_in_the_middle_of_its_body_may_have_been_applied(hang_up: Behaviour) -> None:
    heads = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        await reader.readuntil(b"\r\n\r\n")
        heads += 1
        if hang_up is reset:
            close_by_reset(writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with client_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        error = await failure_of(client.keys.set("/k", "v" * 9_000_000, prev_index=7))
    server.close()
    assert error.maybe_applied
    assert heads == 1


async def test_after_a_lost_one_shot_the_next_call_begins_elsewhere() -> None:
    async with Misbehaver(close, fine) as first, Misbehaver(fine) as second, client_of(first, second) as client:
        await failure_of(client.keys.create("/k", "v"))
        await client.keys.get("/k")
        await client.keys.create("/k", "v")
        assert (len(first.seen), len(second.seen)) == (1, 2)


@pytest.mark.parametrize("call", REPEATABLE.values(), ids=REPEATABLE.keys())
@hang_up
async def test_repeatable_goes_on_to_the_next(call: Call, hang_up: Behaviour) -> None:
    async with (
        Misbehaver(hang_up) as first,
        Misbehaver(fine) as second,
        client_of(first, second, repeat_writes=True) as client,
    ):
        await call(client)
        assert len(second.seen) == 1


async def test_repeatable_write_is_sent_once_to_each() -> None:
    async with (
        Misbehaver(close) as first,
        Misbehaver(reset) as second,
        client_of(first, second, repeat_writes=True) as client,
    ):
        error = await failure_of(client.keys.set("/k", "v"))
        assert error.maybe_applied
        assert (len(first.seen), len(second.seen)) == (1, 1)


async def test_read_lost_everywhere_applied_nothing() -> None:
    async with Misbehaver(close) as server, client_of(server) as client:
        assert not (await failure_of(client.keys.get("/k"))).maybe_applied


@pytest.mark.parametrize("call", [ONE_SHOT["create"], REPEATABLE["get"]], ids=["create", "get"])
async def test_connection_closed_while_idle_costs_nothing(call: Call) -> None:
    async def answer_and_close(exchange: Exchange) -> bool:
        await fine(exchange)
        return False

    async with Misbehaver(answer_and_close) as server, client_of(server) as client:
        await client.keys.get("/k")
        await until(lambda: server.open == 0)
        await asyncio.sleep(0.05)
        await call(client)
        assert len(server.seen) == 2


# --- time-outs and broken answers -----------------------------------------------------------------------------------


async def test_header_timeout() -> None:
    async with Misbehaver(hang) as server, client_of(server, header_timeout=0.3) as client:
        began = time.monotonic()
        error = await failure_of(client.keys.get("/k"))
        assert 0.29 < time.monotonic() - began < 3
        assert [type(each) for each in error.errors] == [HeaderTimeoutError]
        assert error.errors[0].reason == "no answer within the header timeout of 0.3 s"
        assert isinstance(error.errors[0], TimeoutError)
        await until(lambda: server.open == 0)


@pytest.mark.slow
async def test_header_timeout_is_per_endpoint() -> None:
    async with (
        Misbehaver(hang) as first,
        Misbehaver(hang) as second,
        Misbehaver(fine) as third,
        client_of(first, second, third, header_timeout=0.2) as client,
    ):
        began = time.monotonic()
        await client.keys.get("/k")
        assert time.monotonic() - began > 0.39
        assert (len(first.seen), len(second.seen), len(third.seen)) == (1, 1, 1)


async def test_header_timeout_while_a_cancelled_task_cleans_up() -> None:
    async def clean_up(client: Client) -> ClusterError:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await failure_of(client.keys.get("/k"))
        raise AssertionError("it was not cancelled")

    async with Misbehaver(hang) as server, client_of(server, header_timeout=0.2) as client:
        task = asyncio.ensure_future(clean_up(client))
        await asyncio.sleep(0)
        task.cancel()
        assert [type(each) for each in (await task).errors] == [HeaderTimeoutError]


async def test_dripping_header_times_out() -> None:
    drip = raw(*(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100), pause=0.02)
    async with Misbehaver(drip) as server, client_of(server, header_timeout=0.3) as client:
        error = await failure_of(client.keys.get("/k"))
        assert [type(each) for each in error.errors] == [HeaderTimeoutError]


async def test_no_header_timeout_waits() -> None:
    slow = raw(b"", pause=0.2, then=fine)
    async with Misbehaver(slow) as server, client_of(server, header_timeout=None) as client:
        assert (await client.keys.get("/k")).index == 10


PATIENT = build("GET", "/v2/keys/k", patient=True)


@pytest.mark.slow
async def test_patient_request_waits_for_its_header() -> None:
    slow = raw(b"", pause=0.7, then=fine)
    async with Misbehaver(slow) as server, client_of(server, header_timeout=0.3) as client:
        error = await failure_of(client.keys.get("/k"))
        assert [type(each) for each in error.errors] == [HeaderTimeoutError]
        assert (await client._failover.call(PATIENT, decode.keys)).index == 10


async def test_patient_request_does_not_wait_for_its_connection() -> None:
    with unreachable() as endpoint:
        async with client_of(endpoint, header_timeout=0.3) as client, timeout(10):
            error = await failure_of(client._failover.call(PATIENT, decode.keys))
    assert [type(each) for each in error.errors] == [ConnectError]


@pytest.mark.parametrize("rest", [hang, raw(*[b" "] * 9000, pause=0.01)], ids=["stall", "drip"])
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["length", "eof"]
)
@pytest.mark.slow
async def test_body_that_stalls_times_out(head: bytes, rest: Behaviour) -> None:
    async with Misbehaver(raw(head, b"{", then=rest)) as server, Misbehaver(fine) as other:
        async with client_of(server, other, header_timeout=0.2) as client:
            began = time.monotonic()
            await client.keys.get("/k")
            assert 0.19 < time.monotonic() - began < 5
            await until(lambda: server.open == 0)
        assert len(other.seen) == 1


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.slow
async def test_body_in_drips_times_out(endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "DRIP_TIMEOUTS", 2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n"
    async with Misbehaver(raw(head, *[b" "] * 90, pause=0.05)) as server:
        async with client_of(server, header_timeout=None if endless else 0.2) as client:
            began = time.monotonic()
            if endless:
                with pytest.raises(asyncio.TimeoutError):
                    async with timeout(0.7):
                        await client.keys.get("/k")
            else:
                error = await failure_of(client.keys.get("/k"))
                assert 0.39 < time.monotonic() - began < 3
                assert [type(each) for each in error.errors] == [HeaderTimeoutError]
                words = r"the body stalled, or came in drips, for 0\.2 s after \d+ bytes"
                assert re.fullmatch(words, error.errors[0].reason)
                assert isinstance(error.errors[0].__cause__, asyncio.TimeoutError)


@pytest.mark.slow
async def test_refusal_of_a_watch_that_stalls_times_out() -> None:
    stalled = raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 90\r\n\r\n{", then=hang)
    async with Misbehaver(stalled) as server, client_of(server, header_timeout=0.2) as client:
        error = await failure_of(client.keys.watch("/k").next())
        assert [type(each) for each in error.errors] == [HeaderTimeoutError]
        await until(lambda: server.open == 0)


@pytest.mark.slow
async def test_slow_body_that_keeps_coming_does_not_time_out() -> None:
    body = json.dumps(key_event(value="v" * 200)).encode()
    pieces = [body[start : start + 20] for start in range(0, len(body), 20)]
    head = f"HTTP/1.1 200 OK\r\nX-Etcd-Index: 5\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with Misbehaver(raw(head, *pieces, pause=0.1)) as server, client_of(server, header_timeout=0.5) as client:
        assert (await client.keys.get("/k")).index == 5


@pytest.mark.slow
async def test_big_body_that_keeps_coming_does_not_time_out() -> None:
    body = json.dumps(key_event(value="v" * 1_000_000)).encode()
    pieces = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
    head = f"HTTP/1.1 200 OK\r\nX-Etcd-Index: 5\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    slow = raw(head, *pieces, pause=0.1)
    async with Misbehaver(slow) as server, client_of(server, header_timeout=0.9) as client:
        response = await client.keys.get("/k")
        assert response.node is not None
        assert response.node.value == "v" * 1_000_000


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"


@pytest.mark.parametrize(
    "cut",
    [
        raw(LENGTH + b'{"action":'),
        raw(LENGTH + b'{"action":', then=reset),
        raw(LENGTH),
        raw(wait_header() + chunk(b'{"action":"get"')),
        raw(wait_header() + b"ff\r\n{"),
        raw(wait_header()),
        raw(b"HTTP/1.1 200 OK\r\nX-Etcd-"),
        raw(b"HTTP/1.1 200 OK\r\n"),
    ],
    ids=["length", "length-rst", "no-body", "chunked", "in-chunk", "no-chunk", "in-header", "after-status"],
)
@pytest.mark.parametrize("call", [ONE_SHOT["create"], REPEATABLE["get"]], ids=["create", "get"])
async def test_cut_answer_is_a_lost_connection(cut: Behaviour, call: Call) -> None:
    async with Misbehaver(cut) as server, client_of(server) as client:
        error = await failure_of(call(client))
        assert {type(each) for each in error.errors} == {ConnectionLostError}
        assert isinstance(error.errors[0].__cause__, (aiohttp.ClientError, OSError))


@pytest.mark.parametrize("call", [ONE_SHOT["create"], REPEATABLE["get"]], ids=["create", "get"])
@pytest.mark.parametrize("heard", [False, True], ids=["never-heard", "heard"])
async def test_https_is_suspected_only_where_nothing_was_ever_heard(call: Call, heard: bool) -> None:
    async with Misbehaver(*([fine] if heard else []), close) as server, client_of(server) as client:
        if heard:
            await client.keys.get("/k")
        error = await failure_of(call(client))
        assert (
            error.errors[0].reason.endswith("; it has never answered, does it serve https, or HTTP/2 only?")
            is not heard
        )


async def test_https_is_not_suspected_of_a_socket(tmp_path: Path) -> None:
    async with Misbehaver(close, path=str(tmp_path / "s")) as server, client_of(server) as client:
        assert "https" not in (await failure_of(client.keys.get("/k"))).errors[0].reason


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "nonsense",
    [
        raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        raw(b"HTTP/9.9 abc\r\n\r\n"),
        raw(OK + b"Content-Length: minus one\r\n\r\n"),
        raw(OK + b"Content-Length: -1\r\n\r\n"),
        raw(OK + b"no colon\r\n\r\n"),
        raw(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
        raw(OK + b"X: y\r\n" * 5_000 + b"\r\n"),
        answer("<html><body>It works!</body></html>", headers={"Content-Type": "text/html"}),
        answer(b""),
        answer(b'{"action":"get","node":{"key":"/k"'),
        answer(b"[]"),
        answer(b"{}"),
        answer(b"null"),
        answer(b'{"action":7}'),
        answer(b'{"action":"get","node":{"key":"/k","modifiedIndex":"x"}}'),
        answer(b"\xff\xfe\x00"),
        answer(b"[" * 100_000),
        answer(key_event(), headers={"X-Raft-Index": "many"}),
        answer("not found", status=404),
        answer("hello", status=204),
        answer(key_event(), status=202),
    ],
    ids=[
        "ssh", "tls", "version", "length-words", "length-negative", "no-colon", "long-header", "many-headers",
        "html", "empty", "half-json", "list", "object", "null", "bad-action", "bad-index", "binary", "deep",
        "bad-raft-index", "text-404", "no-content", "status-202",
    ],
)  # fmt: skip
async def test_nonsense_is_not_etcd(nonsense: Behaviour) -> None:
    async with Misbehaver(nonsense) as server, Misbehaver(fine) as other:
        async with client_of(server, header_timeout=5) as client:
            with pytest.raises(InvalidResponseError, match=r"^GET /v2/keys/k at .*: probably not an etcd v2 endpoint"):
                await client.keys.get("/k")
        async with client_of(server, other, header_timeout=5) as client:
            await client.keys.get("/k")
        assert len(other.seen) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_above_the_limit_is_not_read(chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioetcd2._net.transport.MAX_BODY", 1_000_000)
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(wait_header() if chunked else OK + b"Content-Length: 9000000000\r\n\r\n")
        piece = b" " * 100_000
        while True:
            await exchange.send(chunk(piece) if chunked else piece)
            sent += len(piece)

    async with Misbehaver(endless) as server, client_of(server) as client:
        with pytest.raises(InvalidResponseError, match="longer than 1000000 bytes"):
            await client.keys.get("/k")
        await until(lambda: server.open == 0)
    assert 1_000_000 <= sent < 50_000_000


async def test_answer_followed_by_a_reset_is_taken_or_lost() -> None:
    for size in (1, 10_000, 500_000):
        body = json.dumps(key_event(value="v" * size)).encode()
        head = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 5\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with Misbehaver(raw(head + body, then=reset)) as server, client_of(server) as client:
            (outcome,) = await asyncio.gather(client.keys.get("/k"), return_exceptions=True)
        if isinstance(outcome, ClusterError):
            assert {type(each) for each in outcome.errors} == {ConnectionLostError}
        else:
            assert isinstance(outcome, Response)


@pytest.mark.slow
async def test_mutilated_answers_raise_nothing_but_our_errors() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    body = json.dumps(key_event(prevNode=key_event()["node"])).encode()
    whole = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 12\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    chunked = wait_header() + chunk(body[:40]) + chunk(body[40:]) + chunk(b"")

    async def mutilate(exchange: Exchange) -> bool | None:
        data = bytearray(dice.choice((whole, chunked)))
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[at] = dice.randrange(256)
                case 1:
                    del data[at : at + dice.randint(1, 20)]
                case 2:
                    data[at:at] = dice.choice((b"\r\n", b"\0", b"-1", b"9" * 30, b"{", b":", b"\r\n\r\n"))
                case _:
                    del data[at:]
        await exchange.send(bytes(data))
        return await dice.choice((close, reset, hang))(exchange)

    async with Misbehaver(mutilate) as server, client_of(server, header_timeout=0.5) as client:
        outcomes = await asyncio.gather(*(client.keys.get("/k") for _ in range(300)), return_exceptions=True)
    strange = [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, EtcdError)]
    assert strange == []
    assert any(isinstance(each, EtcdError) for each in outcomes)


async def test_answer_that_nobody_asked_for_is_not_the_next_answer() -> None:
    async def twice(exchange: Exchange) -> None:
        body = json.dumps(key_event(value=exchange.seen.target)).encode()
        await exchange.send((OK + b"X-Etcd-Index: 5\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) * 2)

    async with Misbehaver(twice) as server, client_of(server) as client:
        for key in ("/a", "/b", "/c"):
            response = await client.keys.get(key)
            assert response.node is not None
            assert response.node.value == f"/v2/keys{key}"


# --- cancellation and closing ---------------------------------------------------------------------------------------


@asynccontextmanager
async def stuck(stage: str) -> AsyncIterator[tuple[str, Callable[[], bool], Callable[[], bool]]]:
    """An endpoint at which a call gets stuck; whether it is, and whether its connection is gone."""
    if stage == "connecting":
        with unreachable() as endpoint:
            yield endpoint, lambda: True, lambda: True
        return
    behaviour = {
        "header": hang,
        "half-header": raw(b"HTTP/1.1 200", then=hang),
        "body": raw(wait_header() + chunk(b'{"action"'), then=hang),
        "error-body": raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 90\r\n\r\n{", then=hang),
    }[stage]
    async with Misbehaver(behaviour) as server:
        yield server.endpoint, lambda: bool(server.seen), lambda: server.open == 0


stages = pytest.mark.parametrize("stage", ["connecting", "header", "half-header", "body", "error-body"])
both_kinds = pytest.mark.parametrize("call", [ONE_SHOT["create"], REPEATABLE["get"]], ids=["create", "get"])


@stages
@both_kinds
@pytest.mark.slow
async def test_cancelled_call_ends_at_once(stage: str, call: Call) -> None:
    async with (
        stuck(stage) as (endpoint, reached, freed),
        Misbehaver(fine) as other,
        client_of(endpoint, other) as client,
    ):
        before = own_tasks()
        task = asyncio.ensure_future(call(client))
        await until(reached)
        await asyncio.sleep(0.03)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1
        await until(freed)
        await until(lambda: own_tasks() == before)
        assert other.seen == []


@stages
@pytest.mark.slow
async def test_deadline_of_the_caller_wins(stage: str) -> None:
    async with stuck(stage) as (endpoint, _, freed), Misbehaver(close) as lost, client_of(lost, endpoint) as client:
        with pytest.raises(asyncio.TimeoutError) as caught:
            async with timeout(0.1):
                await client.keys.get("/k")
        assert not isinstance(caught.value, EtcdError)
        await until(freed)


@pytest.mark.parametrize("lead", [0.002, 0.0005, 0.0])
async def test_deadline_of_the_caller_wins_a_tie(lead: float) -> None:
    async with Misbehaver(hang) as server, client_of(server, header_timeout=0.1) as client:
        with pytest.raises(asyncio.TimeoutError):
            async with timeout(0.1 - lead):
                await client.keys.get("/k")


async def test_cancelled_at_any_moment() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(dice.random() * 0.01)
        await exchange.send(wait_header())
        await asyncio.sleep(dice.random() * 0.01)
        await exchange.send(chunk(json.dumps(key_event(value=exchange.seen.target)).encode()))
        await asyncio.sleep(dice.random() * 0.01)
        await exchange.send(chunk(b""))

    async def get(client: Client, number: int) -> None:
        async with timeout(dice.random() * 0.04):
            response = await client.keys.get(f"/{number}")
        assert response.node is not None
        assert response.node.value == f"/v2/keys/{number}"

    async with Misbehaver(slow) as server, client_of(server) as client:
        before = own_tasks()
        outcomes = await asyncio.gather(*(get(client, number) for number in range(200)), return_exceptions=True)
        assert {type(each) for each in outcomes} <= {type(None), asyncio.TimeoutError, TimeoutError}
        await client.keys.get("/k")
        await until(lambda: own_tasks() == before)
    await until(lambda: server.open == 0)


@stages
@both_kinds
@pytest.mark.parametrize("own_connector", [False, True], ids=["ours", "theirs"])
@pytest.mark.slow
async def test_close_ends_calls_at_once(stage: str, call: Call, own_connector: bool) -> None:
    connector = aiohttp.TCPConnector() if own_connector else None
    async with stuck(stage) as (endpoint, reached, freed), Misbehaver(fine) as other:
        client = client_of(endpoint, other, connector=connector)
        calls = [asyncio.ensure_future(call(client)) for _ in range(3)]
        await until(reached)
        await asyncio.sleep(0.03)
        began = time.monotonic()
        await client.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 1
        assert [type(each) for each in outcomes] == [ClientClosedError] * 3
        await until(freed)
        assert other.seen == []
    if connector is not None:
        await connector.close()


@pytest.mark.parametrize(
    "call",
    [
        *ONE_SHOT.values(),
        *REPEATABLE.values(),
        lambda client: client.sync(),
        lambda client: client.version(),
        lambda client: client.health(),
        lambda client: client.health("http://127.0.0.1:1"),
        lambda client: client.members.list(),
        lambda client: client.keys.watch("/k").next(),
        lambda client: client.keys.watch("/k").__aenter__(),
        lambda client: client.__aenter__(),
    ],
)
async def test_calls_after_close(call: Call) -> None:
    async with Misbehaver(fine) as server:
        client = client_of(server)
        await client.keys.get("/k")
        await client.close()
        await client.close()
        with pytest.raises(ClientClosedError):
            await call(client)
        assert len(server.seen) == 1


async def test_never_used_client_closes() -> None:
    client = Client("http://127.0.0.1:1")
    await client.close()
    with pytest.raises(ClientClosedError):
        await client.keys.get("/k")


@pytest.mark.parametrize("kind", ["http", "unix"])
async def test_second_event_loop_is_refused(kind: str, tmp_path: Path) -> None:
    async with Misbehaver(fine) as first, Misbehaver(fine, path=str(tmp_path / "s")) as second:
        other = second.endpoint if kind == "unix" else first.endpoint
        async with client_of(first) as client:
            await client.keys.get("/k")
            client.set_endpoints(other)

            async def use() -> None:
                await client.keys.get("/k")

            with pytest.raises(RuntimeError, match="event loop"):
                await asyncio.to_thread(asyncio.run, use())
            client.set_endpoints(first.endpoint)
            await client.keys.get("/k")


# --- pieces ---------------------------------------------------------------------------------------------------------

EMPTY = HTTPResult(200, CIMultiDictProxy(CIMultiDict()), b"", "http://a:1")

BREAKS = [aiohttp.ClientPayloadError("broken"), ConnectionResetError("broken"), RuntimeError("broken")]


class Content:
    """A body: the pieces that have come and come, an error among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = list(pieces)

    def read_nowait(self) -> bytes:
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def readany(self) -> bytes:
        return self.read_nowait()

    def at_eof(self) -> bool:
        return not self.pieces


class Answering:
    """A response of aiohttp's."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.content = Content(*pieces)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def transport_of(**options: Any) -> _transport.Transport:
    nobody = {"credentials": BasicCredentials(None, None), "reporter": Reporter(), "ssl": None, "connector": None}
    return _transport.Transport(
        **{"header_timeout": 5.0, "keepalive": 5.0, **nobody, "trust_env": False, "trace_configs": (), **options}
    )


def stream_of(transport: _transport.Transport, response: Answering) -> Stream:
    return Stream(transport.check_open, cast(aiohttp.ClientResponse, response), EMPTY, None, Tally())


async def test_stream_begins_with_what_has_come() -> None:
    stream = stream_of(transport_of(), Answering(b"a", b"b", b"", b""))
    assert [await stream.read() for _ in range(3)] == [b"a", b"b", b""]


async def test_what_came_before_the_connection_broke_is_not_lost() -> None:
    async with Misbehaver(raw(wait_header() + chunk(b"a"), pause=0.03, then=reset)) as server:
        transport = transport_of()
        stream = await transport.open(server.endpoint, build("GET", "/v2/keys/k"))
        await until(lambda: server.open == 0)
        await asyncio.sleep(0.03)
        assert await stream.read() == b"a"
        with pytest.raises(ConnectionLostError):
            await stream.read()
        await transport.close()


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: type(broken).__name__)
async def test_stream_that_breaks_is_a_lost_connection(broken: Exception) -> None:
    response = Answering(aiohttp.ClientPayloadError("already"), b"a", broken)
    stream = stream_of(transport_of(), response)
    assert await stream.read() == b"a"
    with pytest.raises(ConnectionLostError, match="broken") as caught:
        await stream.read()
    assert (caught.value.endpoint, caught.value.__cause__) == ("http://a:1", broken)
    assert response.closed == 1


async def test_stream_of_a_closed_client_says_so() -> None:
    transport = transport_of()
    stream = stream_of(transport, Answering(b"", RuntimeError("broken")))
    transport.abort()
    with pytest.raises(ClientClosedError):
        await stream.read()


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: type(broken).__name__)
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_body_that_breaks_is_a_lost_connection(broken: Exception, method: str) -> None:
    content = cast(aiohttp.StreamReader, Content(b"a", broken))
    with pytest.raises(ConnectionLostError, match="broken") as caught:
        await transport_of()._read("http://a:1", build(method, "/v2/keys/k"), content)
    assert caught.value.maybe_applied is (method == "PUT")


async def test_refused_stream_comes_with_its_body() -> None:
    async with Misbehaver(answer("no", status=400), answer("yes")) as server:
        transport = transport_of()
        refused = await transport.open(server.endpoint, build("GET", "/v2/keys/k"))
        assert (refused.head.status, refused.head.body) == (400, b"no")
        taken = await transport.open(server.endpoint, build("GET", "/v2/keys/k"))
        assert (taken.head.status, taken.head.body) == (200, b"")
        assert await taken.read() == b"yes"
        await transport.close()


async def test_nothing_is_sent_once_the_transport_is_shut() -> None:
    in_pieces = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}", pause=0.03, then=stay)
    async with Misbehaver(in_pieces) as server:
        transport = transport_of()
        await transport.exchange(server.endpoint, build("GET", "/v2/keys/k"))
        timers = [deadlines._timer for deadlines in transport._lengths._by_length.values() if deadlines.seconds]
        transport.abort()
        with pytest.raises(ClientClosedError, match="make a new one"):
            await transport.exchange(server.endpoint, build("GET", "/v2/keys/k"))
        assert len(server.seen) == 1
        assert [timer is not None and timer.cancelled() for timer in timers] == [True, True]
        await transport.close()


async def test_closing_shuts() -> None:
    transport = transport_of()
    await transport.close()
    assert transport.closed


def test_words_of_an_error_without_any() -> None:
    assert (words_of(OSError("a")), words_of(ConnectionResetError())) == ("a", "ConnectionResetError")


@pytest.mark.parametrize(
    "alert",
    [
        "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert",
        "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca",
        "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure",
    ],
)
def test_certificate_is_refused_by_an_alert_of_tls_only(alert: str) -> None:
    refused, wrapped = ssl.SSLError(1, alert), OSError("wrapped")
    wrapped.__cause__ = refused
    assert [is_certificate_refused(each) for each in (refused, wrapped)] == [True, True]
    assert [is_certificate_refused(each) for each in (OSError(alert), ssl.SSLError(1, "else"), None)] == ([False] * 3)


# --- credentials and curl lines -------------------------------------------------------------------------------------

PASSWORD = "s3cret pass"
TOKEN = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
SECRETS = re.compile("|".join(map(re.escape, (PASSWORD, "s3cret", TOKEN))))


async def test_credentials_go_with_the_first_request() -> None:
    async with Misbehaver(fine) as server, client_of(server, username="root", password=PASSWORD) as client:
        await client.keys.get("/k")
        await client.keys.create("/k", "v")
        assert [seen.headers["authorization"] for seen in server.seen] == [f"Basic {TOKEN}"] * 2


async def test_credentials_go_with_a_watch() -> None:
    async with Misbehaver(wait()) as server, client_of(server, username="root", password=PASSWORD) as client:
        async with client.keys.watch("/k"):
            assert {seen.headers["authorization"] for seen in server.seen} == {f"Basic {TOKEN}"}


async def test_no_credentials_no_header() -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await client.keys.get("/k")
        assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize(
    "behaviour",
    [
        close,
        hang,
        raw(b"nonsense\r\n\r\n"),
        raw(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
        raw(LENGTH + b"{"),
        answer("<html>"),
        answer({"message": "Insufficient credentials"}, status=401),
        answer("", status=307, headers={"Location": "::"}),
        answer("oops", status=500),
    ],
    ids=["lost", "timeout", "no-http", "long-header", "cut", "html", "401", "redirect", "500"],
)
@both_kinds
@pytest.mark.slow
async def test_password_shows_nowhere(behaviour: Behaviour, call: Call, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Misbehaver(behaviour) as server:
        client = client_of(server, header_timeout=0.2, username="root", password=PASSWORD)
        with pytest.raises(EtcdError) as caught:
            await call(client)
        shown = [repr(client), str(client), repr(client.keys), caplog.text]
        shown += [text for error in chain(caught.value) for text in (repr(error), str(error), repr(error.args))]
        shown += traceback.format_exception(caught.value)
        await client.close()
    assert "-u 'root:***'" in caplog.text
    assert [text for text in shown if SECRETS.search(text)] == []


@pytest.mark.parametrize(
    "options",
    [
        {"username": "root"},
        {"password": PASSWORD},
        {"username": "ro:ot", "password": PASSWORD},
        {"username": "ro\ud800ot", "password": PASSWORD},
        {"username": "root", "password": f"{PASSWORD}\ud800"},
    ],
)
async def test_bad_credentials_are_refused_unseen(options: dict[str, Any]) -> None:
    wrong = "password" if "\ud800" in options.get("password", "") else "user"
    with pytest.raises(ValueError, match=rf"^(a )?{wrong} ?(name )?(has|and|is)\b") as caught:
        Client("http://127.0.0.1:1", **options)
    assert not any(SECRETS.search(repr(error)) for error in chain(caught.value) if type(error) is ValueError)
    assert not SECRETS.search("".join(traceback.format_exception_only(caught.value)))


async def test_curl_lines(capsys: pytest.CaptureFixture[str], refusing: str) -> None:
    async with Misbehaver(fine) as server, client_of(refusing, server, username="root", password=PASSWORD) as client:
        endpoint = server.endpoint
        await client.keys.get("/before")
        enable_curl_debug()
        enable_curl_debug()
        try:
            await client.keys.set("/it's", "a b", ttl=5)
        finally:
            disable_curl_debug()
        await client.keys.get("/after")
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0] == (
        f"curl --globoff --path-as-is -X PUT -u 'root:***' -H 'Content-Type: {FORM}' "
        f"--data-raw 'value=a+b&ttl=5' {endpoint}/v2/keys/it%27s"
    )
    assert logging.getLogger("aioetcd2.curl").level == logging.NOTSET


async def test_no_curl_lines_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await client.keys.get("/k")
    assert "curl" not in caplog.text


# --- connections ----------------------------------------------------------------------------------------------------


async def test_connection_is_kept() -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        for _ in range(5):
            await client.keys.set("/k", "v")
            await client.keys.get("/k")
        assert (server.connections, len(server.seen)) == (1, 10)
    await until(lambda: server.open == 0)


async def test_nothing_is_opened_before_the_first_call() -> None:
    async with Misbehaver(fine) as server, client_of(server):
        await asyncio.sleep(0.05)
        assert server.connections == 0


async def test_connector_of_the_user_is_used_and_not_closed() -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with Misbehaver(fine) as server:
        async with client_of(server, connector=connector) as client:
            await asyncio.gather(*(client.keys.get("/k") for _ in range(5)))
            assert server.connections == 1
        assert not connector.closed
        async with client_of(server, connector=connector) as client:
            await client.keys.get("/k")
        assert server.connections == 1
    await connector.close()


async def test_traces_of_the_user_are_told(tmp_path: Path) -> None:
    told: list[str] = []

    async def tell(session: aiohttp.ClientSession, context: object, begun: aiohttp.TraceRequestStartParams) -> None:
        told.append(f"{begun.method} {begun.url.path} {begun.url.query_string}")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(tell)
    async with Misbehaver(fine) as first, Misbehaver(fine, path=str(tmp_path / "s")) as second:
        for server in (first, second):
            async with client_of(server, trace_configs=[trace]) as client:
                await client.keys.get("/k", quorum=True)
    assert told == ["GET /v2/keys/k quorum=true"] * 2


async def test_trace_of_the_user_that_fails_is_no_write(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(session: object, context: object, begun: object) -> None:
        raise ValueError("out of order")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fail)
    async with Misbehaver(fine) as server, client_of(server, trace_configs=[trace]) as client:
        error = await failure_of(client.keys.create("/k", "v"))
        assert not error.maybe_applied
        assert "out of order" in str(error)
        assert not server.seen


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.slow
async def test_any_number_of_calls_at_once(unix: bool, tmp_path: Path) -> None:
    async with Misbehaver(hang, path=str(tmp_path / "s") if unix else None) as server, client_of(server) as client:
        calls = [asyncio.ensure_future(client.keys.get("/k")) for _ in range(120)]
        await until(lambda: len(server.seen) == 120)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_cookies_are_not_kept() -> None:
    cookie = answer(key_event(), headers={"Set-Cookie": "a=b; Path=/"})
    async with Misbehaver(cookie) as server:
        async with client_of(server.endpoint.replace("127.0.0.1", "localhost")) as client:
            for _ in range(2):
                await client.keys.get("/k")
        assert [seen.headers.get("cookie") for seen in server.seen] == [None, None]


async def test_compressed_answer_is_not_unpacked() -> None:
    packed = answer(gzip.compress(json.dumps(key_event()).encode()), headers={"Content-Encoding": "gzip"})
    async with Misbehaver(packed) as server, client_of(server) as client:
        with pytest.raises(InvalidResponseError):
            await client.keys.get("/k")


async def test_unix_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioetcd2.curl")
    endpoint = f"unix://{tmp_path}/s%201"
    async with Misbehaver(fine, path=str(tmp_path / "s 1")) as server, client_of(endpoint) as client:
        await client.keys.set("/k", "v")
        assert (await client.keys.get("/k")).index == 10
        assert server.connections == 1
        assert {seen.headers["host"] for seen in server.seen} == {"localhost"}
    assert f"--unix-socket '{tmp_path}/s 1'" in caplog.text


async def test_unix_socket_is_closed_beside_a_connector_of_the_user(tmp_path: Path) -> None:
    connector = aiohttp.TCPConnector()
    async with Misbehaver(fine, path=str(tmp_path / "s")) as server:
        async with client_of(server, connector=connector) as client:
            await client.keys.get("/k")
            assert server.open == 1
        await until(lambda: server.open == 0)
    assert not connector.closed
    await connector.close()


async def test_unix_socket_that_is_missing_was_never_sent(tmp_path: Path) -> None:
    async with Misbehaver(fine, path=str(tmp_path / "s")) as server:
        async with client_of(f"unix://{tmp_path}/missing", server) as client:
            await client.keys.create("/k", "v")
        async with client_of(f"unix://{tmp_path}/missing") as client:
            error = await failure_of(client.keys.create("/k", "v"))
            assert not error.maybe_applied
            assert type(error.errors[0]) is ConnectError


@pytest.mark.parametrize("call", ["set", "create", "update", "refresh", "mkdir", "create-in-order", "empty"])
async def test_forms_have_their_content_type(call: str) -> None:
    calls: dict[str, Call] = {**ONE_SHOT, **REPEATABLE, "empty": lambda client: client.keys.set("/k", "")}
    async with Misbehaver(fine) as server, client_of(server) as client:
        await calls[call](client)
        assert server.seen[0].headers["content-type"] == FORM
        assert int(server.seen[0].headers["content-length"]) == len(server.seen[0].body)


async def test_json_has_its_content_type() -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await client.members.add("http://127.0.0.1:1")
        assert server.seen[0].headers["content-type"] == "application/json"
        assert json.loads(server.seen[0].body) == {"peerURLs": ["http://127.0.0.1:1"]}


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("get", {}),
        ("delete", {"content-length": "0"}),
        ("set", {"content-type": FORM, "content-length": "7"}),
        ("members-add", {"content-type": "application/json", "content-length": "35"}),
    ],
)
async def test_a_request_has_these_headers_only(call: str, more: dict[str, str]) -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await {**ONE_SHOT, **REPEATABLE}[call](client)
        always = {"user-agent": "aioetcd2", "accept": "*/*", "accept-encoding": "identity"}
        assert server.seen[0].headers == {"host": server.endpoint.removeprefix("http://"), **always, **more}


@pytest.mark.parametrize(
    "key",
    [
        "/a?b", "/a#b", "/a%b", "/a%2Fb", "/a%3b", "/a+b", "/a b", "/\N{PILE OF POO}", "/a;b", "/a\\b", "/a\0b",
        "/a\nb", "/a\rb", "/é", "/[::1]", "/a&b=c", "/...", "/.a", "/a:b@c", "/~", "/%", "/\x7f", "/a/", "/http://x",
    ],
)  # fmt: skip
async def test_keys_arrive_as_they_are(key: str) -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await client.keys.get(key)
        await client.keys.set(key, "v")
        await client.keys.delete(key, recursive=True)
        expected = key.replace("//", "/").encode()
        for seen in server.seen:
            path, _, query = seen.target.partition("?")
            assert re.fullmatch(r"[A-Za-z0-9/%_.~-]+", path)
            assert unquote_to_bytes(path) == b"/v2/keys" + expected
            assert query in ("", "recursive=true")


@pytest.mark.parametrize("value", ["", "a&b=c", "a+b c%20;d", "\r\n\0", "\N{PILE OF POO}é", "x" * 1_000_000])
async def test_values_arrive_as_they_are(value: str) -> None:
    async with Misbehaver(fine) as server, client_of(server) as client:
        await client.keys.set("/k", value, prev_value=value or None)
        assert server.seen[0].form == {"value": value, **({"prevValue": value} if value else {})}
        assert b";" not in server.seen[0].body


# --- never back in time ---------------------------------------------------------------------------------------------


async def test_older_answer_is_asked_for_again_with_quorum() -> None:
    behaviours = [answer(key_event(), index=index) for index in (20, 15, 25, 25)]
    async with Misbehaver(*behaviours) as server, client_of(server) as client:
        assert (await client.keys.get("/k")).index == 20
        assert (await client.keys.get("/k", recursive=True, sort=True)).index == 25
        assert (await client.keys.get("/k")).index == 25
        queries = [seen.query for seen in server.seen]
        options = {"recursive": "true", "sorted": "true"}
        assert queries == [{}, options, {**options, "quorum": "true"}, {}]


@pytest.mark.parametrize("first", [answer(key_event(), index=20, status=201), answer(
    {"errorCode": 105, "message": "Key already exists", "cause": "/k", "index": 20}, status=412, index=20
)], ids=["written", "refused"])  # fmt: skip
async def test_read_after_write_is_not_older(first: Behaviour) -> None:
    stale = answer({"errorCode": 100, "message": "Key not found", "cause": "/k", "index": 19}, status=404, index=19)
    async with Misbehaver(first, stale, answer(key_event(), index=20)) as server, client_of(server) as client:
        with suppress(NodeExistsError):
            await client.keys.create("/k", "v")
        assert (await client.keys.get("/k")).index == 20
        assert [seen.query for seen in server.seen] == [{}, {}, {"quorum": "true"}]


async def test_quorum_has_the_last_word() -> None:
    stale = answer({"errorCode": 100, "message": "Key not found", "cause": "/k", "index": 5}, status=404, index=5)
    async with Misbehaver(answer(key_event(), index=20), stale, stale, stale) as server, client_of(server) as client:
        await client.keys.get("/k")
        for requests in (3, 4):
            with pytest.raises(KeyNotFoundError):
                await client.keys.get("/k")
            assert len(server.seen) == requests


async def test_other_cluster_has_its_own_time() -> None:
    old_server, new_server = (Misbehaver(answer(key_event(), index=index)) for index in (20, 5))
    async with old_server as old, new_server as new, client_of(old) as client:
        await client.keys.get("/k")
        client.set_endpoints(new.endpoint)
        assert (await client.keys.get("/k")).index == 5
        assert len(new.seen) == 1


async def test_redirected_write_keeps_method_and_body() -> None:
    moved = answer("", status=307, headers={"Location": "/v2/keys/moved?x=y"}, index=None)
    async with Misbehaver(moved, stay, fine) as server, client_of(server, header_timeout=0.2) as client:
        error = await failure_of(client.keys.create("/k", "v"))
        assert error.maybe_applied
        first, second = server.seen
        assert (second.method, second.target, second.body) == (first.method, "/v2/keys/moved?x=y", first.body)
        assert second.headers["content-type"] == FORM
