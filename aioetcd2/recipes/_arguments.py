"""What recipes are given, checked before anything is sent."""

from __future__ import annotations

import os
import socket


def check_text(what: str, text: str) -> str:
    """Text that can be written.

    Args:
        what: What it is: `a value`.
        text: The text.

    Raises:
        TypeError: It is no text.
        ValueError: It can't be written as UTF-8.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} can't be written as UTF-8: {error}") from None
    return text


def check_path(path: str, what: str = "a path") -> str:
    """A key, or a directory without the slash at its end; whether it can be one, its first request tells.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(path, str):
        raise TypeError(f"{what} is text, not {type(path).__name__}")
    return "/" + "/".join(filter(None, path.split("/")))


def check_name(name: str | None) -> str:
    """What somebody calls itself; `None` = its host and process.

    Raises:
        TypeError: It is no text.
        ValueError: It can't be written as UTF-8.
    """
    return f"{socket.gethostname()}:{os.getpid()}" if name is None else check_text("name", name)
