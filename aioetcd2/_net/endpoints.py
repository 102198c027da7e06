"""Which endpoint comes next: order, pin and cool-down. No I/O; the clock and the rng are handed in."""

from __future__ import annotations

import ipaddress
import random
import re
import time
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heapreplace
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from ..errors import InvalidEndpointError, NoEndpointsError

COOL_BASE = 0.5
COOL_CAP = 30.0

_SCHEMES = ("http", "https")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


def parse_endpoint(text: str) -> str:
    """Check an endpoint, and write it as this library does: scheme and host in lower case, no slash at its end.

    Raises:
        InvalidEndpointError: It is not `http(s)://host:port`, `host:port` or `unix://path`.
    """
    if not isinstance(text, str):
        raise InvalidEndpointError(_no_text(text))
    try:
        return _normalize(text)
    except ValueError as error:
        raise InvalidEndpointError(f"not an endpoint: {_without_userinfo(text)!r}: {error}") from None


def _no_text(value: object) -> str:
    """Why something else than text is no endpoint."""
    port = value if type(value) is int else 2379
    shown = _without_userinfo(repr(value))
    return f"an endpoint is a str, as 'http://127.0.0.1:{port}', not {type(value).__name__}: {shown}"


def _normalize(text: str) -> str:
    several = [part for part in re.split(r"[,;\s]+", text) if part]
    if len(several) > 1 and "@" not in text and all(":" in part for part in several):
        raise ValueError(f"for several endpoints give a list: {several}")
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
    host = _check_host(parts)
    port = parts.port
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port is missing or 0")
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


def _check_host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError("the host is missing")
    if parts.netloc.startswith("["):
        if parts.netloc.partition("]")[2][:1] not in ("", ":"):
            raise ValueError("the host is invalid")
        address, _, zone = host.partition("%")
        ipaddress.IPv6Address(address)
        if zone and not _HOST.fullmatch(zone):
            raise ValueError("the zone of the address is invalid")
        return f"[{host}]"
    if not _HOST.fullmatch(host) or not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise ValueError("the host is invalid; an international name goes in its xn-- form")
    return host


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
    if isinstance(endpoints, (str, bytes)) or not isinstance(endpoints, Iterable):
        return [parse_endpoint(endpoints)]
    texts = list(endpoints)
    if not texts:
        raise NoEndpointsError("no endpoints were given; one is enough, as in 'http://127.0.0.1:2379'")
    return list(dict.fromkeys(map(parse_endpoint, texts)))


