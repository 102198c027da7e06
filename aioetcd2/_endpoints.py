"""Which endpoint comes next: order, pin and cool-down. No I/O; the clock and the dice are handed in."""

from __future__ import annotations

import ipaddress
import random
import re
import time
from collections.abc import Callable, Collection, Iterable
from urllib.parse import unquote, urlsplit

from .errors import InvalidEndpointError, NoEndpointsError

COOL_BASE = 0.5
COOL_CAP = 30.0

_SCHEMES = ("http", "https")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


def parse_endpoint(text: str) -> str:
    """The one way in which this library writes an endpoint.

    Raises:
        InvalidEndpointError: It is not `http(s)://host:port`, `host:port` or `unix://path`.
    """
    if not isinstance(text, str):
        raise InvalidEndpointError(f"an endpoint is a str, not {type(text).__name__}: {_without_userinfo(repr(text))}")
    try:
        return _normalize(text)
    except ValueError as error:
        raise InvalidEndpointError(f"not an endpoint: {_without_userinfo(text)!r}: {error}") from None


def _normalize(text: str) -> str:
    if not text.isprintable() or any(map(str.isspace, text)):
        raise ValueError("it has white space or characters that can't be printed")
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme == "unix":
        return f"unix://{_check_socket_path(rest)}"
    if scheme not in _SCHEMES:
        raise ValueError("the scheme must be http, https or unix")
    if "@" in rest:  # before urlsplit(), whose errors show what they hold
        raise ValueError("credentials go into username= and password=")
    parts = urlsplit(f"{scheme}://{rest}")
    if parts.path not in ("", "/") or "?" in rest or "#" in rest:
        raise ValueError("only scheme, host and port are allowed")
    host = parts.hostname
    if not host:
        raise ValueError("the host is missing")
    port = parts.port
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port is missing or 0")
    if parts.netloc.startswith("["):
        if parts.netloc.partition("]")[2][:1] not in ("", ":"):
            raise ValueError("the host is invalid")
        address, _, zone = host.partition("%")
        ipaddress.IPv6Address(address)
        if zone and not _HOST.fullmatch(zone):
            raise ValueError("the zone of the address is invalid")
        host = f"[{host}]"
    elif not _HOST.fullmatch(host) or not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise ValueError("the host is invalid; an international name goes in its xn-- form")
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


def _check_socket_path(path: str) -> str:
    if not path or "?" in path or "#" in path or "\0" in unquote(path):
        raise ValueError("unix:// is followed by the path of a socket, or by its host:port name")
    return path.rstrip("/") or path


def _without_userinfo(text: str) -> str:
    head, at, tail = text.rpartition("@")
    if not at:
        return text
    scheme, separator, _ = head.partition("://")
    return f"{scheme}://***@{tail}" if separator and scheme.isalnum() else f"***@{tail}"


def socket_path(endpoint: str) -> str | None:
    """The path of the socket of a `unix://` endpoint; `None` for any other."""
    return unquote(endpoint[7:]) if endpoint.startswith("unix://") else None


def parse_endpoints(endpoints: str | Iterable[str]) -> list[str]:
    """Several endpoints, each once, in their order.

    Raises:
        InvalidEndpointError: One of them is none.
        NoEndpointsError: There is none at all.
    """
    texts = [endpoints] if isinstance(endpoints, str) else list(endpoints)
    if not texts:
        raise NoEndpointsError("no endpoints were given; one is enough, as in 'http://127.0.0.1:2379'")
    return list(dict.fromkeys(map(parse_endpoint, texts)))


