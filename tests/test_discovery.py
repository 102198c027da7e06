"""Discovery by DNS SRV, asked of a real name server on loopback."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.rcode
import dns.rrset
import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    DiscoveryError,
    EndpointSelection,
    InvalidEndpointError,
    NoEndpointsError,
    SRVDiscoverer,
)
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .misbehaver import Misbehaver, answer, close, key_event

SECURE = "_etcd-client-ssl._tcp.example.com."
PLAIN = "_etcd-client._tcp.example.com."
DEAD = "http://127.0.0.1:1"

ORDER = [f"http://m{i}.example.com:2379" for i in range(8)]
RANKED = [f"{i} 0 2379 m{i}.example.com." for i in reversed(range(8))]

SILENT = dns.rcode.Rcode.make(0xFFF)


class NameServer(asyncio.DatagramProtocol):
    """Answers SRV queries from `zone`: records, or the code of a failure, or not at all; `asked` holds the names."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str] | dns.rcode.Rcode] = {}
        self.asked: list[str] = []
        self.resolver = dns.asyncresolver.Resolver(configure=False)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        assert self.transport is not None
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        self.asked.append(name)
        found = self.zone.get(name, dns.rcode.NXDOMAIN)
        if found == SILENT:
            return
        response = dns.message.make_response(query)
        if isinstance(found, dns.rcode.Rcode):
            response.set_rcode(found)
        elif found:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *found))
        self.transport.sendto(response.to_wire(), address)

    async def __aenter__(self) -> NameServer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.resolver.nameservers = ["127.0.0.1"]
        self.resolver.port = transport.get_extra_info("sockname")[1]
        self.resolver.lifetime = 30.0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.transport is not None
        self.transport.close()

    async def discover(self, domain: str = "example.com") -> list[str]:
        return await SRVDiscoverer(self.resolver).discover(domain)


