from __future__ import annotations

import asyncio
import copy
import itertools
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    EndpointSelection,
    EventIndexClearedError,
    Health,
    InvalidEndpointError,
    InvalidResponseError,
    NoEndpointsError,
    ServerError,
    V2DisabledError,
)
from aioetcd2.testing import EtcdCluster, EtcdServer

from .misbehaver import (
    CLUSTER_ID,
    Behaviour,
    Exchange,
    Misbehaver,
    answer,
    close,
    hang,
    key_event,
    raw,
    wait_header,
)

NOWHERE = "http://127.0.0.1:1"
OTHER_CLUSTER = "7e27652122e8b2ae"

IN_ORDER = EndpointSelection.PRIORITIZE_LEADER

Call = Callable[[Client], Awaitable[object]]

CALLS: dict[str, Call] = {
    "get": lambda client: client.keys.get("k"),
    "set": lambda client: client.keys.set("k", "v"),
    "create_in_order": lambda client: client.keys.create_in_order("k", "v"),
    "delete": lambda client: client.keys.delete("k"),
    "watch": lambda client: client.keys.watch("k").next(),
    "enter watch": lambda client: client.keys.watch("k").__aenter__(),
    "members": lambda client: client.members.list(),
    "leader": lambda client: client.members.leader(),
    "auth": lambda client: client.auth.enabled(),
    "users": lambda client: client.auth.users.list(),
    "roles": lambda client: client.auth.roles.list(),
    "stats": lambda client: client.stats.store(),
    "sync": lambda client: client.sync(),
    "auto_sync": lambda client: client.auto_sync(1),
    "version": lambda client: client.version(),
    "health": lambda client: client.health(),
    "health of one": lambda client: client.health(NOWHERE),
    "request": lambda client: client.request("GET", "/version"),
    "enter": lambda client: client.__aenter__(),
}


def by_path(**behaviours: Behaviour) -> Behaviour:
    """A server with one behaviour for each last part of a path."""

    async def behave(exchange: Exchange) -> bool | None:
        return await behaviours[exchange.seen.target.rpartition("/")[2]](exchange)

    return behave


def members(*client_urls: list[str]) -> Behaviour:
    """The answer of /v2/members."""
    listed = [
        {"id": f"a{i}", "name": f"m{i}" if urls else "", "peerURLs": [f"http://10.0.0.{i}:2380"], "clientURLs": urls}
        for i, urls in enumerate(client_urls)
    ]
    return answer({"members": listed}, index=None)


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


@pytest.fixture
async def wire() -> AsyncIterator[Misbehaver]:
    async with Misbehaver(answer(key_event())) as wire:
        yield wire


