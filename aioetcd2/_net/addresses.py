"""The addresses of a name: which one a connection has, which ones to avoid, whether the other side is there."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Container
from typing import Any, Protocol

AVOIDED_FOR = 30.0
"""Seconds for which no new connection is made to an address that did not answer, where its name has others."""


class Resolver(Protocol):
    """What looks up the addresses of a name."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]: ...
    async def close(self) -> None: ...


class AvoidingResolver:
    """Looks up names, and leaves out addresses that are to be avoided where there are others.

    Args:
        make: Makes what looks them up, when the first name is looked up.

    Attributes:
        avoided: Addresses, and when each was found to be bad.
    """

    def __init__(self, make: Callable[[], Resolver]) -> None:
        self._make = make
        self._resolver: Resolver | None = None
        self._looking_up: Counter[str] = Counter()
        self._found: dict[str, list[str]] = {}
        self.avoided: dict[str, float] = {}

    def add(self, address: str) -> None:
        """Avoid an address for a while."""
        now = time.monotonic()
        for each in [each for each, since in self.avoided.items() if since + AVOIDED_FOR <= now]:
            del self.avoided[each]
        self.avoided[address] = now

    def forget_others(self, hosts: Container[str]) -> None:
        """Keep nothing of other names than these."""
        self._found = {host: found for host, found in self._found.items() if host in hosts}

    def looks_up(self, host: str) -> bool:
        """Whether a name is being looked up."""
        return host in self._looking_up

    def others(self, host: str, address: str) -> list[str]:
        """The other addresses that a name had when it was looked up last."""
        return [each for each in self._found.get(host, ()) if each != address]

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        """The addresses of a name."""
        if self._resolver is None:
            self._resolver = self._make()
        self._looking_up[host] += 1
        try:
            found = await self._resolver.resolve(host, port, family)
        finally:
            self._looking_up[host] -= 1
            if not self._looking_up[host]:
                del self._looking_up[host]
        self._found[host] = [each["host"] for each in found]
        oldest = time.monotonic() - AVOIDED_FOR
        return [each for each in found if self.avoided.get(each["host"], oldest) <= oldest] or found

    async def close(self) -> None:
        """Let go of what looks up."""
        if self._resolver is not None:
            await self._resolver.close()


def host_of(authority: str) -> str:
    """The host of a host and a port."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def other_address(authority: str, address: str) -> str | None:
    """An address, where the host is a name that may have others; `None` where it is that address."""
    return None if host_of(authority) == address else address


def at_address(authority: str, address: str) -> tuple[str, str]:
    """The authority of one address of a name, and the name, which TLS has to see."""
    host = host_of(authority)
    _, colon, port = authority.partition("]")[2].rpartition(":") if "]" in authority else authority.rpartition(":")
    bare = f"[{address}]" if ":" in address else address
    return (f"{bare}:{port}" if colon else bare), host


def keep_alive(connection: socket.socket | None, seconds: int) -> None:
    """Have TCP probe a connection that is silent for some seconds, and end it where nothing answers twice."""
    if connection is None:
        return
    options = {
        "TCP_KEEPIDLE": seconds,
        "TCP_KEEPALIVE": seconds,  # what macOS calls it
        "TCP_KEEPINTVL": max(1, seconds // 2),
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": 2000 * seconds,
    }
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:  # it is gone already, or is no TCP socket
        return