class EndpointPool:
    """The endpoints of one client, in the order in which they are tried.

    A pass begins with the pinned endpoint, and goes on in their order; endpoints that failed lately come last. Each is
    handed out once in a pass, also while it cools down: the pool never refuses. `sync()` puts the cluster's members
    in the place of the endpoints first given; when all of them have failed, a pass goes on with the latter.

    Args:
        endpoints: Parsed endpoints.
        shuffle: Whether their order is to be random.
        clock: Seconds, monotonic.
        rng: The source of randomness.

    Attributes:
        failing: Which endpoints have not answered since they failed: how often in a row, and until when they cool down.
        generation: How often the set of endpoints has changed.
        on_change: Called when it has.
        on_pin: Called with the endpoint that has got the pin, and whether that is because another one failed.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        *,
        shuffle: bool = False,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._shuffle = shuffle
        self._clock = clock
        self._rng = rng or random.Random()
        self._endpoints: list[str] = []
        self._places: dict[str, int] = {}
        self._pin = 0
        self.failing: dict[str, tuple[int, float]] = {}
        self._given = list(endpoints)
        self._ranked = False
        self.generation = 0
        self.on_change: Callable[[], None] | None = None
        self.on_pin: Callable[[str, bool], None] | None = None
        self.replace(self._given)

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._places or endpoint in self._given

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def pinned(self) -> str:
        """Where the next call begins."""
        return self._endpoints[self._pin]

    def order(self) -> tuple[str, ...]:
        """The endpoints as a pass that began now would try them, without those to fall back on."""
        first, *others = self.ring()
        return (first, *sorted(others, key=self.cools_at))

    def ring(self) -> list[str]:
        """The endpoints in their order, beginning with the pinned one."""
        return self._endpoints[self._pin :] + self._endpoints[: self._pin]

    def fallbacks(self) -> list[str]:
        """The endpoints first given, for when all that sync() put here have failed."""
        return self._given

    def cools_at(self, endpoint: str) -> float:
        """When an endpoint will have cooled down, by the clock; 0 where it is cool."""
        failure = self.failing.get(endpoint)
        return failure[1] if failure is not None and failure[1] > self._clock() else 0.0

    def failed(self, endpoint: str, following: str | None = None) -> None:
        """The endpoint did not answer: it cools down, and loses the pin if it had it.

        Args:
            endpoint: The endpoint.
            following: Which one gets the pin, if it is one of ours; otherwise the one that is cool first does.
        """
        if endpoint not in self._places:
            return
        now = self._clock()
        count, until = self.failing.get(endpoint, (0, now))
        if until <= now:  # many calls that fail together are one failure
            self.failing[endpoint] = (count + 1, now + min(COOL_BASE * 2.0 ** min(count, 16), COOL_CAP))
        if endpoint == self.pinned:
            if following not in self._places:
                following = min(self.ring()[1:], key=self.cools_at, default=endpoint)
            self._move_pin(self._places[following], because_of_a_failure=True)

    def answered(self, endpoint: str) -> None:
        """The endpoint answered: it is healthy."""
        self.failing.pop(endpoint, None)

    def pin(self, endpoint: str) -> None:
        """Begin with this endpoint from now on, if it is one of ours.

        If it is only one of those first given, they take the place of what sync() found.
        """
        if endpoint not in self._places and endpoint in self._given:
            self.replace(self._given)
        if endpoint in self._places:
            self._move_pin(self._places[endpoint])

    def give(self, endpoints: Iterable[str], *, ranked: bool = False) -> None:
        """Use other endpoints from now on, and fall back on these.

        Args:
            endpoints: Parsed endpoints.
            ranked: Whether the best comes first, so that they are never shuffled, and the first gets the pin.
        """
        self._given = list(endpoints)
        self._ranked = ranked
        self.generation += 1
        before = self._endpoints
        self.replace(self._given)
        if self._endpoints is not before or self._endpoints == self._given:
            self._move_pin(0)

    def replace(self, endpoints: Iterable[str]) -> None:
        """Use other endpoints from now on; the pinned one stays pinned if it is among them."""
        fresh = list(endpoints)
        shuffle = self._shuffle and not (self._ranked and fresh == self._given)
        if fresh == self._endpoints or (shuffle and set(fresh) == set(self._endpoints)):
            return
        pinned = self.pinned if self._endpoints else None
        if shuffle:
            self._rng.shuffle(fresh)
        self._endpoints = fresh
        self._places = {endpoint: place for place, endpoint in enumerate(fresh)}
        self.failing = {endpoint: state for endpoint, state in self.failing.items() if endpoint in self._places}
        self._pin = self._places.get(pinned, 0) if pinned is not None else 0
        self.generation += 1
        if pinned not in (None, self.pinned):
            self._tell_of_the_pin(because_of_a_failure=False)
        if self.on_change is not None:
            self.on_change()

    def _move_pin(self, place: int, *, because_of_a_failure: bool = False) -> None:
        if place != self._pin:
            self._pin = place
            self._tell_of_the_pin(because_of_a_failure=because_of_a_failure)

    def _tell_of_the_pin(self, *, because_of_a_failure: bool) -> None:
        if self.on_pin is not None:
            self.on_pin(self.pinned, because_of_a_failure)


class Pass(Struct, eq=False):
    """One call's way over the endpoints: each is handed out once, in the order of the pool.

    What is still to come waits in a heap, so that a pass over many endpoints that all fail costs no more for each of
    them than one over few.

    Args:
        pool: The endpoints.

    Attributes:
        tried: What was handed out, in order.
        has_searched: Whether other endpoints were searched for, as is done once.
    """

    _pool: EndpointPool
    _generation: int = -1
    _waiting: list[tuple[float, int, str]] | None = None
    tried: tuple[str, ...] = ()
    has_searched: bool = False

    def next(self) -> str | None:
        """The endpoint to try now; `None` when each had its turn."""
        pool = self._pool
        endpoint = self._following() if self.tried else pool._endpoints[pool._pin]
        if endpoint is not None:
            if self._waiting:
                heappop(self._waiting)
            self.tried += (endpoint,)
        return endpoint

    def failed(self, endpoint: str) -> None:
        """The endpoint did not answer; if it was pinned, the next one of this pass gets the pin."""
        self._pool.failed(endpoint, self._following())

    def _following(self) -> str | None:
        """The endpoint that comes next."""
        pool, waiting = self._pool, self._waiting
        if self._generation != pool.generation:
            self._generation = pool.generation
            waiting = self._wait(pool.ring())
        if not waiting:  # what sync() found is unreachable from here, perhaps, while what was given is not
            waiting = self._wait(pool.fallbacks())
        while waiting:
            cools_at, place, endpoint = waiting[0]
            now = pool.cools_at(endpoint)
            if now <= cools_at:
                return endpoint
            heapreplace(waiting, (now, place, endpoint))  # another call has found it failing meanwhile
        return None

    def _wait(self, endpoints: Iterable[str]) -> list[tuple[float, int, str]]:
        cools_at, tried = self._pool.cools_at, set(self.tried)
        self._waiting = [(cools_at(each), place, each) for place, each in enumerate(endpoints) if each not in tried]
        heapify(self._waiting)
        return self._waiting
