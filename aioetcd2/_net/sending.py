"""What stands between aiohttp and the wire as a request is sent: once, and with our credentials only."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from .causes import words_of

UNSENT = (
    aiohttp.ClientConnectorError,  # name lookup, connect, TLS and certificates, proxies, unix sockets
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
)


class Lost(Exception):
    """The connection broke after the request. aiohttp sends again on errors of its own, and not on this one."""


class SendOnce:
    """A client middleware that keeps aiohttp from sending a request twice, and knows whether it was sent.

    aiohttp sends PUT and DELETE again by itself when the connection drops, whatever the server did with the first.
    """

    __slots__ = ("_request",)

    def __init__(self) -> None:
        self._request: aiohttp.ClientRequest | None = None

    @property
    def sent(self) -> bool:
        """Whether a byte of it may have left: aiohttp makes the response object as it hands over the first one."""
        return self._request is not None and getattr(self._request, "response", self) is not None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self._request = request
        try:
            return await handler(request)
        except UNSENT:
            raise
        except aiohttp.ClientConnectionError as error:
            raise Lost(words_of(error)) from error


class Authorize:
    """A client middleware that has the last word on credentials, where aiohttp may take them from a `.netrc`.

    A trusted endpoint gets ours; where we have none, it gets those of the `.netrc`. Any other endpoint gets nothing.
    """

    __slots__ = ("_headers", "_trusted")

    def __init__(self, headers: Mapping[str, str], trusted: bool) -> None:
        self._headers = headers
        self._trusted = trusted

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._trusted:
            request.headers.update(self._headers)
        else:
            request.headers.popall("Authorization", None)
        return await handler(request)
