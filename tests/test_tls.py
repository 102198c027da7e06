"""TLS to a real etcd, and the other ways to reach one: IPv6 and a socket of this machine."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from pathlib import Path

import aiohttp
import pytest
import trustme

from aioetcd2 import (
    Client,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EndpointSelection,
    InvalidEndpointError,
    UnauthorizedError,
)
from aioetcd2._net.causes import unconnected
from aioetcd2.testing import EtcdCluster, EtcdServer, EtcdTLS, _free_port

from .conftest import FAST_CLUSTER, node_of
from .misbehaver import Misbehaver, answer, key_event


class Authority:
    """A certificate authority, the files of its server certificate, and contexts of clients."""

    def __init__(self, folder: Path, *names: str, not_after: datetime | None = None) -> None:
        self.ca = trustme.CA()
        certificate = self.ca.issue_cert(*(names or ("127.0.0.1", "localhost", "::1")), not_after=not_after)
        folder.mkdir(exist_ok=True)
        self.ca_file, self.cert_file, self.key_file = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        certificate.cert_chain_pems[0].write_to_path(str(self.cert_file))
        certificate.private_key_pem.write_to_path(str(self.key_file))

    @property
    def tls(self) -> EtcdTLS:
        return EtcdTLS(self.cert_file, self.key_file)

    def context(self, *, certificate_of: Authority | None = None, not_after: datetime | None = None) -> ssl.SSLContext:
        """What trusts this authority; and has a client certificate, perhaps."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if certificate_of is not None:
            certificate_of.ca.issue_cert("client@example.com", not_after=not_after).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[EtcdServer]:
    """An etcd with a certificate for 127.0.0.1, localhost and ::1."""
    server = EtcdServer(tls=authority.tls)
    asyncio.run(server.__aenter__())
    yield server
    asyncio.run(server.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def particular(authority: Authority) -> Iterator[EtcdServer]:
    """An etcd that wants client certificates."""
    own = authority.context(certificate_of=authority)
    server = EtcdServer(tls=EtcdTLS(authority.cert_file, authority.key_file, ca_file=authority.ca_file, context=own))
    asyncio.run(server.__aenter__())
    yield server
    asyncio.run(server.__aexit__(None, None, None))


def port_of(server: EtcdServer) -> str:
    return server.endpoint.rpartition(":")[2]


async def failure_of(endpoint: str, context: ssl.SSLContext | None = None) -> ClusterError:
    """The error of a write that is sent once, which names the endpoint."""
    async with Client(endpoint, ssl=context) as client:
        with pytest.raises(ClusterError) as caught:
            await client.keys.create("/k", "v")
        assert len(caught.value.errors) == 1
        assert f"\n  {endpoint}: " in str(caught.value)
        return caught.value


async def use(client: Client, prefix: str) -> None:
    """Write, read, and watch."""
    async with client.keys.watch(prefix, recursive=True) as watcher:
        for number in range(5):
            await client.keys.set(f"{prefix}/{number}", "v")
        for number in range(5):
            event = await watcher.next()
            assert event.node is not None
            assert event.node.key == f"{prefix}/{number}"
    assert len(list(node_of(await client.keys.get(prefix, recursive=True)).leaves())) == 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_trusted_server(secure: EtcdServer, authority: Authority, prefix: str, host: str) -> None:
    async with Client(f"https://{host}:{port_of(secure)}", ssl=authority.context()) as client:
        await use(client, prefix)
        await client.sync()
        assert client.endpoints == secure.endpoints
        assert (await client.health(secure.endpoint)).healthy


async def test_server_certificate_is_checked_by_default(secure: EtcdServer) -> None:
    failure = await failure_of(secure.endpoint)
    assert isinstance(failure.errors[0], ConnectError)
    assert not failure.maybe_applied
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert "unable to get local issuer certificate" in str(failure)


async def test_server_of_another_authority(secure: EtcdServer, stranger: Authority) -> None:
    failure = await failure_of(secure.endpoint, stranger.context())
    assert isinstance(failure.errors[0], ConnectError)
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)