class TestConstruction:
    @pytest.mark.parametrize(
        ("text", "endpoint"),
        [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("https://etcd.example:2379/", "https://etcd.example:2379"),
            ("HTTP://etcd.example", "http://etcd.example"),
            ("etcd.example:2379", "http://etcd.example:2379"),
            ("http://[::1]:2379", "http://[::1]:2379"),
            ("unix:///run/etcd.sock", "unix:///run/etcd.sock"),
        ],
    )
    def test_endpoint(self, text: str, endpoint: str) -> None:
        assert Client(text).endpoints == (endpoint,)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "http://",
            "http://:2379",
            "ftp://etcd:2379",
            "http://etcd:2379/v2",
            "http://etcd:2379?a=b",
            "http://etcd:2379#a",
            "http://etcd:",
            "http://etcd:0",
            "http://etcd:65536",
            "http://etcd:port",
            "http://[::1:2379",
            "http://etcd etcd:2379",
            "http://etcd:2379\n",
            "http://a,http://b",
            "unix://",
        ],
    )
    def test_bad_endpoint_is_named(self, text: str) -> None:
        for endpoints in (text, [text], ["http://good:2379", text]):
            with pytest.raises(InvalidEndpointError) as caught:
                Client(endpoints)
            assert repr(text) in str(caught.value)
            assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("text", [None, 1, b"http://etcd:2379"], ids=repr)
    def test_endpoint_of_another_type(self, text: Any) -> None:
        with pytest.raises(InvalidEndpointError, match="an endpoint is a str"):
            Client([text])

    @pytest.mark.parametrize("text", ["http://user:s3cret@etcd:2379", "user:s3cret@etcd:2379", "http://u:s3cret@"])
    def test_credentials_in_an_endpoint_are_not_shown(self, text: str) -> None:
        with pytest.raises(InvalidEndpointError) as caught:
            Client(text)
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("endpoints", [[], (), iter([])])
    def test_no_endpoints(self, endpoints: Iterable[str]) -> None:
        with pytest.raises(NoEndpointsError) as caught:
            Client(endpoints)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("name", ["header_timeout", "probe_interval", "auto_sync"])
    @pytest.mark.parametrize("number", ["5", True, [5]], ids=repr)
    def test_no_number(self, name: str, number: Any) -> None:
        options: dict[str, Any] = {name: number}
        with pytest.raises(TypeError, match=f"{name} is a number of seconds, not"):
            Client(NOWHERE, **options)

    @pytest.mark.parametrize("name", ["header_timeout", "probe_interval", "auto_sync"])
    @pytest.mark.parametrize("number", [0, 0.0, -1, -0.5, math.nan, -math.inf, math.inf])
    def test_bad_number(self, name: str, number: float) -> None:
        options: dict[str, Any] = {name: number}
        with pytest.raises(ValueError, match=name):
            Client(NOWHERE, **options)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"username": "root"}, "go together"),
            ({"password": "s3cret"}, "go together"),
            ({"username": "ro:ot", "password": "s3cret"}, "no ':'"),
            ({"username": "root", "password": "s3cret\ud800"}, "valid Unicode"),
            ({"username": b"root", "password": "s3cret"}, "both are str"),
        ],
    )
    def test_bad_credentials(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            Client(NOWHERE, **options)
        assert "s3cret" not in str(caught.value)

    def test_bad_selection(self) -> None:
        wrong: Any = "leader"
        with pytest.raises(ValueError, match="leader"):
            Client(NOWHERE, selection=wrong)

    async def test_repr_has_no_password(self) -> None:
        client = Client(["http://a:1"], username="root", password="s3cret")
        assert repr(client) == "<Client http://a:1>"
        await client.close()
        assert repr(client) == "<Client http://a:1 closed>"
        for part in (client.keys, client.members):
            assert "s3cret" not in repr(part)

    def test_outside_a_loop(self, server: EtcdServer) -> None:
        client = Client(server.endpoints)

        async def use() -> str:
            async with client:
                return (await client.version()).server

        assert asyncio.run(use()).count(".") == 2

    async def test_opens_nothing_before_the_first_call(self, wire: Misbehaver) -> None:
        async with Client(wire.endpoint, auto_sync=0.01):
            await asyncio.sleep(0.05)
        assert wire.connections == 0

    async def test_without_async_with(self, server: EtcdServer) -> None:
        client = Client(server.endpoints)
        try:
            assert (await client.health()).healthy
        finally:
            await client.close()


class TestEndpoints:
    ABC = ("http://a:1", "http://b:1", "http://c:1")

    def test_in_the_order_given(self) -> None:
        for order in itertools.permutations(self.ABC):
            assert Client(order, selection=IN_ORDER).endpoints == order

    def test_random_order(self) -> None:
        orders = {Client(self.ABC).endpoints for _ in range(300)}
        assert orders == set(itertools.permutations(self.ABC))

    def test_each_once(self) -> None:
        client = Client(["a:1", "http://a:1", "http://a:1/", "b:1"], selection=IN_ORDER)
        assert client.endpoints == ("http://a:1", "http://b:1")

    def test_snapshot(self) -> None:
        given = ["http://a:1", "http://b:1"]
        client = Client(given, selection=IN_ORDER)
        before = client.endpoints
        given.append("http://c:1")
        assert client.endpoints == before
        client.set_endpoints(["http://d:1"])
        assert before == ("http://a:1", "http://b:1")
        assert client.endpoints == ("http://d:1",)

    @pytest.mark.parametrize(
        ("endpoints", "error"),
        [([], NoEndpointsError), (["http://d:1", "ftp://e"], InvalidEndpointError), ("", InvalidEndpointError)],
    )
    def test_set_refused(self, endpoints: Any, error: type[Exception]) -> None:
        client = Client(self.ABC, selection=IN_ORDER)
        with pytest.raises(error):
            client.set_endpoints(endpoints)
        assert client.endpoints == self.ABC

    async def test_set_while_in_use(self, server: EtcdServer, wire: Misbehaver) -> None:
        async with Client(wire.endpoint) as client:
            await client.keys.get("k")
            client.set_endpoints(server.endpoint)
            assert client.endpoints == server.endpoints
            assert (await client.health()).healthy
        assert len(wire.seen) == 1

    async def test_the_one_that_answers_comes_first(self, server: EtcdServer) -> None:
        async with Client([NOWHERE, server.endpoint], selection=IN_ORDER) as client:
            assert client.endpoints == (NOWHERE, server.endpoint)
            await client.version()
            assert client.endpoints == (server.endpoint, NOWHERE)


class TestClose:
    async def test_idempotent(self, server: EtcdServer) -> None:
        client = Client(server.endpoints)
        await client.version()
        await asyncio.gather(client.close(), client.close())
        await client.close()

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    @pytest.mark.parametrize("used", [False, True])
    async def test_calls_afterwards(self, server: EtcdServer, call: Call, used: bool) -> None:
        client = Client(server.endpoints)
        if used:
            await client.version()
        await client.close()
        with pytest.raises(ClientClosedError):
            await call(client)

    async def test_calls_under_way(self) -> None:
        async with Misbehaver(hang) as wire:
            client = Client(wire.endpoint)
            calls = [asyncio.ensure_future(call) for call in (client.keys.get("k"), client.keys.set("k", "v"))]
            await eventually(lambda: asyncio.sleep(0, len(wire.seen) == 2))
            await client.close()
            for call in calls:
                with pytest.raises(ClientClosedError):
                    await call


class TestVersionAndHealth:
    async def test_version(self, client: Client, etcd_release: tuple[int, int, int]) -> None:
        version = await client.version()
        assert version.server == ".".join(map(str, etcd_release))
        assert version.cluster in (f"{etcd_release[0]}.{etcd_release[1]}.0", "not_decided")

    async def test_version_of_something_else(self) -> None:
        async with Misbehaver(answer("<html>")) as wire, Client(wire.endpoint) as client:
            with pytest.raises(InvalidResponseError, match="probably not an etcd v2 endpoint") as caught:
                await client.version()
            error = caught.value
            assert (error.endpoint, error.status, error.body) == (wire.endpoint, 200, b"<html>")

    async def test_healthy(self, client: Client) -> None:
        assert await client.health() == Health(healthy=True)

    async def test_health_of_one_endpoint(self, server: EtcdServer, wire: Misbehaver) -> None:
        async with Client(wire.endpoint) as client:
            assert (await client.health(server.endpoint)).healthy
            assert (await client.health(server.endpoint.removeprefix("http://"))).healthy
        assert wire.seen == []

    async def test_health_of_an_unreachable_endpoint(self, client: Client) -> None:
        with pytest.raises(ClusterError) as caught:
            await client.health(NOWHERE)
        (error,) = caught.value.errors
        assert isinstance(error, ConnectError)
        assert NOWHERE in str(caught.value)

    async def test_health_of_a_bad_endpoint(self, client: Client) -> None:
        with pytest.raises(InvalidEndpointError):
            await client.health("ftp://etcd")

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ('{"health":"false","reason":"RAFT NO LEADER"}', "RAFT NO LEADER"),
            ('{"health": "false"}', ""),
            ('{"health":false}', ""),
        ],
    )
    async def test_unhealthy(self, body: str, reason: str) -> None:
        behaviour = answer(body, status=503, index=None, headers={"Content-Type": "text/plain; charset=utf-8"})
        async with Misbehaver(behaviour) as wire, Client([wire.endpoint, NOWHERE], selection=IN_ORDER) as client:
            assert await client.health() == Health(healthy=False, reason=reason)
            assert await client.health(wire.endpoint) == Health(healthy=False, reason=reason)

    async def test_credentials_stay_with_the_endpoints(self) -> None:
        healthy = answer({"health": "true"}, index=None)
        async with (
            Misbehaver(healthy) as ours,
            Misbehaver(healthy) as theirs,
            Client(ours.endpoint, username="root", password="s3cret") as client,
        ):
            await client.health(ours.endpoint)
            await client.health(theirs.endpoint)
        assert "authorization" in ours.seen[0].headers
        assert "authorization" not in theirs.seen[0].headers


