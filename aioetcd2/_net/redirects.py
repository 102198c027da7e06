"""Redirects: where one leads, and whether it may be followed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from ..errors import InvalidEndpointError, RedirectError
from ..models import HTTPResult
from .endpoints import parse_endpoint
from .exchange import Answer, drop, head_of
from .reporter import Reporter
from .request import Request
from .secrets import text_for

A = TypeVar("A", bound=Answer)

MAX_REDIRECTS = 10

MOST_REDIRECTS = 100
"""Where a `check_redirect` that refuses nothing ends, too."""


class TooManyError(RedirectError):
    """The default of `check_redirect` refuses; where, is added by who asked it."""


def at_most_ten(hops: int) -> None:
    """The default of `check_redirect`.

    Raises:
        TooManyError: This would be the eleventh redirect in a row.
    """
    if hops > MAX_REDIRECTS:
        raise TooManyError


class Redirects:
    """Follows redirects, method and body kept; credentials go on to our own endpoints only, never onto cleartext.

    Args:
        check: Told the number of redirects in a row before each is followed; raises to refuse.
        ours: The client's own endpoints.
        reporter: Told of every redirect.
    """

    def __init__(self, check: Callable[[int], None], ours: Container[str], reporter: Reporter) -> None:
        self._check = check
        self._ours = ours
        self._reporter = reporter

    async def follow(self, send: Callable[..., Awaitable[A]], endpoint: str, request: Request, answer: A) -> A:
        """Follow a redirect to its end; the answers on the way are closed.

        Args:
            send: Sends a request to an endpoint, `trusted` or not.
            endpoint: Where the first answer came from.
            request: What was asked there.
            answer: The first answer, a redirect.

        Raises:
            RedirectError: It leads nowhere, or too far, or a password would go to a host that is not trusted.
        """
        hops = 0
        secure = False
        while 300 <= head_of(answer).status < 400:
            hops += 1
            if hops > MOST_REDIRECTS:
                raise _too_many(MOST_REDIRECTS, request, endpoint)
            try:
                self._check(hops)
            except TooManyError:
                raise _too_many(MAX_REDIRECTS, request, endpoint) from None
            drop(answer)
            secure = secure or endpoint.startswith("https:")
            before, (endpoint, target) = endpoint, _location(endpoint, request, head_of(answer))
            trusted = endpoint in self._ours and not (secure and endpoint.startswith("http:"))
            if request.secret and request.body is not None and not trusted:
                raise RedirectError(
                    f"{request} at {before}: its body may hold a password, and {endpoint} is not trusted"
                )
            request = msgspec.structs.replace(request, target=target)
            self._reporter.redirects(before, endpoint, request.shown_target)
            answer = await send(endpoint, request, trusted=trusted)
        return answer


def _too_many(number: int, request: Request, endpoint: str) -> RedirectError:
    way_out = "do the endpoints point at each other? check_redirect= sets another limit"
    return RedirectError(f"{request} at {endpoint}: more than {number} redirects in a row; {way_out}")


def _location(endpoint: str, request: Request, result: HTTPResult) -> tuple[str, str]:
    """Where a redirect leads: endpoint and target."""
    where = result.headers.get("Location", "")
    what = f"{request} at {endpoint}: redirect {result.status}"
    if not where:
        raise RedirectError(f"{what} without a Location, which etcd never sends", maybe_applied=request.writes)
    unix = endpoint.startswith("unix:")
    try:
        parts = urlsplit(urljoin(f"{'http://localhost' if unix else endpoint}{request.target}", where))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise InvalidEndpointError("its path has characters that must be encoded")
        if unix and parts.netloc == "localhost":
            return endpoint, target
        if parts.scheme not in ("http", "https"):  # no server sends us to a socket of this machine
            raise InvalidEndpointError("the scheme must be http or https")
        return parse_endpoint(f"{parts.scheme}://{parts.netloc}"), target
    except ValueError as error:
        words = text_for(request, f"{where[:200]!r}: {error}")
        raise RedirectError(f"{what} with a bad Location {words}", maybe_applied=request.writes) from None
