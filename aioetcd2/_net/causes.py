"""What lies behind a connection that failed, in words and in kind."""

from __future__ import annotations

import errno
import re
import ssl as ssl_module

_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PLAIN_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What one or the other OpenSSL calls an answer that is no TLS."""

_CERTIFICATE_ALERT = re.compile("ALERT.*(CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE)")
"""How servers refuse a client certificate, or the want of one; those built with Go 1.26 say no more than the last."""


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
