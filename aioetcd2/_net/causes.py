"""What lies behind an exchange that failed, in words and in kind: aiohttp's errors become ours."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import re
import socket
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

_WRONG_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host name, or IP address."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_SHOWN_BYTES = re.compile(r"""b(['"])(\\(x[0-9a-f]{2}|[nrt\\'"])|(?!\1)[^\\])*\1""")
_TLS_ALERT = b"\x15\x03"
_HTTP2_SETTINGS = b"\x04"
"""The type of the frame that a server of HTTP/2 sends first, behind the three bytes of its length."""

_CERTIFICATE_ALERT = re.compile("ALERT.*(CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE)")
"""How servers refuse a client certificate, or the want of one; those built with Go 1.26 say no more than the last."""


def meaning_of(
    endpoint: str,
    request: Request,
    error: Exception,
    *,
    sent: bool,
    seconds: float | None,
    heard: bool,
    looking_up: bool = False,
) -> EndpointError | InvalidResponseError:
    """What an exception of aiohttp means, the most specific first.

    Args:
        endpoint: Where the request went.
        request: What was sent, or was to be.
        error: What aiohttp raised, or a time-out.
        sent: Whether a byte of the request may have left.
        seconds: The header timeout that was over, where that is the error.
        heard: Whether the endpoint has ever answered.
        looking_up: Whether its name is being looked up.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        error.request_info = error.request_info._replace(headers=_NO_HEADERS)  # its repr shows them, password too
        error.args = ()
    if is_certificate_refused(error):
        return ConnectError(endpoint, f"{certificate_hint(error)}: {words_of(_innermost(error))}")
    if isinstance(error, UNSENT):
        return ConnectError(endpoint, unconnected(endpoint, error), ours=is_ours(error))
    if isinstance(error, asyncio.TimeoutError):
        span = f"the header timeout of {seconds} s"
        if looking_up:
            return ConnectError(endpoint, f"the lookup of its name took longer than {span}; is the name server silent?")
        if request.writes and not sent:
            return ConnectError(endpoint, f"no connection within {span}{_port_that_was_tried(endpoint)}")
        return HeaderTimeoutError(endpoint, f"no answer within {span}", maybe_applied=sent)
    if isinstance(error, aiohttp.ClientResponseError):
        words = " ".join(error.message.split())
        if other := _other_protocol(words):
            return ConnectError(endpoint, f"{other} ({words})")  # such a server has not understood a word of it
        if _shows_nothing(words):
            words += "; perhaps it speaks HTTP/2 only (see etcd's --listen-client-http-urls)"
        return InvalidResponseError(endpoint, f"not HTTP: {words}")
    words = text_for(request, words_of(error)) if isinstance(error, aiohttp.ClientPayloadError) else words_of(error)
    if endpoint.startswith("http:") and not heard:
        words += "; it has never answered, does it serve https, or HTTP/2 only?"
    return ConnectionLostError(endpoint, words, maybe_applied=sent)


def _other_protocol(words: str) -> str:
    """Which protocol an answer is of that is no HTTP/1, by aiohttp's words that show it; empty = none that is known."""
    begin = _shown_in(words)
    if begin.startswith(_TLS_ALERT):
        return "it speaks TLS: write https:// in the endpoint"
    if begin.startswith(b"\0") and begin[3:4] == _HTTP2_SETTINGS:
        return "it speaks HTTP/2 only, as etcd does where --listen-client-http-urls is set: give one of those URLs"
    return ""


def _shown_in(words: str) -> bytes:
    """The bytes that a text shows as Python does; empty = it shows none."""
    shown = _SHOWN_BYTES.search(words)
    try:
        return bytes(ast.literal_eval(shown[0])) if shown is not None else b""
    except (SyntaxError, ValueError):  # it only looks like that: a server may say what it likes
        return b""


def _shows_nothing(words: str) -> bool:
    """Whether aiohttp shows an answer as empty, which begins with a zero byte then: older releases do so."""
    shown = _SHOWN_BYTES.search(words)
    return shown is not None and shown[0] in ("b''", 'b""')


def unconnected(endpoint: str, error: Exception) -> str:
    """Why there is no connection, in words."""
    cause = error.__cause__
    plain = isinstance(cause, ssl_module.SSLError) and cause.reason in _PLAIN_REASONS
    if cause is not None and endpoint.startswith("https:") and (plain or isinstance(cause, ConnectionResetError)):
        return f"the server broke off the TLS handshake, does it serve plain http? ({words_of(cause)})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"this side does not trust the server: {_distrust(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no such name: {error.host} ({_reason(error.os_error)}){_port_that_was_tried(endpoint)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"no TLS with {error.host}:{error.port}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.client_exceptions.UnixClientConnectorError):
        return f"can't connect to {error.path}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"can't connect to the proxy {error.host}:{error.port}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        where = f"{error.host}:{error.port}"
        return f"can't connect to {where}: {_reason(error.os_error)}{_port_that_was_tried(endpoint)}"
    return words_of(error)


def _reason(error: OSError) -> str:
    """What the system says, without numbers and tuples."""
    if isinstance(error, (socket.gaierror, ssl_module.SSLError)) or not error.errno:
        return error.strerror or words_of(error)
    return os.strerror(error.errno)


def _distrust(error: Exception) -> str:
    """Why this side does not trust a certificate, and what to do."""
    if not isinstance(error, ssl_module.SSLCertVerificationError):
        return words_of(error)
    about_the_name = error.verify_code in _WRONG_NAME
    way_out = (
        "use a host that the certificate names"
        if about_the_name
        else "give its CA by ssl=ssl.create_default_context(cafile='ca.pem')"
    )
    return f"{error.verify_message.rstrip('.')} ({error.reason}); {way_out}"


def _port_that_was_tried(endpoint: str) -> str:
    """What to say where an endpoint names no port."""
    scheme, _, authority = endpoint.partition("://")
    if scheme not in _DEFAULT_PORTS or authority.rpartition("]")[2].partition(":")[2]:
        return ""
    return f"; the endpoint names no port, so that {_DEFAULT_PORTS[scheme]} was tried; etcd's is 2379"


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


def _innermost(error: BaseException) -> BaseException:
    """What an error was raised from, at the last."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def words_of(error: BaseException) -> str:
    """What an error says, if it says anything; its name otherwise."""
    return str(error) or type(error).__name__