class TestRequest:
    async def test_any_path(self, client: Client, prefix: str) -> None:
        put = await client.request("put", f"/v2/keys{prefix}", form={"value": "a&b;c + é"})
        assert (put.status, put.endpoint) == (201, client.endpoints[0])
        assert put.headers["x-etcd-index"] == put.headers["X-Etcd-Index"]
        got = await client.request("GET", f"v2/keys{prefix}", params={"quorum": "true"})
        assert got.status == 200
        assert json.loads(got.body)["node"]["value"] == "a&b;c + é"

    async def test_params_and_form_on_the_wire(self, wire: Misbehaver) -> None:
        pairs = [("a", "1"), ("a", "2"), ("b c", "d&=;")]
        async with Client(wire.endpoint) as client:
            await client.request("POST", "/x y?", params=pairs, form=pairs)
            await client.request("GET", "/z", params={}, form={})
        encoded = "a=1&a=2&b+c=d%26%3D%3B"
        first, second = wire.seen
        assert (first.method, first.target, first.body) == ("POST", f"/x%20y%3F?{encoded}", encoded.encode())
        assert first.headers["content-type"] == "application/x-www-form-urlencoded"
        assert (second.method, second.target, second.body) == ("GET", "/z", b"")

    @pytest.mark.parametrize("value", [{"a": [1, None, "é"]}, [], 0, False, ""])
    async def test_json(self, wire: Misbehaver, value: object) -> None:
        async with Client(wire.endpoint) as client:
            await client.request("PUT", "/x", json=value)
        (seen,) = wire.seen
        assert json.loads(seen.body) == value
        assert seen.headers["content-type"] == "application/json"

    async def test_form_and_json_exclude_each_other(self, wire: Misbehaver) -> None:
        async with Client(wire.endpoint) as client:
            with pytest.raises(ValueError, match="exclude"):
                await client.request("PUT", "/x", form={}, json={})
        assert wire.connections == 0

    @pytest.mark.parametrize("method", ["", "GET /x HTTP/1.1\r\nA:", "G ET", "GÉT", None])
    async def test_bad_method(self, wire: Misbehaver, method: Any) -> None:
        async with Client(wire.endpoint) as client:
            with pytest.raises(ValueError, match="HTTP method"):
                await client.request(method, "/x")
        assert wire.connections == 0

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("/v2/../x", ValueError),
            ("/.", ValueError),
            ("/\ud800", ValueError),
            ("/" + "x" * 4096, ValueError),
            (None, TypeError),
            (b"/x", TypeError),
        ],
        ids=lambda value: repr(value)[:20],
    )
    async def test_bad_path(self, wire: Misbehaver, path: Any, error: type[Exception]) -> None:
        async with Client(wire.endpoint) as client:
            with pytest.raises(error):
                await client.request("GET", path)
        assert wire.connections == 0

    @pytest.mark.parametrize(
        "fields", [{"params": {"a": "\ud800"}}, {"form": {"a": "\ud800"}}, {"form": {"\ud800": "a"}}]
    )
    async def test_surrogates(self, wire: Misbehaver, fields: dict[str, Any]) -> None:
        async with Client(wire.endpoint) as client:
            with pytest.raises(ValueError):
                await client.request("PUT", "/x", **fields)
        assert wire.connections == 0

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/no/such/page", 404), ("PATCH", "/v2/keys/x", 405), ("GET", "/v2/keys/missing/key", 404)],
    )
    async def test_4xx_is_an_answer(self, client: Client, method: str, path: str, status: int) -> None:
        result = await client.request(method, path)
        assert result.status == status
        assert result.body

    @pytest.mark.parametrize(("status", "error"), [(500, ServerError), (502, ServerError), (503, ServerError)])
    async def test_5xx_is_a_failure(self, wire: Misbehaver, status: int, error: type[Exception]) -> None:
        async with Misbehaver(answer("its own words", status=status)) as broken:
            async with Client([broken.endpoint, wire.endpoint], selection=IN_ORDER) as client:
                assert (await client.request("GET", "/x")).status == 200
            async with Client([broken.endpoint]) as client:
                with pytest.raises(ClusterError, match="its own words") as caught:
                    await client.request("GET", "/x")
        assert [type(each) for each in caught.value.errors] == [error]
        assert len(wire.seen) == 1

    async def test_one_shot(self, wire: Misbehaver) -> None:
        async with Misbehaver(close) as broken:
            endpoints = [broken.endpoint, wire.endpoint]
            async with Client(endpoints, selection=IN_ORDER) as client:
                with pytest.raises(ClusterError) as caught:
                    await client.request("PUT", "/x", one_shot=True)
                assert caught.value.maybe_applied
            assert (len(broken.seen), len(wire.seen)) == (1, 0)
            async with Client(endpoints, selection=IN_ORDER) as client:
                assert (await client.request("PUT", "/x", one_shot=False)).endpoint == wire.endpoint
            async with Client([NOWHERE, wire.endpoint], selection=IN_ORDER) as client:
                assert (await client.request("PUT", "/x", one_shot=True)).endpoint == wire.endpoint

    @pytest.mark.parametrize("repeat_writes", [False, True])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH"])
    async def test_only_get_and_head_are_sent_again_unless_told(self, method: str, repeat_writes: bool) -> None:
        """Not even with `repeat_writes`: whether a request can be repeated is known of calls, not of any request."""
        async with Misbehaver(close) as broken, Misbehaver(answer("")) as wire:
            endpoints = [broken.endpoint, wire.endpoint]
            async with Client(endpoints, selection=IN_ORDER, repeat_writes=repeat_writes) as client:
                if method in ("GET", "HEAD"):
                    assert (await client.request(method, "/x")).endpoint == wire.endpoint
                else:
                    with pytest.raises(ClusterError):
                        await client.request(method, "/x")
                    assert (len(broken.seen), len(wire.seen)) == (1, 0)

    async def test_one_shot_read_is_sent_once_on_the_wire(self, wire: Misbehaver) -> None:
        """aiohttp would send it again by itself."""
        async with Misbehaver(close) as broken:
            async with Client([broken.endpoint, wire.endpoint], selection=IN_ORDER) as client:
                with pytest.raises(ClusterError) as caught:
                    await client.request("GET", "/x", one_shot=True)
                assert not caught.value.maybe_applied
            assert (len(broken.seen), len(wire.seen)) == (1, 0)

    async def test_head(self, client: Client) -> None:
        result = await client.request("HEAD", "/v2/keys/")
        assert (result.status, result.body) == (200, b"")
        assert int(result.headers["X-Etcd-Index"]) > 0


