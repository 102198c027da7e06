"""The addresses of a name, and probes of TCP's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from aioetcd2._net import addresses
from aioetcd2._net.addresses import AVOIDED_FOR, AvoidingResolver, at_address, host_of, keep_alive, other_address


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("etcd.example:2379", "etcd.example"),
        ("etcd.example", "etcd.example"),
        ("10.0.0.1:2379", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fd00::1]:2379", "fd00::1"),
        ("[::1]", "::1"),
    ],
)
def test_host_of_an_authority(authority: str, host: str) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    ("authority", "address", "other"),
    [
        ("etcd.example:2379", "10.0.0.1", "10.0.0.1"),
        ("etcd.example", "fd00::1", "fd00::1"),
        ("10.0.0.1:2379", "10.0.0.1", None),
        ("10.0.0.1", "10.0.0.1", None),
        ("[fd00::1]:2379", "fd00::1", None),
        ("[::1]", "::1", None),
    ],
)
def test_address_of_a_name_that_may_have_others(authority: str, address: str, other: str | None) -> None:
    assert other_address(authority, address) == other


@pytest.mark.parametrize(
    ("authority", "address", "there", "name"),
    [
        ("etcd.example:2379", "10.0.0.1", "10.0.0.1:2379", "etcd.example"),
        ("etcd.example", "10.0.0.1", "10.0.0.1", "etcd.example"),
        ("etcd.example:2379", "fd00::1", "[fd00::1]:2379", "etcd.example"),
        ("etcd.example", "fd00::1", "[fd00::1]", "etcd.example"),
        ("[fd00::1]:2379", "fd00::2", "[fd00::2]:2379", "fd00::1"),
        ("[fd00::1]", "10.0.0.1", "10.0.0.1", "fd00::1"),
        ("10.0.0.1:1", "10.0.0.2", "10.0.0.2:1", "10.0.0.1"),
    ],
)
def test_authority_of_one_address(authority: str, address: str, there: str, name: str) -> None:
    assert at_address(authority, address) == (there, name)


class Names:
    """Looks up what it was told."""

    def __init__(self, *found: str) -> None:
        self.found = found
        self.asked: list[tuple[str, int, Any]] = []
        self.closed = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        self.asked.append((host, port, family))
        return [{"host": each} for each in self.found]

    async def close(self) -> None:
        self.closed += 1


async def hosts(resolver: AvoidingResolver) -> list[str]:
    return [each["host"] for each in await resolver.resolve("etcd.example", 2379, socket.AF_UNSPEC)]


async def test_an_address_is_avoided_for_a_while_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(addresses, "time", SimpleNamespace(monotonic=lambda: now))
    names = Names("10.0.0.1", "10.0.0.2", "fd00::1")
    resolver = AvoidingResolver(lambda: names)
    assert await hosts(resolver) == list(names.found)
    assert names.asked == [("etcd.example", 2379, socket.AF_UNSPEC)]
    resolver.add("10.0.0.1")
    assert await hosts(resolver) == ["10.0.0.2", "fd00::1"]
    now += AVOIDED_FOR / 2
    resolver.add("fd00::1")
    assert await hosts(resolver) == ["10.0.0.2"]
    now += AVOIDED_FOR / 2
    assert await hosts(resolver) == ["10.0.0.1", "10.0.0.2"]
    resolver.add("10.0.0.1")
    resolver.add("10.0.0.2")
    assert await hosts(resolver) == list(names.found)  # there is no other


async def test_names_are_looked_up_by_what_is_made_for_the_first() -> None:
    made: list[Names] = []

    def make() -> Names:
        made.append(Names("10.0.0.1"))
        return made[-1]

    resolver = AvoidingResolver(make)
    await resolver.close()
    assert not made
    for _ in range(2):
        await hosts(resolver)
    await resolver.close()
    assert [each.closed for each in made] == [1]


# --- probes of TCP's own --------------------------------------------------------------------------------------------


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
        yield made


def option(connection: socket.socket, name: str) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux names them all")
@pytest.mark.parametrize(("seconds", "interval"), [(10, 5), (1, 1), (7, 3)])
async def test_a_real_connection_is_probed(seconds: int, interval: int, connection: socket.socket) -> None:
    keep_alive(connection, seconds)
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    found = [option(connection, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")]
    assert found == [seconds, interval, 2, 2000 * seconds]


async def test_what_is_no_tcp_is_left_as_it_is(connection: socket.socket) -> None:
    keep_alive(None, 10)
    one, other = socket.socketpair()
    with one, other:
        keep_alive(one, 10)
        one.send(b"x")
        assert other.recv(1) == b"x"
    connection.close()
    keep_alive(connection, 10)


async def test_a_transport_of_asyncio_has_such_a_socket(connection: socket.socket) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        keep_alive(writer.get_extra_info("socket"), 10)
        assert writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        writer.close()
        await writer.wait_closed()
