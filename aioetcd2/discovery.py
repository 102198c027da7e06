"""Discovery of endpoints by DNS SRV."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from ._endpoints import parse_endpoint
from .errors import DiscoveryError, InvalidEndpointError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.rdtypes.IN.SRV import SRV

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


class SRVDiscoverer:
    """Finds endpoints by DNS SRV: those of `_etcd-client-ssl._tcp` as https, then those of `_etcd-client._tcp` as http.

    Needs the extra `srv` (`pip install "aioetcd2[srv]"`), which brings dnspython.

    Args:
        resolver: A resolver of dnspython; `None` = as the system is configured.

    Example:
        >>> await SRVDiscoverer().discover("example.com")
        ['https://etcd0.example.com:2379', 'https://etcd1.example.com:2379']
    """

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver
        self._dice = random.Random()

    async def discover(self, domain: str) -> list[str]:
        """The endpoints for a domain: by priority, and within one in an order drawn by weight (RFC 2782).

        Args:
            domain: The domain, as `example.com`.

        Raises:
            DiscoveryError: Neither service has usable records; the message holds both causes.
            ModuleNotFoundError: dnspython is missing.
        """
        try:
            import dns.asyncresolver
            import dns.exception
            import dns.name
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}: SRV discovery needs dnspython, install it with  pip install 'aioetcd2[srv]'"
            ) from error
        if not isinstance(domain, str) or not domain.strip(".") or not domain.isprintable() or " " in domain:
            raise DiscoveryError(f"not a domain: {domain!r}")
        try:
            resolver = self._resolver or dns.asyncresolver.get_default_resolver()
        except (dns.exception.DNSException, OSError) as error:
            raise DiscoveryError(f"no resolver is configured: {error}") from error
        found: list[str] = []
        causes: list[str] = []
        for service, scheme in SERVICES:
            try:
                name = dns.name.from_text(f"{service}.{domain.rstrip('.')}.")
                answer = await resolver.resolve(name, "SRV")
            except (dns.exception.DNSException, UnicodeError, OSError) as error:
                causes.append(f"{service}: {error}")
                continue
            endpoints = list(self._endpoints(self._ordered(answer), scheme))
            if not endpoints:
                causes.append(f"{service}: no record with a usable target")
            found += endpoints
        if not found:
            raise DiscoveryError(f"no etcd found for {domain!r}: {'; '.join(causes)}")
        return list(dict.fromkeys(found))

    def _ordered(self, records: Iterable[SRV]) -> list[SRV]:
        by_priority: dict[int, list[SRV]] = {}
        for record in records:
            by_priority.setdefault(record.priority, []).append(record)
        ordered: list[SRV] = []
        for priority in sorted(by_priority):
            waiting = sorted(by_priority[priority], key=lambda record: (record.weight, str(record.target), record.port))
            while waiting:
                weights = [record.weight or 0.001 for record in waiting]
                index = self._dice.choices(range(len(waiting)), weights)[0]
                ordered.append(waiting.pop(index))
        return ordered

    @staticmethod
    def _endpoints(records: Iterable[SRV], scheme: str) -> Iterable[str]:
        for record in records:
            host = record.target.to_text(omit_final_dot=True)
            if host:  # "." means: decidedly not here
                try:
                    yield parse_endpoint(f"{scheme}://{host}:{record.port}")
                except InvalidEndpointError:
                    continue
