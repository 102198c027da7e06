"""Discovery of endpoints by DNS SRV."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any, Protocol

from ._net.endpoints import parse_endpoint
from .errors import DiscoveryError, InvalidEndpointError

__all__ = ["Discoverer", "SRVDiscoverer"]

SERVICES = (("_etcd-client-ssl._tcp", "https"), ("_etcd-client._tcp", "http"))


class Discoverer(Protocol):
    """Any object that finds the endpoints of a cluster by the name of a domain."""

    async def discover(self, domain: str) -> list[str]:
        """The endpoints for a domain, the best first.

        Args:
            domain: The domain.

        Raises:
            DiscoveryError: There are none.
        """
        ...


class _Resolver(Protocol):
    """What looks up DNS records, as `dns.asyncresolver.Resolver` does."""

    async def resolve(self, name: str, kind: str, /) -> Iterable[Any]:
        """The records of a kind: for `SRV` with `priority`, `weight`, `port` and `target`.

        Args:
            name: The name, with a final dot.
            kind: The kind of records.
        """
        ...


class SRVDiscoverer:
    """Finds endpoints by DNS SRV: those of `_etcd-client-ssl._tcp` as https, then those of `_etcd-client._tcp` as http.

    Needs the extra `srv` (`pip install "aioetcd2[srv]"`), which brings dnspython.

    Args:
        resolver (dns.asyncresolver.Resolver | None): A resolver of dnspython, or an object of yours with
            `await resolve(name, "SRV")`, which gives records with a `priority`, `weight`, `port` and `target`.
            `None` = as the system is configured.

    Examples:
        >>> await SRVDiscoverer().discover("example.com")
        ['https://etcd0.example.com:2379', 'https://etcd1.example.com:2379']
    """

    def __init__(self, resolver: _Resolver | None = None) -> None:
        self._resolver = resolver
        self._rng = random.Random()

    async def discover(self, domain: str) -> list[str]:
        """The endpoints for a domain: by priority, and within one in an order drawn by weight (RFC 2782).

        Args:
            domain: The domain, as `example.com`.

        Raises:
            DiscoveryError: Neither service has usable records; the message holds both causes.
            ModuleNotFoundError: dnspython is missing.
        """
        if not isinstance(domain, str) or not domain.strip(".") or not domain.isprintable() or " " in domain:
            raise DiscoveryError(f"not a domain: {domain!r}")
        resolver = self._resolver or _system_resolver()
        found: list[str] = []
        causes: list[str] = []
        names = [f"{service}.{domain.rstrip('.')}." for service, _ in SERVICES]
        lookups = (resolver.resolve(name, "SRV") for name in names)
        answers = await asyncio.gather(*lookups, return_exceptions=True)  # one that is slow keeps no other waiting
        for (service, scheme), answer in zip(SERVICES, answers, strict=True):
            if isinstance(answer, BaseException):
                causes.append(f"{service}: {answer}")
                continue
            endpoints = list(self._endpoints(self._ordered(answer), scheme))
            if not endpoints:
                causes.append(f"{service}: no record with a usable target")
            found += endpoints
        if not found:
            raise DiscoveryError(f"no etcd found for {domain!r}: {'; '.join(causes)}")
        return list(dict.fromkeys(found))

    def _ordered(self, records: Iterable[Any]) -> list[Any]:
        by_priority: dict[int, list[Any]] = {}
        for record in records:
            by_priority.setdefault(record.priority, []).append(record)
        ordered: list[Any] = []
        for priority in sorted(by_priority):
            waiting = sorted(by_priority[priority], key=lambda record: (record.weight, str(record.target), record.port))
            while waiting:
                weights = [record.weight or 0.001 for record in waiting]
                index = self._rng.choices(range(len(waiting)), weights)[0]
                ordered.append(waiting.pop(index))
        return ordered

    @staticmethod
    def _endpoints(records: Iterable[Any], scheme: str) -> Iterable[str]:
        for record in records:
            host = str(record.target).rstrip(".")
            if host:  # "." means: decidedly not here
                try:
                    yield parse_endpoint(f"{scheme}://{host}:{record.port}")
                except InvalidEndpointError:
                    continue


def _system_resolver() -> _Resolver:
    try:
        import dns.asyncresolver
        import dns.exception
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: SRV discovery needs dnspython, install it with  pip install 'aioetcd2[srv]'"
        ) from error
    try:
        return dns.asyncresolver.get_default_resolver()
    except (dns.exception.DNSException, OSError) as error:
        raise DiscoveryError(f"no resolver is configured: {error}") from error