@pytest.mark.etcd
async def test_expired_server_certificate(tmp_path: Path) -> None:
    old = Authority(tmp_path, "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc))
    async with EtcdServer(tls=old.tls) as server:
        failure = await failure_of(server.endpoint, old.context())
    assert isinstance(failure.errors[0], ConnectError)
    assert "certificate has expired" in str(failure)


@pytest.mark.parametrize(
    ("names", "host", "words"),
    [
        (("localhost",), "127.0.0.1", "certificate is not valid for '127.0.0.1'"),
        (("127.0.0.1", "etcd.example.com"), "localhost", "certificate is not valid for 'localhost'"),
    ],
)
@pytest.mark.etcd
async def test_certificate_for_another_name(tmp_path: Path, names: tuple[str, ...], host: str, words: str) -> None:
    other = Authority(tmp_path, *names)
    async with EtcdServer(tls=other.tls) as server:
        failure = await failure_of(f"https://{host}:{port_of(server)}", other.context())
    assert isinstance(failure.errors[0], ConnectError)
    assert words in str(failure)


async def test_checks_switched_off_by_the_user(secure: EtcdServer, prefix: str) -> None:
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with Client(secure.endpoint, ssl=careless) as client:
        await client.keys.set(prefix, "v")


async def test_client_certificate(particular: EtcdServer, authority: Authority, prefix: str) -> None:
    async with Client(particular.endpoint, ssl=authority.context(certificate_of=authority)) as client:
        await use(client, prefix)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED], ids=["1.2", "newest"])
@pytest.mark.parametrize("certificate", ["none", "of a stranger", "expired"])
async def test_refused_client_certificate(
    particular: EtcdServer, authority: Authority, stranger: Authority, certificate: str, version: ssl.TLSVersion
) -> None:
    issuer = {"none": None, "of a stranger": stranger, "expired": authority}[certificate]
    not_after = datetime(2020, 1, 1, tzinfo=timezone.utc) if certificate == "expired" else None
    context = authority.context(certificate_of=issuer, not_after=not_after)
    context.maximum_version = version
    failure = await failure_of(particular.endpoint, context)
    assert isinstance(failure.errors[0], ConnectError)
    assert not failure.maybe_applied
    assert "the server wants a client certificate, or refuses ours" in str(failure)


async def test_one_shot_moves_on_from_who_refuses_the_certificate(
    particular: EtcdServer, secure: EtcdServer, authority: Authority, prefix: str
) -> None:
    async with Client(
        [particular.endpoint, secure.endpoint],
        ssl=authority.context(),
        selection=EndpointSelection.PRIORITIZE_LEADER,
    ) as client:
        assert (await client.keys.create(prefix, "v")).action == "create"
        assert client.endpoints[0] == secure.endpoint


async def test_http_to_an_https_port(secure: EtcdServer) -> None:
    failure = await failure_of(secure.endpoint.replace("https", "http"))
    assert isinstance(failure.errors[0], ConnectionLostError)
    assert "it has never answered, does it serve https, or HTTP/2 only?" in str(failure)


async def test_https_to_an_http_port(server: EtcdServer) -> None:
    failure = await failure_of(server.endpoint.replace("http", "https"))
    assert isinstance(failure.errors[0], ConnectError)
    assert not failure.maybe_applied
    assert "TLS handshake, does it serve plain http?" in str(failure)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["http", "nothing"])
async def test_https_to_who_answers(words: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        failure = await failure_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert isinstance(failure.errors[0], ConnectError)
    assert "TLS handshake, does it serve plain http?" in str(failure)


@pytest.mark.parametrize("reason", ["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"])
def test_every_openssl_s_word_for_an_answer_that_is_no_tls(reason: str) -> None:
    error = OSError("it failed")
    error.__cause__ = cause = ssl.SSLError(1, "words")
    cause.reason = "CERTIFICATE_VERIFY_FAILED"
    assert unconnected("https://a:1", error) == "it failed"
    cause.reason = reason
    assert unconnected("https://a:1", error).endswith("does it serve plain http? (words)")
    assert unconnected("http://a:1", error) == "it failed"


async def test_fingerprint_that_does_not_match_was_never_sent(secure: EtcdServer, prefix: str) -> None:
    connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(bytes(32)))
    async with Client(secure.endpoint, connector=connector) as client:
        with pytest.raises(ClusterError) as caught:
            await client.keys.create(prefix, "v")
        assert isinstance(caught.value.errors[0], ConnectError)
        assert not caught.value.maybe_applied
    await connector.close()


