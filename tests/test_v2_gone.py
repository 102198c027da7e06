"""etcd 3.6 and later, which have no v2 API: real ones, named in `$AIOETCD2_V3_ETCDS`, are refused, or run as such."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aioetcd2 import Client, V2DisabledError
from aioetcd2.testing import EtcdCluster, EtcdServer, etcd_version

pytestmark = pytest.mark.etcd

BINARIES = [path for path in os.environ.get("AIOETCD2_V3_ETCDS", "").split(os.pathsep) if path]

HOW = (
    "no etcd without the v2 API is named: "
    "AIOETCD2_V3_ETCDS=$(.ci/build-etcd 3.6.16):$(.ci/build-etcd 3.7.3) python -m pytest tests/test_v2_gone.py"
)

REMEDY = "it is gone from 3.6 on, and no flag brings it back; use etcd 2.3 to 3.5"


class Gone(NamedTuple):
    endpoint: str
    release: str


PARAMS = [pytest.param(path, id=Path(path).name) for path in BINARIES]


@pytest.fixture(scope="module", params=PARAMS or [pytest.param("", marks=pytest.mark.skip(HOW), id="none")])
def binary(request: pytest.FixtureRequest) -> str:
    path = request.param
    assert isinstance(path, str)
    return path


@pytest.fixture(scope="module")
def release(binary: str) -> str:
    version = etcd_version(binary)
    assert version >= (3, 6), f"{binary} is etcd {version}, which has the v2 API"
    return ".".join(map(str, version))


@pytest.fixture(scope="module")
def gone(binary: str, release: str) -> Iterator[Gone]:
    """One that runs."""
    server = EtcdServer(binary=binary, v2=False)
    asyncio.run(server.__aenter__())
    yield Gone(server.endpoint, release)
    asyncio.run(server.__aexit__(None, None, None))


@pytest.mark.parametrize("call", ["get", "set", "create", "delete", "watch", "events", "members", "sync"])
async def test_a_client_says_so(gone: Gone, call: str) -> None:
    async with Client(gone.endpoint) as client:
        with pytest.raises(V2DisabledError) as caught:
            match call:
                case "get":
                    await client.keys.get("k")
                case "set":
                    await client.keys.set("k", "v")
                case "create":
                    await client.keys.create("k", "v")
                case "delete":
                    await client.keys.delete("k")
                case "watch":
                    async with client.keys.watch("k"):
                        pass
                case "events":
                    async for _ in client.keys.watch("k", recursive=True, after_index=1):
                        pass
                case "members":
                    await client.members.list()
                case "sync":
                    await client.sync()
        assert (caught.value.server_version, caught.value.endpoint) == (gone.release, gone.endpoint)
        for words in (gone.endpoint, f"etcd {gone.release} does not serve the v2 API", REMEDY):
            assert words in str(caught.value)


async def test_what_is_not_of_v2_is_answered(gone: Gone) -> None:
    async with Client(gone.endpoint) as client:
        assert (await client.version()).server == gone.release
        assert (await client.health()).healthy


async def test_a_cluster_of_it_runs(binary: str, release: str) -> None:
    async with EtcdCluster(size=2, binary=binary, v2=False) as cluster:
        for member in cluster.members:
            async with Client(member.endpoint) as client:
                assert (await client.health()).healthy
                assert (await client.version()).server == release


async def test_the_server_for_tests_does_not_start_it_unasked(binary: str, release: str) -> None:
    server = EtcdServer(binary=binary)
    with pytest.raises(RuntimeError) as caught:
        await server.__aenter__()
    for words in (binary, f"etcd {release}", "no v2 API", "2.3 to 3.5", "v2=False"):
        assert words in str(caught.value)
    assert server.pid is None
    assert not server.log.parent.exists()
