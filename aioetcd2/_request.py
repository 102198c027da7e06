"""A request as a value: it knows no endpoint, and can be built, compared and printed without a network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from urllib.parse import quote, quote_plus, urlencode

from msgspec import Struct

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

MAX_REQUEST_LINE = 4096
"""What etcd 3.0 and later read of the first request on a connection, CR LF included; a longer one they drop."""

MAX_FORM = 10 << 20
"""What the server reads of a form."""

MAX_TTL = 7_000_000_000
"""Somewhat above this the server's clock overflows, and it makes the key permanent without a word."""

MANY_SLASHES = re.compile("//+")
_PLAIN_KEY = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9_.~-]+)+/?")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.~-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Replay(Enum):
    """Whether a request may be sent again when its fate at one endpoint is unknown."""

    ALWAYS = "always"
    IF_UNSENT = "if_unsent"


class Request(Struct, frozen=True, gc=False):
    """One request.

    Attributes:
        method: The HTTP method.
        target: Path and query, encoded as they go over the wire.
        body: The encoded form or JSON; `None` = no body.
        content_type: What the body is.
        replay: Whether it may be sent to another endpoint after it was sent to one.
        secret: Whether the body holds a password, so that it is shown nowhere.
        patient: Whether the header of the answer may take as long as it likes.
    """

    method: str
    target: str
    body: bytes | None = None
    content_type: str | None = None
    replay: Replay = Replay.ALWAYS
    secret: bool = False
    patient: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.target}"

    def __repr__(self) -> str:
        body = "***" if self.secret else self.body
        return f"Request({self}, {body!r}, {self.replay.value})"

    @property
    def writes(self) -> bool:
        """Whether the request can change anything."""
        return self.method not in ("GET", "HEAD", "OPTIONS")


def build(
    method: str,
    path: str,
    *,
    query: Iterable[tuple[str, str]] = (),
    form: Iterable[tuple[str, str]] | None = None,
    json: bytes | None = None,
    replay: Replay = Replay.ALWAYS,
    secret: bool = False,
    patient: bool = False,
) -> Request:
    """Encode a request, or say why the server would not take it.

    Args:
        method: The HTTP method.
        path: The encoded path.
        query: Names and values of the query, as text.
        form: Names and values of a form; excludes `json`.
        json: An encoded JSON body.
        replay: Whether it may be sent again.
        secret: Whether the body holds a password.
        patient: Whether the header of the answer may take as long as it likes.

    Raises:
        ValueError: The request line or the form is longer than etcd reads, or the text is not valid Unicode.
    """
    target = f"{path}?{urlencode(tuple(query))}" if query else path
    if (line := _line_length(method, target)) > MAX_REQUEST_LINE:
        raise ValueError(
            f"the request line would be {line} bytes, but etcd reads {MAX_REQUEST_LINE}: {method} {target[:60]}..."
        )
    if form is None and json is None:
        return Request(method, target, None, None, replay, secret, patient)
    body, content_type = json, JSON
    if form is not None:
        body, content_type = encode_form(form), FORM
        if len(body) > MAX_FORM:
            raise ValueError(f"the form would be {len(body)} bytes, but etcd reads {MAX_FORM}: {method} {target[:60]}")
    return Request(method, target, body, content_type, replay, secret, patient)


def with_quorum(request: Request) -> Request | None:
    """The same read, answered by the whole cluster; `None` where etcd would not read so long a request."""
    target = f"{request.target}{'&' if '?' in request.target else '?'}quorum=true"
    if _line_length(request.method, target) > MAX_REQUEST_LINE:
        return None
    return Request(request.method, target, replay=request.replay)


def _line_length(method: str, target: str) -> int:
    return len(method) + len(target) + len("  HTTP/1.1\r\n")


def encode_form(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode a form whose names need no encoding."""
    return "&".join([f"{name}={_quote_value(value)}" for name, value in fields]).encode("ascii")


def _quote_value(value: str) -> str:
    return value if _PLAIN_VALUE.fullmatch(value) else quote_plus(value)


def quote_key(key: str) -> str:
    """The path of a key, with a leading slash; folds repeated slashes, and encodes whatever is special in a URL.

    Raises:
        TypeError: The key is not text.
        ValueError: The key has a `.` or `..` segment, or is not valid Unicode.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}: {key!r}")
    return _quote_key(key)


@lru_cache(maxsize=512)
def _quote_key(key: str) -> str:
    path = key if key.startswith("/") else f"/{key}"
    if _PLAIN_KEY.fullmatch(path):
        return path
    path = MANY_SLASHES.sub("/", path)
    if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"a key has no '.' or '..' segment: {key!r}")
    try:
        return quote(path)
    except UnicodeEncodeError as error:
        raise ValueError(f"a key is valid Unicode: {key!r} ({error.reason})") from None


def quote_segment(what: str, name: str) -> str:
    """A name as one segment of a path.

    Raises:
        TypeError: It is not text.
        ValueError: It is empty, has a slash, is `.` or `..`, or is not valid Unicode.
    """
    check_text(what, name)
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f"{what} is not empty, has no '/', and is not '.' or '..': {name!r}")
    return quote(name, safe="")


def check_text(name: str, value: str) -> str:
    """Return a value that the server will give back unchanged.

    Raises:
        TypeError: It is not text.
        ValueError: It is not valid Unicode; the server would store U+FFFD instead.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    if not value.isascii() and (surrogate := _SURROGATE.search(value)) is not None:
        raise ValueError(f"{name} is valid Unicode: surrogates not allowed, as at position {surrogate.start()}")
    return value


def check_index(name: str, value: int, least: int) -> str:
    """The text of an index.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below `least`, or more than the server can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not least <= value < 2**64:
        raise ValueError(f"{name} is between {least} and 2**64 - 1, not {value}")
    return str(int(value))


def check_ttl(ttl: float | timedelta) -> str:
    """The text of a TTL: whole seconds, fractions rounded up.

    Raises:
        TypeError: It is neither a number nor a timedelta.
        ValueError: It is zero or less (the server would expire the key at once), or beyond what the server can hold.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"ttl is seconds or a timedelta, not {type(ttl).__name__}")
    if not 0 < seconds <= MAX_TTL:
        raise ValueError(f"ttl is above 0 and at most {MAX_TTL} seconds, not {ttl}")
    return str(math.ceil(seconds))


def check_method(method: str) -> str:
    """An HTTP method in capitals.

    Raises:
        ValueError: It is no HTTP token.
    """
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise ValueError(f"not an HTTP method: {method!r}")
    return method.upper()
