"""The public API as a type checker sees it: checked by mypy and pyright, strictly, and never run."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NoReturn

import aiohttp
from typing_extensions import assert_type

import aioetcd2
from aioetcd2 import (
    Action,
    APIError,
    AuthAPI,
    Client,
    ClientOptions,
    ClusterError,
    ClusterMismatchError,
    Counts,
    Discoverer,
    EndpointError,
    EndpointSelection,
    ErrorCode,
    EtcdError,
    EventIndexClearedError,
    FollowerStats,
    HeaderTimeoutError,
    Health,
    HTTPResult,
    InvalidResponseError,
    KeyNotFoundError,
    KeysAPI,
    Latency,
    LeaderInfo,
    LeaderStats,
    Member,
    MembersAPI,
    Node,
    Permission,
    Response,
    Role,
    RolesAPI,
    SelfStats,
    ServerError,
    SRVDiscoverer,
    StatsAPI,
    StoreStats,
    User,
    UsersAPI,
    V2DisabledError,
    Version,
    Watcher,
)
from aioetcd2.pytest_plugin import CleanStore
from aioetcd2.recipes import Change, Tree
from aioetcd2.testing import EtcdCluster, EtcdServer, EtcdTLS, etcd_version, find_etcd


def refuse(hops: int) -> None:
    raise aioetcd2.RedirectError(f"{hops} redirects")


def make() -> None:
    Client("http://127.0.0.1:2379")
    Client(["http://a:2379", "b:2379"])
    Client(f"http://{host}:2379" for host in ("a", "b"))
    Client(
        ("https://a:2379", "unix:///run/etcd.sock"),
        username="root",
        password="secret",
        header_timeout=None,
        selection=EndpointSelection.PRIORITIZE_LEADER,
        check_redirect=refuse,
        auto_sync=60,
        quorum=True,
        probe_interval=2,
        ssl=ssl.create_default_context(),
        connector=None,
        trust_env=True,
        trace_configs=[aiohttp.TraceConfig()],
    )
    Client("a:2379", "b:2379")  # type: ignore[call-arg]
    Client("a:2379", timeout=5)  # type: ignore[call-arg]
    Client(b"a:2379")  # type: ignore[arg-type]
    Client("a:2379", header_timeout="5")  # type: ignore[arg-type]


class Fixed:
    async def discover(self, domain: str) -> list[str]:
        return [f"http://{domain}:2379"]


class MyClient(Client):
    pass


async def discover() -> None:
    finders: list[Discoverer] = [Fixed(), SRVDiscoverer()]
    for finder in finders:
        assert_type(await finder.discover("example.com"), list[str])
    assert_type(await Client.from_srv("example.com"), Client)
    assert_type(await MyClient.from_srv("example.com", discoverer=Fixed(), username="a", password="b"), MyClient)
    options: ClientOptions = {"quorum": True, "header_timeout": None}
    assert_type(await Client.from_srv("example.com", **options), Client)
    await Client.from_srv("example.com", quorum="yes")  # type: ignore[arg-type]


async def live(client: Client) -> None:
    async with client as entered:
        assert_type(entered, Client)
    async with MyClient("a:2379") as mine:
        assert_type(mine, MyClient)
    await client.close()
    assert_type(client.endpoints, tuple[str, ...])
    client.endpoints = ("b:2379",)  # type: ignore[misc]
    client.set_endpoints("b:2379")
    client.set_endpoints({"a:2379", "b:2379"})
    await client.sync()
    assert_type(client.keys, KeysAPI)
    assert_type(client.members, MembersAPI)
    assert_type(client.auth, AuthAPI)
    assert_type(client.auth.users, UsersAPI)
    assert_type(client.auth.roles, RolesAPI)
    assert_type(client.stats, StatsAPI)


async def sync_for_ever(client: Client) -> NoReturn:
    await client.auto_sync(60)


async def look(client: Client) -> None:
    version = await client.version()
    assert_type(version, Version)
    assert_type(version.server, str)
    assert_type(version.cluster, str)
    health = await client.health()
    assert_type(health, Health)
    assert_type(health.healthy, bool)
    assert_type(health.reason, str)
    assert_type(await client.health("http://a:2379"), Health)


async def request(client: Client) -> None:
    result = await client.request("GET", "/v2/machines")
    assert_type(result, HTTPResult)
    assert_type(result.status, int)
    assert_type(result.headers, Mapping[str, str])
    assert_type(result.headers.get("x-etcd-index"), str | None)
    assert_type(result.body, bytes)
    assert_type(result.endpoint, str)
    await client.request("PUT", "/v2/keys/a", params={"dir": "true"}, form=[("value", "x")], one_shot=True)
    await client.request("PUT", "/v2/keys/a", one_shot=None)
    await client.request("POST", "/v2/members", json={"peerURLs": ["http://a:2380"]})
    await client.request("GET", "/", params={"wait": True})  # type: ignore[arg-type]


async def keys(client: Client) -> None:
    kv = client.keys
    assert_type(await kv.get("/a"), Response)
    assert_type(await kv.get("/a", recursive=True, sort=True, quorum=True), Response)
    assert_type(await kv.set("/a", "1"), Response)
    assert_type(await kv.set("/a", "1", ttl=60, prev_value="0", prev_index=7), Response)
    assert_type(await kv.set("/a", "1", ttl=timedelta(minutes=1), prev_exist=True, no_value_on_success=True), Response)
    assert_type(await kv.create("/a", "1", ttl=0.5), Response)
    assert_type(await kv.update("/a", "1", ttl=None), Response)
    assert_type(await kv.create_in_order("/q", "1", ttl=60), Response)
    assert_type(await kv.refresh("/a", timedelta(seconds=9)), Response)
    assert_type(await kv.refresh("/a", 9, prev_index=7, prev_value="1"), Response)
    assert_type(kv.within(0.5), KeysAPI)
    kv.within("5")  # type: ignore[arg-type]
    assert_type(await kv.mkdir("/d", ttl=60, prev_exist=None), Response)
    assert_type(await kv.delete("/a", recursive=True, dir=True, prev_value="1", prev_index=7), Response)
    await kv.set("/a", b"1")  # type: ignore[arg-type]
    await kv.set("/a", "1", 60)  # type: ignore[call-arg]
    await kv.set("/a", "1", ttl="60")  # type: ignore[arg-type]
    await kv.get(b"/a")  # type: ignore[arg-type]
    assert_type(KeysAPI(client, "/v2/keys/app"), KeysAPI)
    assert_type(KeysAPI(client, prefix="/v2/keys/app"), KeysAPI)


def values(response: Response) -> None:
    assert_type(response.action, Action)
    assert_type(response.key, str)
    assert_type(response.value, str)
    assert_type(response.modified_index, int)
    assert_type(response.created_index, int)
    assert_type(response.nodes, tuple[Node, ...])
    assert_type(response.leaves(), Iterator[Node])
    assert_type(response.prev_value, str | None)
    assert_type(response.deleted, bool)
    print(response.action == "dlete")  # type: ignore[comparison-overlap]
    assert_type(response.node, Node | None)
    assert_type(response.prev_node, Node | None)
    assert_type(response.index, int)
    assert_type(response.raft_index, int)
    assert_type(response.raft_term, int)
    assert_type(response.cluster_id, str)
    response.index = 7  # type: ignore[misc]
    print(response.node.value)  # type: ignore[union-attr]
    if response.node is not None:
        node = response.node
        assert_type(node.key, str)
        assert_type(node.value, str | None)
        assert_type(node.dir, bool)
        assert_type(node.nodes, tuple[Node, ...])
        assert_type(node.created_index, int)
        assert_type(node.modified_index, int)
        assert_type(node.ttl, int | None)
        assert_type(node.expiration, datetime | None)
        assert_type(node.leaves(), Iterator[Node])
        assert_type({leaf.key: leaf.value for leaf in node.leaves()}, dict[str, str | None])
        node.value = "x"  # type: ignore[misc]


async def watch(client: Client) -> None:
    watcher = client.keys.watch("/a", recursive=True, after_index=7, resync=True)
    assert_type(watcher, Watcher)
    async for event in watcher:
        assert_type(event, Response)
    async with client.keys.watch("/a") as entered:
        assert_type(entered, Watcher)
        assert_type(await entered.next(), Response)
        assert_type(entered.index, int | None)
        client.keys.watch("/a", after_index=entered.index)
    await watcher.aclose()
    events: AsyncIterator[Response] = watcher
    assert_type(await events.__anext__(), Response)
    client.keys.watch("/a", 7)  # type: ignore[call-arg, arg-type]


async def members(client: Client) -> None:
    assert_type(await client.members.list(), list[Member])
    member = await client.members.leader()
    assert_type(member, Member)
    assert_type(member.id, str)
    assert_type(member.name, str)
    assert_type(member.peer_urls, tuple[str, ...])
    assert_type(member.client_urls, tuple[str, ...])
    assert_type(await client.members.add("http://a:2380", "http://b:2380"), Member)
    await client.members.update(member.id, "http://c:2380")
    await client.members.remove(member.id)
    await client.members.add(["http://a:2380"])  # type: ignore[arg-type]


async def auth(client: Client) -> None:
    await client.auth.enable()
    await client.auth.disable()
    assert_type(await client.auth.enabled(), bool)
    users = client.auth.users
    assert_type(await users.list(), list[str])
    assert_type(await users.add("bob", "secret"), User)
    user = await users.get("bob")
    assert_type(user, User)
    assert_type(user.name, str)
    assert_type(user.roles, tuple[str, ...])
    assert_type(await users.grant("bob", "reader", "writer"), User)
    assert_type(await users.revoke("bob", "writer"), User)
    assert_type(await users.change_password("bob", "other"), User)
    await users.remove("bob")
    roles = client.auth.roles
    assert_type(await roles.list(), list[str])
    assert_type(await roles.add("reader"), Role)
    role = await roles.get("reader")
    assert_type(role, Role)
    assert_type(role.name, str)
    assert_type(role.read, tuple[str, ...])
    assert_type(role.write, tuple[str, ...])
    assert_type(await roles.grant("reader", "/a/*", "/b/*", permission=Permission.READ), Role)
    assert_type(await roles.revoke("reader", "/b/*", permission=Permission.READ_WRITE), Role)
    await roles.grant("reader", "/a/*", permission="read")  # type: ignore[arg-type]
    await roles.grant("reader", "/a/*", Permission.WRITE)  # type: ignore[call-arg, arg-type]
    await roles.remove("reader")


async def stats(client: Client) -> None:
    own = await client.stats.self()
    assert_type(own, SelfStats)
    assert_type(own.start_time, datetime | None)
    assert_type(own.leader_info, LeaderInfo)
    assert_type(own.leader_info.uptime, str)
    assert_type(own.recv_append_request_cnt, int)
    assert_type(own.send_pkg_rate, float)
    leader = await client.stats.leader()
    assert_type(leader, LeaderStats)
    assert_type(leader.followers, dict[str, FollowerStats])
    for follower in leader.followers.values():
        assert_type(follower.latency, Latency)
        assert_type(follower.latency.average, float)
        assert_type(follower.counts, Counts)
        assert_type(follower.counts.fail, int)
    store = await client.stats.store()
    assert_type(store, StoreStats)
    assert_type(store.watchers, int)


async def fail(client: Client) -> None:
    try:
        await client.keys.get("/a")
    except KeyNotFoundError as error:
        assert_type(error.cause, str)
    except EventIndexClearedError as error:
        client.keys.watch("/a", after_index=error.index)
    except APIError as error:
        assert_type(error.code, int)
        assert_type(error.message, str)
        assert_type(error.index, int)
        assert_type(error.status, int)
        assert_type(error.endpoint, str)
        assert_type(error.code == ErrorCode.NOT_FILE, bool)
    except ClusterError as error:
        assert_type(error.errors, tuple[EndpointError, ...])
        assert_type(error.maybe_applied, bool)
        for each in error.errors:
            assert_type(each.endpoint, str)
            assert_type(each.reason, str)
            assert_type(each.maybe_applied, bool)
            if isinstance(each, ServerError):
                assert_type(each.status, int)
    except ClusterMismatchError as error:
        assert_type(error.expected, str)
        assert_type(error.actual, str)
    except V2DisabledError as error:
        assert_type(error.server_version, str)
    except InvalidResponseError as error:
        assert_type(error.status, int)
        assert_type(error.body, bytes)
    except EtcdError:
        pass
    late: TimeoutError = HeaderTimeoutError("http://a:2379", "no answer")
    bad: list[ValueError] = [aioetcd2.InvalidEndpointError("x"), aioetcd2.NoEndpointsError("x")]
    raise late from bad[0]


def see() -> None:
    aioetcd2.enable_curl_debug()
    aioetcd2.disable_curl_debug()
    assert_type(aioetcd2.__version__, str)


async def copy(client: Client) -> None:
    async with Tree(client.keys, "/config", limit=100, stale_after=30) as tree:
        assert_type(tree, Tree)
        assert_type(tree["/config/a"], Node)
        assert_type(tree.get("/config/a"), Node | None)
        assert_type(tree.value("/config/a"), str | None)
        assert_type(tree.value("/config/a", "default"), str)
        assert_type(tree.value("/config/a", 7), str | int)
        assert_type(tree.below("/config/b"), Mapping[str, Node])
        assert_type(tree.index, int)
        assert_type(tree.age, float)
        assert_type(await tree.reach(7), None)
        async for change in tree.changes(from_now=True):
            assert_type(change, Change)
            assert_type(change.before, Node | None)
            assert_type(change.after, Node | None)
            assert_type(change.index, int)
        tree["/config/a"] = tree["/config/b"]  # type: ignore[index]
        tree.changes(True)  # type: ignore[call-arg]
        Tree(client.keys, "/config", 100)  # type: ignore[call-arg]
        Tree(client, "/config")  # type: ignore[arg-type]
    mapping: Mapping[str, Node] = tree
    mapping.items()


async def serve() -> None:
    assert_type(find_etcd(), str)
    assert_type(find_etcd(v2=False), str)
    assert_type(etcd_version("etcd"), tuple[int, int, int])
    tls = EtcdTLS("server.pem", "server.key", ca_file="ca.pem")
    async with EtcdServer(tls=tls) as server, Client(server.endpoints) as client:
        assert_type(server, EtcdServer)
        await client.keys.set("/a", "1")
        await server.pause()
        await server.resume()
        await server.stop()
        await server.start()
        await server.kill()
        assert_type(await server.wipe(), None)
        assert_type(await CleanStore(server).clean(), None)
    async with EtcdCluster(size=3, v2=False) as cluster:
        assert_type(cluster, EtcdCluster)
        assert_type(cluster.endpoints, tuple[str, ...])
        assert_type(cluster.members, tuple[EtcdServer, ...])
        await cluster.add(EtcdServer("m3", v2=False))
