"""Rows of the README's table for those who come from python-etcd: both libraries at the same etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest

from aioetcd2 import Client, NodeExistsError, NotFileError, RaftInternalError, SRVDiscoverer
from aioetcd2.testing import EtcdServer

etcd: Any = pytest.importorskip("etcd", reason="python-etcd is not installed")

Old = Callable[..., Any]


@pytest.fixture
async def old(server: EtcdServer) -> AsyncIterator[Old]:
    """Calls a method of python-etcd's client, by its name."""
    address = urlsplit(server.endpoint)
    client = etcd.Client(address.hostname, address.port)

    async def call(method: str, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(client, method), *arguments, **options)

    yield call
    client.http.clear()


async def test_write_of_a_directory(old: Old, client: Client, prefix: str) -> None:
    assert (await old("write", f"{prefix}/a", None, dir=True)).dir
    with pytest.raises(etcd.EtcdNotFile):
        await old("write", f"{prefix}/a", None, dir=True)
    await old("write", f"{prefix}/file", "v")
    assert (await old("write", f"{prefix}/file", None, dir=True)).dir

    response = await client.keys.mkdir(f"{prefix}/b", prev_exist=None)
    assert response.node is not None
    assert response.node.dir
    with pytest.raises(NotFileError):
        await client.keys.mkdir(f"{prefix}/b", prev_exist=None)
    await client.keys.set(f"{prefix}/other", "v")
    with pytest.raises(NodeExistsError):
        await client.keys.mkdir(f"{prefix}/other")
    assert (await client.keys.get(f"{prefix}/other")).value == "v"
    await client.keys.mkdir(f"{prefix}/other", prev_exist=None)
    assert (await client.keys.get(f"{prefix}/other")).nodes == ()


async def test_update_of_a_directory(old: Old, client: Client, prefix: str, etcd_release: tuple[int, int, int]) -> None:
    await client.keys.mkdir(prefix, ttl=1000)
    result = await old("read", prefix)
    result.ttl = 500
    node = (await client.keys.get(prefix)).node
    assert node is not None
    if etcd_release >= (3, 5):
        with pytest.raises(etcd.EtcdException, match="Raft Internal Error"):
            await old("update", result)
        with pytest.raises(RaftInternalError):
            await client.keys.mkdir(node.key, ttl=node.ttl, prev_exist=True)
        return
    assert (await old("update", result)).ttl == 500
    updated = await client.keys.mkdir(
        node.key, ttl=node.ttl, prev_exist=True
    )  # what has changed meanwhile is no matter
    assert updated.action == "update"
    assert updated.node is not None
    assert updated.node.ttl == node.ttl


async def test_update_of_a_key(old: Old, client: Client, prefix: str) -> None:
    await client.keys.set(prefix, "1", ttl=1000)
    result = await old("read", prefix)
    result.value = "2"
    assert (await old("update", result)).value == "2"
    with pytest.raises(etcd.EtcdCompareFailed):
        await old("update", result)
    node = (await client.keys.get(prefix)).node
    assert node is not None
    assert (await client.keys.set(node.key, "3", ttl=node.ttl, prev_index=node.modified_index)).value == "3"


@pytest.mark.parametrize("dir", [False, True])
async def test_new_key(old: Old, client: Client, prefix: str, dir: bool) -> None:
    value = None if dir else "v"
    assert (await old("write", f"{prefix}/a", value, dir=dir)).newKey
    await client.keys.set(f"{prefix}/b", "v")
    assert not (await old("write", f"{prefix}/b", value, dir=dir)).newKey

    made = client.keys.mkdir if dir else client.keys.set
    options: dict[str, Any] = {"prev_exist": None} if dir else {"value": "v"}
    assert (await made(f"{prefix}/c", **options)).prev_node is None
    await client.keys.set(f"{prefix}/d", "v")
    assert (await made(f"{prefix}/d", **options)).prev_node is not None


async def test_leaves(old: Old, client: Client, prefix: str) -> None:
    def keys(nodes: Iterable[Any]) -> list[str]:
        return sorted(node.key.removeprefix(prefix) for node in nodes)

    await client.keys.set(f"{prefix}/a/key", "v")
    await client.keys.mkdir(f"{prefix}/empty")
    for name in ("leaves", "children"):
        assert keys(getattr(await old("read", prefix, recursive=True), name)) == ["/a/key", "/empty"]
        assert keys(getattr(await old("read", prefix), name)) == ["/a", "/empty"]
        assert keys(getattr(await old("read", f"{prefix}/empty"), name)) == ["/empty"]
        assert keys(getattr(await old("read", f"{prefix}/a/key"), name)) == ["/a/key"]

    listed = await client.keys.get(prefix, recursive=True)
    assert keys(listed.leaves()) == ["/a/key"]
    assert keys(listed.nodes) == ["/a", "/empty"]
    assert keys((await client.keys.get(prefix)).leaves()) == []
    assert keys((await client.keys.get(f"{prefix}/empty")).leaves()) == []
    assert keys((await client.keys.get(f"{prefix}/a/key")).leaves()) == []


async def test_names_of_srv_records(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def query(name: str, kind: str) -> list[Any]:
        asked.append(name)
        return []

    class Resolver:
        async def resolve(self, name: str, kind: str, /) -> list[Any]:
            return query(name, kind)

    monkeypatch.setattr(etcd.client.dns.resolver, "query", query)
    old = etcd.Client(srv_domain="example.com")
    old.http.clear()
    assert asked == ["_etcd._tcp.example.com"]
    asked.clear()
    with pytest.raises(Exception, match="no record"):
        await SRVDiscoverer(Resolver()).discover("example.com")
    assert sorted(asked) == ["_etcd-client-ssl._tcp.example.com.", "_etcd-client._tcp.example.com."]