class EndpointPool:
    """The endpoints of one client, in the order in which they are tried.

    A pass begins with the pinned endpoint and goes round; endpoints that failed lately come last.
    Every endpoint is handed out once a pass, however hot. When all have failed that sync() put here, those first given
    follow.

    Args:
        endpoints: Parsed endpoints.
        shuffle: Whether their order is to be random.
        clock: Seconds, monotonic.
        dice: The source of randomness.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        *,
        shuffle: bool = False,
        clock: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        self._shuffle = shuffle
        self._clock = clock
        self._dice = dice or random.Random()
        self._endpoints: list[str] = []
        self._pin = 0
        self._failures: dict[str, tuple[int, float]] = {}
        self._given = list(endpoints)
        self._ranked = False
        self.replace(self._given)

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._endpoints or endpoint in self._given

    @property
    def pinned(self) -> str:
        """Where the next call begins."""
        return self._endpoints[self._pin]

    def order(self) -> tuple[str, ...]:
        """The endpoints as a pass that began now would try them, without those to fall back on."""
        first = self._endpoints[self._pin]
        return (first, *sorted(self._ring(first), key=self._heat))

    def next(self, tried: Collection[str]) -> str | None:
        """The endpoint to try after those; `None` when each had its turn."""
        if not tried:
            return self._endpoints[self._pin]
        waiting = self._ring(*tried)
        if not waiting:  # what sync() found is unreachable from here, perhaps, while what was given is not
            waiting = [endpoint for endpoint in self._given if endpoint not in tried]
        return min(waiting, key=self._heat, default=None)

    def _ring(self, *without: str) -> list[str]:
        """The endpoints in their order from the pinned one on, but for some."""
        ring = self._endpoints[self._pin :] + self._endpoints[: self._pin]
        return [endpoint for endpoint in ring if endpoint not in without]

    def _heat(self, endpoint: str) -> float:
        """How long an endpoint still has to cool down; all cool ones are equal."""
        _, until = self._failures.get(endpoint, (0, 0.0))
        return max(0.0, until - self._clock())

    def failed(self, endpoint: str) -> None:
        """The endpoint did not answer: it cools down, and loses the pin if it had it."""
        if endpoint not in self._endpoints:
            return
        now = self._clock()
        count, until = self._failures.get(endpoint, (0, now))
        if until <= now:  # many calls that fail together are one failure
            self._failures[endpoint] = (count + 1, now + min(COOL_BASE * 2.0 ** min(count, 16), COOL_CAP))
        if endpoint == self.pinned and (following := self.next([endpoint])) in self._endpoints:
            self.pin(following)

    def answered(self, endpoint: str) -> None:
        """The endpoint answered: it is healthy."""
        if self._failures:
            self._failures.pop(endpoint, None)

    def pin(self, endpoint: str) -> None:
        """Begin with this endpoint from now on, if it is one of ours.

        If it is only one of those first given, they take the place of what sync() found.
        """
        if endpoint not in self._endpoints and endpoint in self._given:
            self.replace(self._given)
        if endpoint in self._endpoints:
            self._pin = self._endpoints.index(endpoint)

    def give(self, endpoints: Iterable[str], *, ranked: bool = False) -> None:
        """Use other endpoints from now on, and fall back on these.

        Args:
            endpoints: Parsed endpoints.
            ranked: Whether the best comes first, so that they are never shuffled, and the first is the next.
        """
        self._given = list(endpoints)
        self._ranked = ranked
        before = self._endpoints
        self.replace(self._given)
        if self._endpoints is not before or self._endpoints == self._given:
            self._pin = 0

    def replace(self, endpoints: Iterable[str]) -> None:
        """Use other endpoints from now on; the pinned one stays pinned if it is among them."""
        fresh = list(endpoints)
        shuffle = self._shuffle and not (self._ranked and fresh == self._given)
        if fresh == self._endpoints or (shuffle and set(fresh) == set(self._endpoints)):
            return
        pinned = self.pinned if self._endpoints else None
        if shuffle:
            self._dice.shuffle(fresh)
        self._endpoints = fresh
        self._failures = {endpoint: state for endpoint, state in self._failures.items() if endpoint in fresh}
        self._pin = fresh.index(pinned) if pinned in fresh else 0
