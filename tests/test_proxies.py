"""What stands between a client and its cluster: forward proxies, etcd's own proxy, and redirects."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ConnectError,
    EndpointSelection,
    EtcdError,
    InvalidResponseError,
    KeyNotFoundError,
    NodeExistsError,
    NoLeaderError,
    RedirectError,
    ServerError,
    Watcher,
)
from aioetcd2.testing import EtcdCluster, EtcdServer, _free_port, etcd_version, find_etcd

from .conftest import node_of
from .misbehaver import Behaviour, Exchange, Misbehaver, answer, key_event, read_request

Call = Callable[[Client], Awaitable[object]]

PASSWORD = "S3cret-ü"
OURS = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
THEIRS = base64.b64encode(b"netrc:n3trc").decode()


# --- forward proxies ------------------------------------------------------------------------------------------------


class ForwardProxy:
    """Passes requests on to whom their target names, or tunnels with CONNECT; `seen` holds what it was asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ForwardProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            seen = await read_request(reader)
            self.seen.append(f"{seen.method} {seen.target}")
            self.headers.append(seen.headers)
            parts = urlsplit(seen.target if "//" in seen.target else f"//{seen.target}")
            answers, there = await asyncio.open_connection(parts.hostname, parts.port)
            if seen.method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                target = f"{parts.path}?{parts.query}".rstrip("?")
                headers = "".join(f"{name}: {value}\r\n" for name, value in seen.headers.items())
                there.write(f"{seen.method} {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                there.write(seen.body)
            await asyncio.gather(_pump(reader, there), _pump(answers, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def in_order(*endpoints: str, **options: Any) -> Client:
    return Client(endpoints, selection=EndpointSelection.PRIORITIZE_LEADER, **options)


def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server, and of a client that trusts it."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    asking = ssl.create_default_context()
    authority.configure_trust(asking)
    return serving, asking


@asynccontextmanager
async def over_tls(server: Misbehaver, context: ssl.SSLContext) -> AsyncIterator[str]:
    """A second endpoint of a server, with TLS."""
    listener = await asyncio.start_server(server._accept, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    listener.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    (tmp_path / "none").touch()


@pytest.fixture
async def forward(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForwardProxy]:
    """A proxy that the environment names."""
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        monkeypatch.setenv("https_proxy", proxy.endpoint)
        yield proxy


async def test_environment_s_proxy(server: EtcdServer, forward: ForwardProxy, prefix: str) -> None:
    async with Client(server.endpoints, trust_env=True) as client:
        await client.keys.create(f"{prefix}/a b?%2F", "v&=")
        with pytest.raises(NodeExistsError):
            await client.keys.create(f"{prefix}/a b?%2F", "w")
        assert node_of(await client.keys.get(f"{prefix}/a b?%2F")).value == "v&="
        await client.keys.delete(prefix, recursive=True)
    target = f"{server.endpoint}/v2/keys{prefix}"
    assert forward.seen == [
        f"PUT {target}/a%20b%3F%252F",
        f"PUT {target}/a%20b%3F%252F",
        f"GET {target}/a%20b%3F%252F",
        f"DELETE {target}?recursive=true",
    ]


async def test_watch_through_a_forward_proxy(
    server: EtcdServer, client: Client, forward: ForwardProxy, prefix: str
) -> None:
    async with Client(server.endpoints, trust_env=True) as proxied, proxied.keys.watch(prefix) as watcher:
        for value in "abc":
            await client.keys.set(prefix, value)
        assert [await value_of_next(watcher) for _ in "abc"] == ["a", "b", "c"]
    assert "wait=true" in forward.seen[0]


@pytest.mark.parametrize("switched_off", ["trust_env", "no_proxy"])
async def test_proxy_is_not_asked(
    server: EtcdServer, forward: ForwardProxy, switched_off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if switched_off == "no_proxy":
        monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with Client(server.endpoints, trust_env=switched_off != "trust_env") as client:
        await client.keys.get("/")
    assert forward.seen == []


async def test_credentials_through_a_forward_proxy(forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", forward.endpoint.replace("//", "//pr0xy:w0rd@"))
    async with (
        Misbehaver(answer(key_event())) as server,
        Client(server.endpoint, username="root", password=PASSWORD, trust_env=True) as client,
    ):
        await client.keys.set("/k", "v")
    assert forward.headers[0]["proxy-authorization"] == f"Basic {base64.b64encode(b'pr0xy:w0rd').decode()}"
    assert server.seen[0].headers["authorization"] == f"Basic {OURS}"


async def test_proxy_that_is_down(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://pr0xy:w0rd@127.0.0.1:1")
    async with Client(server.endpoints, trust_env=True) as client:
        with pytest.raises(ClusterError, match=f"{server.endpoint}: .*127\\.0\\.0\\.1:1") as caught:
            await client.keys.create("/k", "v")
    assert isinstance(caught.value.errors[0], ConnectError)
    assert not caught.value.maybe_applied
    assert "w0rd" not in str(caught.value) + repr(caught.value.errors[0].__cause__)


async def test_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Misbehaver(answer(b"who are you?", status=407, index=None, cluster=None)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        async with Client("http://etcd.example.com", trust_env=True) as client:
            with pytest.raises(InvalidResponseError, match=r"status 407, body b'who are you\?'"):
                await client.keys.get("/k")


async def test_tunnel_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Misbehaver(answer(status=407)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.endpoint.replace("//", "//pr0xy:w0rd@"))
        async with Client("https://etcd.example.com", trust_env=True) as client:
            with pytest.raises(ClusterError, match="407") as caught:
                await client.keys.create("/k", "v")
    assert isinstance(caught.value.errors[0], ConnectError)
    assert not caught.value.maybe_applied
    assert proxy.seen[0].target == "etcd.example.com:443"
    secret = proxy.seen[0].headers["proxy-authorization"]
    assert secret not in repr(caught.value.errors[0].__cause__)


async def test_tunnel(forward: ForwardProxy) -> None:
    serving, asking = certificates()
    async with (
        Misbehaver(answer(key_event())) as server,
        over_tls(server, serving) as endpoint,
        Client(endpoint, ssl=asking, trust_env=True) as client,
    ):
        await client.keys.set("/k", "v")
        await client.keys.get("/k")
    assert forward.seen == [f"CONNECT {endpoint.removeprefix('https://')}"]
    assert [seen.target for seen in server.seen] == ["/v2/keys/k"] * 2


# --- .netrc ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login netrc password n3trc\ndefault login netrc password n3trc\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize(
    ("username", "password", "sent"), [("root", PASSWORD, OURS), (None, None, THEIRS)], ids=["with a user", "without"]
)
async def test_our_user_wins_over_netrc(username: str | None, password: str | None, sent: str) -> None:
    async with Misbehaver(answer(key_event())) as server:
        async with Client(server.endpoint, trust_env=True, username=username, password=password) as client:
            await client.keys.set("/k", "v")
            await client.keys.get("/k")
            await client.keys.create_in_order("/k", "v")
        assert [seen.headers["authorization"] for seen in server.seen] == [f"Basic {sent}"] * 3


@pytest.mark.usefixtures("netrc")
async def test_netrc_is_not_read_unasked() -> None:
    async with Misbehaver(answer(key_event())) as server, Client(server.endpoint) as client:
        await client.keys.set("/k", "v")
    assert "authorization" not in server.seen[0].headers


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("username", ["root", None])
async def test_netrc_is_not_for_strangers(username: str | None) -> None:
    password = None if username is None else PASSWORD
    async with (
        Misbehaver(answer(key_event())) as stranger,
        Misbehaver(moved(stranger.endpoint)) as server,
        Client(server.endpoint, trust_env=True, username=username, password=password) as client,
    ):
        await client.keys.set("/k", "v")
    assert "authorization" in server.seen[0].headers
    assert "authorization" not in stranger.seen[0].headers


# --- etcd's own proxy -----------------------------------------------------------------------------------------------


class EtcdProxy:
    """An `etcd --proxy on` in front of a cluster."""

    def __init__(self, *members: EtcdServer) -> None:
        self.endpoint = f"http://127.0.0.1:{_free_port()}"
        self._members = members
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> EtcdProxy:
        binary = find_etcd()
        command = [
            binary,
            "--proxy=on",
            "--proxy-failure-wait=500",
            f"--data-dir={self._folder.name}/data",
            f"--listen-client-urls={self.endpoint}",
            f"--initial-cluster={','.join(f'{member.name}={member.peer_url}' for member in self._members)}",
        ]
        if etcd_version(binary) >= (3, 2):
            command.append("--enable-v2=true")
        with Path(self._folder.name, "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder.name)
        try:
            async with Client(self.endpoint) as client:
                await eventually(lambda: client.keys.get("/"))
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


async def eventually(call: Callable[[], Awaitable[object]]) -> None:
    async with timeout(60):
        while True:
            try:
                await call()
                return
            except EtcdError:
                await asyncio.sleep(0.05)


async def value_of_next(watcher: Watcher) -> str | None:
    async with timeout(60):
        node = (await watcher.next()).node
    return None if node is None else node.value


async def value_comes(watcher: Watcher, value: str) -> None:
    """Wait for a value; what was written before it may have been written twice."""
    while await value_of_next(watcher) != value:
        pass


@pytest.fixture(scope="module")
def proxy(server: EtcdServer) -> Iterator[str]:
    proxy = EtcdProxy(server)
    asyncio.run(proxy.__aenter__())
    yield proxy.endpoint
    asyncio.run(proxy.__aexit__(None, None, None))


@pytest.fixture
async def proxied(proxy: str) -> AsyncIterator[Client]:
    async with Client(proxy, header_timeout=1.0) as client:
        yield client


async def test_keys_through_etcd_s_proxy(proxied: Client, client: Client, prefix: str) -> None:
    await proxied.keys.create(prefix, "v")
    with pytest.raises(NodeExistsError):
        await proxied.keys.create(prefix, "w")
    assert (await proxied.keys.get(prefix)).node == (await client.keys.get(prefix)).node
    await proxied.keys.set(prefix, "w", prev_value="v")
    await proxied.keys.delete(prefix, prev_value="w")
    with pytest.raises(KeyNotFoundError):
        await proxied.keys.get(prefix)
    assert await proxied.members.list() == await client.members.list()
    assert await proxied.version() == await client.version()
    assert (await proxied.health()).healthy


async def test_sync_leads_past_etcd_s_proxy(proxied: Client, server: EtcdServer) -> None:
    await proxied.sync()
    assert proxied.endpoints == server.endpoints


async def test_watch_through_etcd_s_proxy(
    proxied: Client, client: Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "aioetcd2")
    start = time.monotonic()
    async with proxied.keys.watch(prefix, recursive=True) as watcher:
        assert 1.0 <= time.monotonic() - start < 6.0
        for number in range(30):
            await client.keys.set(f"{prefix}/{number % 3}", str(number))
        assert [await value_of_next(watcher) for _ in range(30)] == [str(number) for number in range(30)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(watcher.next(), 0.1)
        await client.keys.set(f"{prefix}/0", "after a cancelled next()")
        assert await value_of_next(watcher) == "after a cancelled next()"
        async with timeout(10), proxied.keys.watch(prefix) as other:
            await client.keys.delete(prefix, recursive=True)
            assert (await other.next()).action == "delete"
        assert (await watcher.next()).action == "delete"
    assert sum("holds back" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.slow
async def test_watches_without_a_header_timeout_through_etcd_s_proxy(proxy: str, client: Client, prefix: str) -> None:
    """No time-out tells that headers are held back, and more of them than may register at once keep nobody out."""
    async with Client(proxy, header_timeout=None, probe_interval=0.5) as proxied:
        watchers = [proxied.keys.watch(f"{prefix}/{number}") for number in range(40)]
        async with timeout(20):
            await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
            waiting = [asyncio.create_task(value_of_next(watcher)) for watcher in watchers]
            await asyncio.gather(*(client.keys.set(f"{prefix}/{number}", str(number)) for number in range(40)))
            assert await asyncio.gather(*waiting) == [str(number) for number in range(40)]
            for watcher in watchers:
                await watcher.aclose()


async def test_write_after_entering_is_seen_behind_etcd_s_proxy(proxied: Client, client: Client, prefix: str) -> None:
    for value in "abc":
        async with proxied.keys.watch(prefix) as watcher:
            await client.keys.set(prefix, value)
            assert await value_of_next(watcher) == value


@pytest.mark.parametrize("size", [1, 5000])
@pytest.mark.parametrize("number", [0, 12])
async def test_after_index_through_etcd_s_proxy(
    proxied: Client, client: Client, prefix: str, size: int, number: int
) -> None:
    index = (await client.keys.set(f"{prefix}/before", "v")).index
    values = [str(n).ljust(size, ".") for n in range(number + 1)]
    for value in values[:-1]:
        await client.keys.set(f"{prefix}/k", value)
    watcher = proxied.keys.watch(f"{prefix}/k", after_index=index)
    first = asyncio.create_task(value_of_next(watcher))
    await asyncio.sleep(0.1)
    await client.keys.set(f"{prefix}/k", values[-1])
    assert [await first, *[await value_of_next(watcher) for _ in range(number)]] == values
    await watcher.aclose()


async def test_burst_that_brings_the_header_through_etcd_s_proxy(proxied: Client, client: Client, prefix: str) -> None:
    """The proxy passes on what fills its buffer, and keeps the rest for later."""
    index = (await client.keys.set(f"{prefix}/before", "v")).index
    watcher = proxied.keys.watch(f"{prefix}/k", after_index=index)
    first = asyncio.create_task(value_of_next(watcher))
    await asyncio.sleep(0.1)
    values = [str(number).ljust(3000, ".") for number in range(4)]
    for value in values:
        await client.keys.set(f"{prefix}/k", value)
    assert [await first, *[await value_of_next(watcher) for _ in values[1:]]] == values
    await watcher.aclose()


@pytest.mark.parametrize("whole_client", [False, True])
async def test_close_while_waiting_behind_etcd_s_proxy(proxied: Client, prefix: str, whole_client: bool) -> None:
    async with proxied.keys.watch(prefix) as watcher:
        waiting = asyncio.create_task(watcher.next())
        await asyncio.sleep(0.2)
        async with timeout(5):
            await (proxied.close() if whole_client else watcher.aclose())
            with pytest.raises(ClientClosedError):
                await waiting


async def test_close_while_the_header_is_held_back(proxied: Client, prefix: str) -> None:
    watcher = proxied.keys.watch(prefix)
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.2)
    async with timeout(5):
        await watcher.aclose()
        with pytest.raises(ClientClosedError):
            await waiting


async def test_etcd_s_proxy_loses_its_members(cluster: EtcdCluster, prefix: str) -> None:
    async with (
        EtcdProxy(*cluster.members) as proxy,
        Client(proxy.endpoint, header_timeout=2.0) as client,
        client.keys.watch(prefix) as watcher,
    ):
        await eventually(lambda: client.keys.set(prefix, "three members"))
        await value_comes(watcher, "three members")
        await cluster.members[0].kill()
        await eventually(lambda: client.keys.set(prefix, "two members"))
        await value_comes(watcher, "two members")
        for member in cluster.members[1:]:
            await member.kill()
        for _ in range(3):
            with pytest.raises(ClusterError, match=r"50[23] (http)?proxy: (unable to get|zero endpoints)") as caught:
                await client.keys.get(prefix)
            assert isinstance(caught.value.errors[0], (ServerError, NoLeaderError))
        await asyncio.gather(*(member.start() for member in cluster.members))
        await eventually(lambda: client.keys.set(prefix, "back again"))
        await value_comes(watcher, "back again")


# --- redirects ------------------------------------------------------------------------------------------------------


def moved(endpoint: str, *, status: int = 307) -> Behaviour:
    """A redirect to the same path elsewhere."""

    async def behave(exchange: Exchange) -> bool | None:
        location = {"Location": f"{endpoint}{exchange.seen.target}"}
        return await answer(status=status, headers=location)(exchange)

    return behave


WRITES: dict[str, Call] = {
    "PUT": lambda client: client.keys.set("/a b", "v&=ü", prev_value="w"),
    "POST": lambda client: client.keys.create_in_order("/a b", "v&=ü"),
    "DELETE": lambda client: client.keys.delete("/a b", prev_index=7),
    "GET": lambda client: client.keys.get("/a b", recursive=True),
}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", WRITES)
async def test_redirect_keeps_all_but_the_credentials(method: str, status: int) -> None:
    async with (
        Misbehaver(answer(key_event())) as there,
        Misbehaver(moved(there.endpoint, status=status)) as here,
        Client(here.endpoint, username="root", password=PASSWORD) as client,
    ):
        await WRITES[method](client)
    (asked,), (followed,) = here.seen, there.seen
    assert (followed.method, followed.target, followed.body) == (method, asked.target, asked.body)
    assert followed.headers.get("content-type") == asked.headers.get("content-type")
    assert asked.headers["authorization"] == f"Basic {OURS}"
    assert "authorization" not in followed.headers


async def test_redirect_to_another_endpoint_keeps_the_credentials() -> None:
    async with (
        Misbehaver(answer(key_event())) as there,
        Misbehaver(moved(there.endpoint)) as here,
        in_order(here.endpoint, there.endpoint, username="root", password=PASSWORD) as client,
    ):
        await client.keys.set("/k", "v")
    assert there.seen[0].headers["authorization"] == f"Basic {OURS}"


async def test_ten_redirects_in_a_row() -> None:
    async with Misbehaver() as here:
        here.behaviours = [moved(here.endpoint)] * 10 + [answer(key_event())]
        async with Client(here.endpoint) as client:
            await client.keys.get("/k")
            assert len(here.seen) == 11
            here.behaviours = [moved(here.endpoint)]
            with pytest.raises(RedirectError, match="more than 10 redirects"):
                await client.keys.get("/k")
    assert len(here.seen) == 22


class RefusedError(Exception):
    pass


async def test_check_redirect_raises_what_it_likes() -> None:
    told: list[int] = []

    def check(hops: int) -> None:
        told.append(hops)
        if hops == 3:
            raise RefusedError

    async with Misbehaver(answer(key_event())) as other, Misbehaver() as here:
        here.behaviours = [moved(here.endpoint)]
        async with in_order(here.endpoint, other.endpoint, check_redirect=check) as client:
            with pytest.raises(RefusedError):
                await client.keys.set("/k", "v")
            here.behaviours = [moved(here.endpoint), answer(key_event())]
            here._scripted = 0
            await client.keys.set("/k", "v")
    assert told == [1, 2, 3, 1]
    assert other.seen == []


async def test_watch_is_redirected(server: EtcdServer, client: Client, prefix: str) -> None:
    async with (
        Misbehaver(moved(server.endpoint)) as here,
        Client(here.endpoint) as redirected,
        redirected.keys.watch(prefix) as watcher,
    ):
        for value in "abc":
            await client.keys.set(prefix, value)
        assert [await value_of_next(watcher) for _ in "abc"] == ["a", "b", "c"]


async def test_https_redirects_no_credentials_to_http() -> None:
    serving, asking = certificates()
    async with (
        Misbehaver(answer(key_event())) as plain,
        Misbehaver(moved(plain.endpoint)) as behind_tls,
        over_tls(behind_tls, serving) as secure,
        in_order(secure, plain.endpoint, username="root", password=PASSWORD, ssl=asking) as client,
    ):
        await client.keys.set("/k", "v")
    assert behind_tls.seen[0].headers["authorization"] == f"Basic {OURS}"
    assert "authorization" not in plain.seen[0].headers
    assert plain.seen[0].form == {"value": "v"}


async def test_http_redirects_credentials_to_https() -> None:
    serving, asking = certificates()
    async with (
        Misbehaver(answer(key_event())) as behind_tls,
        over_tls(behind_tls, serving) as secure,
        Misbehaver(moved(secure)) as plain,
        in_order(plain.endpoint, secure, username="root", password=PASSWORD, ssl=asking) as client,
    ):
        await client.keys.set("/k", "v")
    assert behind_tls.seen[0].headers["authorization"] == f"Basic {OURS}"


async def test_password_in_a_body_goes_to_no_stranger() -> None:
    async with Misbehaver(answer({"user": "ann"})) as there:
        user = answer({"user": "ann"})
        async with Misbehaver(moved(there.endpoint), reads=user) as here, Client(here.endpoint) as client:
            with pytest.raises(RedirectError, match="password") as caught:
                await client.auth.users.change_password("ann", PASSWORD)
    assert there.seen == []
    assert PASSWORD not in str(caught.value)
