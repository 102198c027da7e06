"""What lies behind an exchange that failed, in words and in kind: aiohttp's errors become ours."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl as ssl_module

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from ..errors import ConnectError, ConnectionLostError, EndpointError, HeaderTimeoutError, InvalidResponseError
from .request import Request
from .secrets import text_for

UNSENT = (
    aiohttp.ClientConnectorError,  # name lookup, connect, TLS and certificates, proxies, unix sockets
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
)
"""What aiohttp raises where there is no connection, and nothing was sent."""

_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PLAIN_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What one or the other OpenSSL calls an answer that is no TLS."""

_CERTIFICATE_ALERT = re.compile("ALERT.*(CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE)")
"""How servers refuse a client certificate, or the want of one; those built with Go 1.26 say no more than the last."""


def meaning_of(
    endpoint: str, request: Request, error: Exception, *, sent: bool, seconds: float | None, heard: bool
) -> EndpointError | InvalidResponseError:
    """What an exception of aiohttp means, the most specific first.

    Args:
        endpoint: Where the request went.
        request: What was sent, or was to be.
        error: What aiohttp raised, or a time-out.
        sent: Whether a byte of the request may have left.
        seconds: The header timeout that was over, where that is the error.
        heard: Whether the endpoint has ever answered.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        error.request_info = error.request_info._replace(headers=_NO_HEADERS)  # its repr shows them, password too
        error.args = ()
    if is_certificate_refused(error):
        return ConnectError(endpoint, f"{words_of(error)}: {certificate_hint(error)}")
    if isinstance(error, UNSENT):
        return ConnectError(endpoint, unconnected(endpoint, error), ours=is_ours(error))
    if isinstance(error, asyncio.TimeoutError):
        span = f"the header timeout of {seconds} s"
        if request.writes and not sent:
            return ConnectError(endpoint, f"no connection within {span}")
        return HeaderTimeoutError(endpoint, f"no answer within {span}", maybe_applied=sent)
    if isinstance(error, aiohttp.ClientResponseError):
        return InvalidResponseError(endpoint, f"not HTTP: {' '.join(error.message.split())}")
    words = text_for(request, words_of(error)) if isinstance(error, aiohttp.ClientPayloadError) else words_of(error)
    if endpoint.startswith("http:") and not heard:
        words += "; it has never answered, does it serve https?"
    return ConnectionLostError(endpoint, words, maybe_applied=sent)


def unconnected(endpoint: str, error: Exception) -> str:
    """Why there is no connection, in words."""
    cause = error.__cause__
    plain = isinstance(cause, ssl_module.SSLError) and cause.reason in _PLAIN_REASONS
    if cause is not None and endpoint.startswith("https:") and (plain or isinstance(cause, ConnectionResetError)):
        return f"the server broke off the TLS handshake, does it serve plain http? ({words_of(cause)})"
    return words_of(error)


def is_ours(error: BaseException | None) -> bool:
    """Whether this process has no descriptor or no memory left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _LACKS:
            return True
        error = error.__cause__
    return False


def is_certificate_refused(error: BaseException | None) -> bool:
    """Whether the server ended the handshake over our certificate, and so has read no request.

    In TLS 1.3 it says so when the handshake is over for us, and a request on its way.
    """
    while error is not None:
        if isinstance(error, ssl_module.SSLError) and _CERTIFICATE_ALERT.search(str(error)):
            return True
        error = error.__cause__
    return False


def certificate_hint(error: BaseException) -> str:
    """What a refused certificate most likely means."""
    hint = "the server wants a client certificate, or refuses ours"
    return f"{hint}, or has no cipher in common with us" if "HANDSHAKE_FAILURE" in words_of(error) else hint


def words_of(error: BaseException) -> str:
    """What an error says, if it says anything; its name otherwise."""
    return str(error) or type(error).__name__
