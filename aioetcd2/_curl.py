"""Each request as the curl command that does the same, for people to paste; credentials masked."""

from __future__ import annotations

import logging
import shlex
import sys

from ._endpoints import socket_path
from ._request import Request

logger = logging.getLogger("aioetcd2.curl")

_handler: logging.Handler | None = None


def enable_curl_debug() -> None:
    """Print the equivalent curl command of every request to stderr.

    The same lines go to the logger `aioetcd2.curl` at DEBUG; this sets its level and adds a handler. Passwords are
    shown as `***`: in the command's `-u user:***`, and in place of a body that holds one.
    """
    global _handler
    if _handler is None:
        _handler = logging.StreamHandler(sys.stderr)
        _handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(_handler)
    logger.setLevel(logging.DEBUG)


def disable_curl_debug() -> None:
    """Undo `enable_curl_debug()`."""
    global _handler
    if _handler is not None:
        logger.removeHandler(_handler)
        _handler = None
    logger.setLevel(logging.NOTSET)


def curl_line(endpoint: str, request: Request, username: str | None) -> str:
    """The curl command that sends a request to an endpoint.

    `--globoff` and `--path-as-is` keep curl from reading meaning into the key.
    """
    socket = socket_path(endpoint)
    parts = ["curl", "--globoff", "--path-as-is"]
    parts += ["--head"] if request.method == "HEAD" else ["-X", request.method]
    if socket is not None:
        parts += ["--unix-socket", socket]
    if username is not None:
        parts += ["-u", f"{username}:***"]
    if request.body is not None:
        parts += ["-H", f"Content-Type: {request.content_type}"]
        parts += ["--data-raw", "***" if request.secret else request.body.decode("utf-8", "backslashreplace")]
    base = "http://localhost" if socket is not None else endpoint
    return shlex.join([*parts, base + request.target])