class TestSync:
    async def test_cluster_of_one(self, server: EtcdServer) -> None:
        async with Client([NOWHERE, server.endpoint], selection=IN_ORDER) as client:
            await client.sync()
            assert client.endpoints == server.endpoints
            assert (await client.health()).healthy

    async def test_a_change_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "aioetcd2")
        async with Misbehaver(answer()) as wire:
            wire.behaviours = [members([wire.endpoint], ["http://10.0.0.1:1"])]
            async with Client([wire.endpoint, "http://10.0.0.2:1"], selection=IN_ORDER) as client:
                for _ in range(3):
                    await client.sync()
            lines = [record.getMessage() for record in caplog.records if record.name == "aioetcd2"]
            assert lines.count(f"endpoints are now {wire.endpoint}, http://10.0.0.1:1") == 1

    async def test_only_usable_urls(self) -> None:
        listed = members(
            [],
            ["http://10.0.0.1:2379"],
            ["http://10.0.0.1:2379", "http://10.0.0.1:2379/", "https://10.0.0.2:2379"],
            ["", "ftp://10.0.0.3", "http://10.0.0.3:2379/path", "unix:///run/etcd.sock", "nonsense at all"],
        )
        async with Misbehaver(listed) as wire, Client(wire.endpoint) as client:
            await client.sync()
            assert sorted(client.endpoints) == [
                "http://10.0.0.1:2379",
                "https://10.0.0.2:2379",
                "unix:///run/etcd.sock",
            ]

    @pytest.mark.parametrize("listed", [members(), members([], []), members(["ftp://x", "http://"]), answer({})])
    async def test_no_usable_url(self, listed: Behaviour) -> None:
        async with Misbehaver(listed) as wire, Client([wire.endpoint, NOWHERE], selection=IN_ORDER) as client:
            with pytest.raises(NoEndpointsError):
                await client.sync()
            assert client.endpoints == (wire.endpoint, NOWHERE)

    @pytest.mark.parametrize("broken", [answer("<html>"), answer({"message": "no"}, status=500), close])
    async def test_failure_changes_nothing(self, broken: Behaviour) -> None:
        async with Misbehaver(broken) as wire, Client(wire.endpoint) as client:
            with pytest.raises((ClusterError, InvalidResponseError)):
                await client.sync()
            assert client.endpoints == (wire.endpoint,)

    async def test_keeps_the_pinned_endpoint(self) -> None:
        async with Misbehaver(answer()) as wire:
            wire.behaviours = [members(["http://10.0.0.1:1"], ["http://10.0.0.2:1"], [wire.endpoint])]
            for _ in range(20):
                async with Client(wire.endpoint) as client:
                    await client.sync()
                    assert len(client.endpoints) == 3
                    assert client.endpoints[0] == wire.endpoint

    async def test_unreachable_urls_fall_back_on_the_given(self) -> None:
        async with (
            Misbehaver(members([NOWHERE], ["http://127.0.0.1:2"]), answer(key_event())) as wire,
            Client(wire.endpoint) as client,
        ):
            await client.sync()
            assert sorted(client.endpoints) == [NOWHERE, "http://127.0.0.1:2"]
            assert (await client.keys.create("k", "v")).node is not None
            assert client.endpoints == (wire.endpoint,)

    async def test_everything_unreachable(self) -> None:
        async with Misbehaver(members([NOWHERE]), close) as wire, Client(wire.endpoint) as client:
            await client.sync()
            with pytest.raises(ClusterError) as caught:
                await client.keys.get("k")
            assert [error.endpoint for error in caught.value.errors] == [NOWHERE, wire.endpoint]