@pytest.mark.etcd
async def test_basic_auth_over_tls(authority: Authority, prefix: str) -> None:
    context = authority.context()
    async with EtcdServer(tls=authority.tls) as server:
        async with Client(server.endpoints, ssl=context) as anyone:
            await anyone.auth.users.add("root", "r00t-S3cret-ü")
            await anyone.auth.enable()
        async with Client(server.endpoints, ssl=context, username="root", password="r00t-S3cret-ü") as root:
            await root.auth.roles.remove("guest")
            await use(root, prefix)
        async with Client(server.endpoints, ssl=context, username="root", password="wrong") as wrong:
            with pytest.raises(UnauthorizedError):
                await wrong.keys.get(prefix)


@pytest.mark.etcd
async def test_cluster(authority: Authority, prefix: str) -> None:
    async with (
        EtcdCluster(tls=authority.tls, flags=FAST_CLUSTER) as cluster,
        Client(cluster.endpoints, ssl=authority.context()) as client,
        client.keys.watch(prefix) as watcher,
    ):
        await client.sync()
        assert set(client.endpoints) == set(cluster.endpoints)
        for member in cluster.members[:2]:
            await client.keys.set(prefix, member.name)
            event = await watcher.next()
            assert event.node is not None
            assert event.node.value == member.name
            await member.kill()
            await member.start()
        await client.keys.set(prefix, "last")
        assert node_of(await watcher.next()).value == "last"


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", 1)) == errno.ECONNREFUSED


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.etcd
async def test_ipv6(authority: Authority, prefix: str, scheme: str) -> None:
    endpoint = f"{scheme}://[::1]:{_free_port()}"
    if not has_ipv6():
        assert isinstance((await failure_of(endpoint)).errors[0], ConnectError)
        return
    tls = authority.tls if scheme == "https" else None
    async with (
        EtcdServer(tls=tls, client_urls=[endpoint]) as server,
        Client(f"{endpoint}/", ssl=authority.context()) as client,
    ):
        assert client.endpoints == (endpoint,)
        await use(client, prefix)
        await client.sync()
        assert set(client.endpoints) == {endpoint, server.endpoint}
        assert (await client.health(endpoint)).healthy


async def test_refused_ipv6_is_named() -> None:
    failure = await failure_of("http://[::1]:1")
    assert isinstance(failure.errors[0], ConnectError)


@pytest.fixture(scope="module")
def listening_on_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdServer, Path]]:
    """An etcd that listens on a socket, too, and the socket."""
    server = EtcdServer(client_urls=["unix://sock:0"])
    asyncio.run(server.__aenter__())
    yield server, server._folder / "sock:0"
    asyncio.run(server.__aexit__(None, None, None))


@pytest.fixture
async def on_socket(listening_on_socket: tuple[EtcdServer, Path]) -> AsyncIterator[Client]:
    async with Client(f"unix://{listening_on_socket[1]}") as client:
        yield client


async def test_unix_socket(on_socket: Client, prefix: str) -> None:
    await use(on_socket, prefix)
    await on_socket.keys.delete(prefix, recursive=True)
    assert (await on_socket.health(on_socket.endpoints[0])).healthy


async def test_sync_over_a_unix_socket(
    on_socket: Client, listening_on_socket: tuple[EtcdServer, Path], prefix: str
) -> None:
    given = on_socket.endpoints
    await on_socket.sync()
    assert listening_on_socket[0].endpoint in on_socket.endpoints
    await use(on_socket, prefix)
    assert given != on_socket.endpoints


async def test_unix_socket_next_to_http(listening_on_socket: tuple[EtcdServer, Path], prefix: str) -> None:
    server, path = listening_on_socket
    async with Client(["unix:///nowhere", f"unix://{path}", server.endpoint]) as client:
        for number in range(6):
            await client.keys.create(f"{prefix}/{number}", "v")


async def test_socket_that_is_not_there(tmp_path: Path) -> None:
    failure = await failure_of(f"unix://{tmp_path}/etcd")
    assert isinstance(failure.errors[0], ConnectError)
    assert "No such file or directory" in str(failure)


async def test_environment_s_proxy_is_not_asked_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with (
        Misbehaver(answer(key_event()), path=str(tmp_path / "sock")) as server,
        Client(server.endpoint, trust_env=True) as client,
    ):
        await client.keys.get("/k")
    assert [seen.target for seen in server.seen] == ["/v2/keys/k"]


@pytest.mark.parametrize("endpoint", ["https://", "unix://", "https://a/path", "https://[::1", "https+unix://a"])
def test_no_endpoint(endpoint: str) -> None:
    with pytest.raises(InvalidEndpointError):
        Client(endpoint)
