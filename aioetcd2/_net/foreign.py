"""Answers of what stands between us and an etcd, or in its place, told by their words."""

from __future__ import annotations

from ..errors import ConnectError, EndpointError, ServerError
from ..models import HTTPResult

WANTS_TLS = (
    b"Client sent an HTTP request to an HTTPS server",  # Go
    b"plain HTTP request was sent to HTTPS port",  # nginx
    b"speaking plain HTTP to an SSL-enabled server port",  # Apache
)


def foreign(result: HTTPResult) -> EndpointError | None:
    """What a 4xx that is none of etcd's says, if that is known; the request was certainly not carried out then."""
    if result.status == 400 and any(words in result.body for words in WANTS_TLS):
        return ConnectError(result.endpoint, "it serves https: write https:// in the endpoint")
    if result.status == 413:  # etcd has no such answer
        words = "413: a proxy in between takes no request of that length; raise its limit (nginx: client_max_body_size)"
        return ServerError(result.endpoint, words, status=413)
    return None