class TestLeader:
    async def test_is_pinned_and_followed(self, cluster: EtcdCluster) -> None:
        async with Client(cluster.endpoints) as scout:

            async def leader() -> str:
                try:
                    return (await scout.members.leader()).client_urls[0]
                except ClusterError:
                    return ""

            first = await leader()
            others = [endpoint for endpoint in cluster.endpoints if endpoint != first]
            async with Client([*others, first], selection=IN_ORDER) as client:

                async def pins_the_leader() -> bool:
                    await client.sync()
                    return client.endpoints[0] == await leader() != ""

                assert client.endpoints[0] == others[0]
                await eventually(pins_the_leader)
                pinned = client.endpoints[0]
                (member,) = (member for member in cluster.members if member.endpoint == pinned)
                await member.kill()

                async def pins_another() -> bool:
                    return await pins_the_leader() and client.endpoints[0] != pinned

                await eventually(pins_another)
                await client.keys.set("/after", "election")

    async def test_without_a_leader_the_pin_stays(self) -> None:
        async with Misbehaver(answer()) as wire:
            urls = [["http://10.0.0.1:1"], [wire.endpoint]]
            no_leader = answer({"message": "During election"}, status=503, index=None)
            wire.behaviours = [by_path(members=members(*urls), leader=no_leader)]
            async with Client(wire.endpoint, selection=IN_ORDER) as client:
                await client.sync()
                assert client.endpoints == (wire.endpoint, "http://10.0.0.1:1")


