"""Each request as the curl command that does the same, for people to paste; credentials masked."""

from __future__ import annotations

import shlex

from .endpoints import socket_path
from .request import Request


def curl_line(endpoint: str, request: Request, username: str | None) -> str:
    """The curl command that sends a request to an endpoint.

    `--globoff` and `--path-as-is` keep curl from reading meaning into the path.
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
    return shlex.join([*parts, base + request.shown_target])