class Listed:
    """A discoverer that finds what it was told: one thing after the other, the last again and again."""

    def __init__(self, *finds: list[str] | Exception) -> None:
        self.finds = list(finds)
        self.asked: list[str] = []

    async def discover(self, domain: str) -> list[str]:
        self.asked.append(domain)
        found = self.finds.pop(0) if len(self.finds) > 1 else self.finds[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with NameServer() as names:
        yield names


def local(endpoint: str, priority: int = 0) -> str:
    """The record of an endpoint of this machine."""
    return f"{priority} 0 {endpoint.rpartition(':')[2]} localhost."


async def test_by_priority(names: NameServer) -> None:
    names.zone[PLAIN] = RANKED
    assert await names.discover() == ORDER


async def test_ssl_before_plain(names: NameServer) -> None:
    names.zone = {SECURE: ["9 0 2379 a.example.com.", "8 0 2380 b.example.com."], PLAIN: ["1 0 80 a.example.com."]}
    assert await names.discover() == [
        "https://b.example.com:2380",
        "https://a.example.com:2379",
        "http://a.example.com:80",
    ]
    assert names.asked == [SECURE, PLAIN]


@pytest.mark.slow
async def test_by_weight_within_a_priority(names: NameServer) -> None:
    weights = {"a": 60, "b": 30, "c": 10, "d": 0}
    names.zone[PLAIN] = [f"5 {weight} 1 {host}." for host, weight in weights.items()] + ["4 0 1 first."]
    discoverer = SRVDiscoverer(names.resolver)
    discoverer._rng = random.Random(2782)
    rounds = 400
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for _ in range(rounds):
        best, *rest = [endpoint[7:-2] for endpoint in await discoverer.discover("example.com")]
        assert best == "first"
        assert sorted(rest) == ["a", "b", "c", "d"]
        first[rest[0]] += 1
        second[rest[1]] += rest[0] == "a"
    for host, weight in weights.items():
        assert first[host] / rounds == pytest.approx(weight / 100, abs=0.08)
    assert second["b"] / first["a"] == pytest.approx(0.75, abs=0.1)


async def test_all_weights_zero_is_no_order(names: NameServer) -> None:
    names.zone[PLAIN] = [f"0 0 1 {host}." for host in "abc"]
    discoverer = SRVDiscoverer(names.resolver)
    discoverer._rng = random.Random(2782)
    assert {(await discoverer.discover("example.com"))[0] for _ in range(40)} == {
        "http://a:1",
        "http://b:1",
        "http://c:1",
    }


@pytest.mark.parametrize("domain", ["example.com", "example.com.", "EXAMPLE.com"])
async def test_domain(names: NameServer, domain: str) -> None:
    names.zone = {PLAIN: ["0 0 2379 a."], PLAIN.replace("example", "EXAMPLE"): ["0 0 2379 a."]}
    assert await names.discover(domain) == ["http://a:2379"]


@pytest.mark.parametrize(
    "useless",
    [["0 0 0 ."], ["0 0 2379 ."], ["0 0 0 a."], [r"0 0 2379 a\032b."], [], dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL],
    ids=["not here", "not here either", "port 0", "a space", "no records", "no such name", "failure"],
)
async def test_one_of_them_is_enough(names: NameServer, useless: list[str] | dns.rcode.Rcode) -> None:
    names.zone = {SECURE: useless, PLAIN: ["0 0 2379 a.example.com."]}
    assert await names.discover() == ["http://a.example.com:2379"]
    names.zone = {SECURE: ["0 0 2379 a.example.com."], PLAIN: useless}
    assert await names.discover() == ["https://a.example.com:2379"]


@pytest.mark.parametrize(
    ("secure", "plain", "causes"),
    [
        (dns.rcode.NXDOMAIN, dns.rcode.NXDOMAIN, ["does not exist", "does not exist"]),
        (dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN, ["SERVFAIL", "does not exist"]),
        (dns.rcode.REFUSED, dns.rcode.SERVFAIL, ["REFUSED", "SERVFAIL"]),
        (["0 0 0 ."], [], ["no record with a usable target", "does not contain an answer"]),
    ],
)
async def test_none_at_all(
    names: NameServer, secure: list[str] | dns.rcode.Rcode, plain: list[str] | dns.rcode.Rcode, causes: list[str]
) -> None:
    names.zone = {SECURE: secure, PLAIN: plain}
    for call in (names.discover(), Client.from_srv("example.com", discoverer=SRVDiscoverer(names.resolver))):
        with pytest.raises(DiscoveryError) as caught:
            await call
        text = str(caught.value)
        assert text.startswith("no etcd found for 'example.com': _etcd-client-ssl._tcp: ")
        of_secure, of_plain = text.split("; _etcd-client._tcp: ")
        assert causes[0] in of_secure
        assert causes[1] in of_plain


@pytest.mark.slow
async def test_silent_name_server_costs_its_lifetime(names: NameServer) -> None:
    names.zone = {SECURE: SILENT, PLAIN: SILENT}
    names.resolver.lifetime = 0.2
    async with timeout(20):
        with pytest.raises(DiscoveryError, match=r"timed out.*timed out"):
            await names.discover()


async def test_cancelled_while_the_name_server_is_silent(names: NameServer) -> None:
    names.zone = {SECURE: SILENT}
    discovering = asyncio.create_task(names.discover())
    while SECURE not in names.asked:
        await asyncio.sleep(0.005)
    discovering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await discovering
    assert sorted(names.asked) == sorted([SECURE, PLAIN])  # side by side


@pytest.mark.parametrize(
    "domain", ["", ".", "..", "a b.com", " example.com", "example.com\n", "\x00", 7, None, b"a.com"]
)
async def test_no_domain(names: NameServer, domain: Any) -> None:
    with pytest.raises(DiscoveryError, match="not a domain"):
        await names.discover(domain)
    assert names.asked == []


@pytest.mark.parametrize(
    ("domain", "cause"),
    [
        (f"{'a' * 64}.com", "label"),
        (".".join(["a" * 60] * 5), "name is > 255"),
        ("a..com", "label is empty"),
        (f"{'ü' * 64}.com", "label"),
        ("a\udcff.com", ""),
    ],
)
async def test_impossible_domain(names: NameServer, domain: str, cause: str) -> None:
    with pytest.raises(DiscoveryError, match=f"(?i){cause}"):
        await names.discover(domain)
    assert names.asked == []


async def test_no_resolver_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfigured() -> dns.asyncresolver.Resolver:
        raise dns.resolver.NoResolverConfiguration("no /etc/resolv.conf")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(dns.asyncresolver, "get_default_resolver", unconfigured)
    with pytest.raises(DiscoveryError, match=r"resolv\.conf"):
        await SRVDiscoverer().discover("example.com")


async def test_resolver_of_the_system_is_the_default(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.asyncresolver, "get_default_resolver", lambda: names.resolver)
    names.zone[PLAIN] = ["0 0 2379 a."]
    async with await Client.from_srv("example.com") as client:
        assert client.endpoints == ("http://a:2379",)


@pytest.mark.parametrize("missing", ["dns", "dns.asyncresolver"])
async def test_without_dnspython(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (SRVDiscoverer().discover("example.com"), Client.from_srv("example.com")):
        with pytest.raises(ModuleNotFoundError, match=r"needs dnspython.*pip install 'aioetcd2\[srv\]'"):
            await call


async def test_real_etcd(server: EtcdServer, names: NameServer, prefix: str) -> None:
    names.zone[PLAIN] = [local(server.endpoint)]
    async with await Client.from_srv("example.com", discoverer=SRVDiscoverer(names.resolver)) as client:
        assert client.endpoints == (server.endpoint.replace("127.0.0.1", "localhost"),)
        await client.keys.set(prefix, "found")
        assert node_of(await client.keys.get(prefix)).value == "found"
        async with client.keys.watch(prefix) as watcher:
            await client.keys.set(prefix, "seen")
            assert node_of(await watcher.next()).value == "seen"


async def test_discoverer_of_the_user(server: EtcdServer, prefix: str) -> None:
    listed = Listed([server.endpoint, f"{server.endpoint}/"])
    async with await Client.from_srv("anything at all", discoverer=listed, quorum=True) as client:
        assert client.endpoints == server.endpoints
        await client.keys.set(prefix, "found")
        await client.keys.get(prefix)
    assert listed.asked == ["anything at all"]


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([], NoEndpointsError),
        (["ftp://a"], InvalidEndpointError),
        (DiscoveryError("none"), DiscoveryError),
        (OSError("broken"), OSError),
    ],
)
async def test_discoverer_without_a_find(found: list[str] | Exception, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Client.from_srv("example.com", discoverer=Listed(found))


@pytest.mark.parametrize("selection", EndpointSelection)
async def test_priorities_are_the_order_of_the_client(names: NameServer, selection: EndpointSelection) -> None:
    names.zone[PLAIN] = RANKED
    discoverer = SRVDiscoverer(names.resolver)
    async with await Client.from_srv("example.com", discoverer=discoverer, selection=selection) as client:
        assert client.endpoints == tuple(ORDER)


async def test_lower_priority_is_tried_when_the_higher_failed(names: NameServer) -> None:
    async with Misbehaver(answer(key_event())) as second, Misbehaver(answer(key_event())) as third:
        names.zone[PLAIN] = [local(third.endpoint, 3), local(second.endpoint, 2), local(DEAD, 1)]
        async with await Client.from_srv("example.com", discoverer=SRVDiscoverer(names.resolver)) as client:
            await client.keys.get("/k")
        assert (len(second.seen), len(third.seen)) == (1, 0)
    assert names.asked == [SECURE, PLAIN]


async def test_sync_to_the_same_endpoints_keeps_their_order(server: EtcdServer) -> None:
    listed = Listed([server.endpoint])
    async with await Client.from_srv("example.com", discoverer=listed) as client:
        await client.sync()
        assert client.endpoints == server.endpoints


@pytest.mark.parametrize("call", ["get", "set", "create", "delete"])
async def test_found_anew_when_all_have_failed(server: EtcdServer, names: NameServer, prefix: str, call: str) -> None:
    names.zone[PLAIN] = [local(DEAD), local("http://127.0.0.1:2", 1)]
    async with await Client.from_srv("example.com", discoverer=SRVDiscoverer(names.resolver)) as client:
        names.zone[PLAIN] = [local(DEAD), local(server.endpoint, 1)]
        if call in ("get", "delete"):
            async with Client(server.endpoint) as direct:
                await direct.keys.set(prefix, "v")
        response = await getattr(client.keys, call)(prefix, *(["v"] if call in ("set", "create") else []))
        assert response.node.key == prefix
        assert names.asked == [SECURE, PLAIN] * 2
        assert client.endpoints[0] == server.endpoint.replace("127.0.0.1", "localhost")
        await client.keys.set(prefix, "w")
        assert names.asked == [SECURE, PLAIN] * 2


async def test_found_anew_in_their_order() -> None:
    async with Misbehaver(answer(key_event())) as server:
        listed = Listed([DEAD], [server.endpoint, DEAD, *ORDER])
        async with await Client.from_srv("example.com", discoverer=listed) as client:
            await client.keys.get("/k")
            assert client.endpoints == (server.endpoint, *ORDER, DEAD)


async def test_what_was_sent_once_is_not_sent_to_what_is_found_anew() -> None:
    async with Misbehaver(close) as server, Misbehaver(answer(key_event())) as other:
        listed = Listed([server.endpoint], [other.endpoint])
        async with await Client.from_srv("example.com", discoverer=listed) as client:
            with pytest.raises(ClusterError) as caught:
                await client.keys.create("/k", "v")
            assert caught.value.maybe_applied
            assert (len(server.seen), len(other.seen), len(listed.asked)) == (1, 0, 1)
            await client.keys.get("/k")
            assert len(other.seen) == 1


@pytest.mark.parametrize("found", [[DEAD], [], ["ftp://a"], DiscoveryError("none"), OSError("broken")], ids=repr)
async def test_nothing_found_anew_leaves_the_errors(found: list[str] | Exception) -> None:
    async with await Client.from_srv("example.com", discoverer=Listed([DEAD], found)) as client:
        with pytest.raises(ClusterError, match=DEAD) as caught:
            await client.keys.get("/k")
        assert len(caught.value.errors) == 1
        assert client.endpoints == (DEAD,)


async def test_failed_discovery_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with await Client.from_srv("example.com", discoverer=Listed([DEAD], OSError("broken"))) as client:
        with pytest.raises(ClusterError):
            await client.keys.get("/k")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["every endpoint has failed, and so has the search for others: broken"]


async def test_endpoints_set_by_hand_are_left_alone(server: EtcdServer) -> None:
    listed = Listed(ORDER, [server.endpoint])
    async with await Client.from_srv("example.com", discoverer=listed) as client:
        client.set_endpoints(DEAD)
        with pytest.raises(ClusterError):
            await client.keys.get("/")
        assert client.endpoints == (DEAD,)
    assert len(listed.asked) == 1


@pytest.mark.parametrize("then", ["close", "set_endpoints", "cancel"])
async def test_overtaken_while_finding(then: str, server: EtcdServer) -> None:
    class Slow(Listed):
        found = asyncio.Event()

        async def discover(self, domain: str) -> list[str]:
            if self.asked:
                self.asked.append(domain)
                await self.found.wait()
            return await super().discover(domain)

    slow = Slow([DEAD], ["http://127.0.0.1:2"])
    async with await Client.from_srv("example.com", discoverer=slow) as client:
        call = asyncio.create_task(client.keys.get("/"))
        while len(slow.asked) < 2:
            await asyncio.sleep(0.005)
        if then == "close":
            await client.close()
        elif then == "cancel":
            call.cancel()
        else:
            client.set_endpoints(server.endpoint)
        slow.found.set()
        expected = {"close": ClientClosedError, "cancel": asyncio.CancelledError, "set_endpoints": ClusterError}[then]
        with pytest.raises(expected):
            await call
        if then == "set_endpoints":
            assert client.endpoints == server.endpoints
            await client.keys.get("/")


async def test_watch_goes_on_where_the_cluster_has_moved(server: EtcdServer, prefix: str) -> None:
    async with Misbehaver(answer({}, status=503, index=None, cluster=None)) as gone:
        listed = Listed([gone.endpoint], [server.endpoint])
        async with await Client.from_srv("example.com", discoverer=listed) as client:
            async with client.keys.watch(prefix) as watcher:
                await client.keys.set(prefix, "seen")
                assert node_of(await watcher.next()).value == "seen"
            assert client.endpoints == server.endpoints