class TestAutoSync:
    async def test_repeats_until_cancelled(self) -> None:
        async with Misbehaver(answer()) as wire:
            wire.behaviours = [members([wire.endpoint])]
            async with Client(wire.endpoint) as client:
                syncing = asyncio.ensure_future(client.auto_sync(0.01))
                await eventually(lambda: asyncio.sleep(0, len(wire.seen) >= 3))
                syncing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await syncing
        assert {seen.target for seen in wire.seen} == {"/v2/members"}

    async def test_ends_with_the_first_error(self) -> None:
        async with Misbehaver(answer()) as wire:
            wire.behaviours = [members([wire.endpoint]), members([wire.endpoint]), members()]
            async with Client(wire.endpoint) as client:
                with pytest.raises(NoEndpointsError):
                    await client.auto_sync(0.01)
            assert len(wire.seen) == 3

    @pytest.mark.parametrize("interval", [0, -1, math.nan])
    async def test_bad_interval(self, wire: Misbehaver, interval: float) -> None:
        async with Client(wire.endpoint) as client:
            with pytest.raises(ValueError, match="interval"):
                await client.auto_sync(interval)
        assert wire.connections == 0

    async def test_option_survives_failures(self, caplog: pytest.LogCaptureFixture) -> None:
        async with Misbehaver(answer()) as wire:
            listings = iter([answer(status=500), members(), members([wire.endpoint, "http://10.0.0.1:1"])])
            last = members([wire.endpoint])

            async def listing(exchange: Exchange) -> bool | None:
                return await next(listings, last)(exchange)

            wire.behaviours = [by_path(members=listing, k=answer(key_event()))]
            async with Client(wire.endpoint, auto_sync=0.01) as client:
                await client.keys.get("k")
                await eventually(lambda: asyncio.sleep(0, len(wire.seen) >= 6))
                assert client.endpoints == (wire.endpoint,)
                assert len(asyncio.all_tasks()) > 1
                quiet_after = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.name for record in quiet_after] == ["aioetcd2"] * 2
        assert all("sync failed, next try in 0.01 s" in record.getMessage() for record in quiet_after)

    @pytest.mark.parametrize("busy", [members([NOWHERE]), hang])
    async def test_option_ends_with_the_client(self, busy: Behaviour) -> None:
        async with Misbehaver(by_path(members=busy, k=answer(key_event()))) as wire:
            mine = asyncio.all_tasks()
            async with Client(wire.endpoint, auto_sync=1000) as client:
                await client.keys.get("k")
                await eventually(lambda: asyncio.sleep(0, len(wire.seen) >= 2))
                (syncing,) = (task for task in asyncio.all_tasks() - mine if "_keep_syncing" in repr(task))
            assert syncing.done()


class TestIdentity:
    async def test_two_clusters(self, caplog: pytest.LogCaptureFixture) -> None:
        async with (
            Misbehaver(answer(key_event()), close) as one,
            Misbehaver(answer(key_event(), cluster=OTHER_CLUSTER)) as other,
            Client([one.endpoint, other.endpoint], selection=IN_ORDER) as client,
        ):
            await client.keys.set("k", "v")
            with pytest.raises(ClusterMismatchError) as caught:
                await client.keys.get("k")
            error = caught.value
            assert (error.endpoint, error.actual) == (other.endpoint, OTHER_CLUSTER)
            assert error.expected != OTHER_CLUSTER
            for words in (other.endpoint, OTHER_CLUSTER, error.expected):
                assert words in str(error)
            assert len(other.seen) == 1
            assert str(copy.copy(error)) == str(error)

            client.set_endpoints(other.endpoint)
            assert (await client.keys.set("k", "v")).cluster_id == OTHER_CLUSTER

    async def test_two_real_clusters(self, server: EtcdServer, prefix: str) -> None:
        async with EtcdServer() as own, Client([own.endpoint, server.endpoint], selection=IN_ORDER) as client:
            await client.keys.set(prefix, "v")
            await own.kill()
            with pytest.raises(ClusterMismatchError):
                await client.keys.get(prefix)
            client.set_endpoints(server.endpoints)
            assert (await client.keys.set(prefix, "v")).index > 0

    async def test_a_cluster_rebuilt_behind_the_same_endpoint(self) -> None:
        old, new = answer(key_event(), index=500), answer(key_event(), index=5, cluster=OTHER_CLUSTER)
        async with Misbehaver(old, new) as wire, Client(wire.endpoint) as client:
            await client.keys.get("k")
            for maybe_applied, call in ((False, client.keys.get("k")), (False, client.keys.set("k", "v"))):
                with pytest.raises(ClusterMismatchError, match=r"forget_cluster\(\)") as caught:
                    await call
                assert caught.value.maybe_applied is maybe_applied
            assert [seen.method for seen in wire.seen] == ["GET"] * 3  # it was asked who it is, and got no write
            client.forget_cluster()
            assert (await client.keys.set("k", "v")).cluster_id == OTHER_CLUSTER
            assert (await client.keys.get("k")).index == 5
            assert [seen.method for seen in wire.seen[3:]] == ["PUT", "GET"]
            assert client.endpoints == (wire.endpoint,)

    async def test_one_odd_answer_locks_no_write_out(self) -> None:
        good, odd = answer(key_event()), answer(key_event(), cluster=OTHER_CLUSTER)
        async with Misbehaver(good, odd, good) as wire, Client(wire.endpoint) as client:
            await client.keys.set("k", "v")
            with pytest.raises(ClusterMismatchError) as caught:
                await client.keys.set("k", "v")
            assert caught.value.maybe_applied
            await asyncio.gather(*(client.keys.set("k", "v") for _ in range(40)))
            assert [seen.target for seen in wire.seen if seen.method == "GET"] == ["/v2/members/leader"]

    async def test_a_watch_in_a_cluster_that_is_forgotten_has_lost_events(self) -> None:
        def wait(index: int, cluster: str) -> Behaviour:
            return raw(wait_header(index, cluster=cluster), then=hang)

        def looked(index: int, cluster: str) -> Behaviour:
            return answer(key_event(index=index), index=index, cluster=cluster)

        here = CLUSTER_ID

        async def serve(exchange: Exchange) -> bool | None:
            index = 10 if here == CLUSTER_ID else 5
            is_wait = exchange.seen.query.get("wait") == "true"
            return await (wait if is_wait else looked)(index, here)(exchange)

        async with Misbehaver(serve) as wire, Client(wire.endpoint) as client, client.keys.watch("k") as watcher:
            here = OTHER_CLUSTER
            wire.hang_up()
            for _ in range(2):
                with pytest.raises(ClusterMismatchError):
                    await asyncio.wait_for(watcher.next(), 10)
            client.forget_cluster()
            with pytest.raises(EventIndexClearedError):
                await asyncio.wait_for(watcher.next(), 10)
            assert watcher.index == 5

    async def test_a_closed_client_forgets_nothing(self) -> None:
        client = Client("http://127.0.0.1:1")
        client.forget_cluster()
        await client.close()
        with pytest.raises(ClientClosedError):
            client.forget_cluster()

    @pytest.mark.etcd
    async def test_a_rebuilt_real_cluster(self, prefix: str) -> None:
        async with EtcdServer() as old, EtcdServer() as new, Client([old.endpoint], selection=IN_ORDER) as client:
            for _ in range(5):
                await client.keys.set(prefix, "v")
            client.set_endpoints([old.endpoint, new.endpoint])
            await client.keys.get(prefix)
            await old.kill()
            client.forget_cluster()
            assert (await client.keys.set(prefix, "w")).index > 0
            assert (await client.keys.get(prefix)).node is not None

    @pytest.mark.parametrize("name", ["get", "sync"])
    async def test_a_late_answer_of_the_old_cluster_does_not_matter(self, name: str) -> None:
        moved = asyncio.Event()
        old_members = members(["http://10.0.0.1:1"])

        async def late(exchange: Exchange) -> bool | None:
            await moved.wait()
            behaviour = old_members if exchange.seen.target.endswith("members") else answer(key_event())
            return await behaviour(exchange)

        async with (
            Misbehaver(late) as old,
            Misbehaver(answer(key_event(), cluster=OTHER_CLUSTER)) as new,
            Client(old.endpoint) as client,
        ):
            under_way = asyncio.ensure_future(CALLS[name](client))
            await eventually(lambda: asyncio.sleep(0, len(old.seen) == 1))
            client.set_endpoints(new.endpoint)
            moved.set()
            await under_way
            assert client.endpoints == (new.endpoint,)
            assert (await client.keys.set("k", "v")).cluster_id == OTHER_CLUSTER

    @pytest.mark.etcd
    async def test_v2_off(self, etcd_release: tuple[int, int, int]) -> None:
        if etcd_release < (3, 2):
            pytest.skip("etcd 3.2 and later can switch v2 off")
        release = ".".join(map(str, etcd_release))
        async with EtcdServer(flags=("--enable-v2=false",)) as server, Client(server.endpoints) as client:
            for call in (client.keys.get("k"), client.keys.set("k", "v"), client.members.list(), client.sync()):
                with pytest.raises(V2DisabledError, match="--enable-v2") as caught:
                    await call
                assert caught.value.server_version == release
                assert f"etcd {release} does not serve the v2 API" in str(caught.value)
            with pytest.raises(V2DisabledError):
                async with client.keys.watch("k"):
                    pass
            assert (await client.version()).server == release
            assert (await client.health()).healthy


class TestConcurrency:
    async def test_128_tasks(self, client: Client, prefix: str) -> None:
        async def work(i: int) -> None:
            key = f"{prefix}/{i}"
            created = await client.keys.create(key, "0")
            assert created.node is not None
            index = created.node.modified_index
            for value in ("1", "2"):
                swapped = await client.keys.set(key, value, prev_index=index)
                assert swapped.node is not None
                index = swapped.node.modified_index
            got = await client.keys.get(key)
            assert got.node is not None
            assert (got.node.key, got.node.value) == (key, "2")

        await asyncio.gather(*(work(i) for i in range(128)))
        listing = await client.keys.get(prefix)
        assert listing.node is not None
        assert len(listing.node.nodes) == 128

    async def test_compare_and_set_by_many(self, client: Client, prefix: str) -> None:
        created = await client.keys.create(prefix, "free")
        assert created.node is not None
        tries = await asyncio.gather(
            *(client.keys.set(prefix, str(i), prev_value="free") for i in range(32)), return_exceptions=True
        )
        assert sum(not isinstance(each, BaseException) for each in tries) == 1
