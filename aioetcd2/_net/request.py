"""A request as a value: it knows no endpoint, and can be built, compared and printed without a network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import IntEnum, auto
from functools import lru_cache
from urllib.parse import quote, quote_plus, urlencode

import msgspec
from msgspec import Struct

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

MAX_REQUEST_LINE = 4096
"""What etcd 3.0 and later read of the first request on a connection, CR LF included; a longer one they drop."""

MAX_FORM = 10 << 20
"""What the server reads of a form."""

MANY_SLASHES = re.compile("//+")
_PLAIN_PATH = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9_.~-]+)+/?")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.~-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_READING = ("GET", "HEAD")
_HARMLESS = (*_READING, "OPTIONS")


class Replay(IntEnum):
    """Whether a request may be sent again when its fate at one endpoint is unknown.

    Attributes:
        ALWAYS: It may: a read.
        IF_ALLOWED: A plain write, which two copies leave as one does unless another write comes between them: by a
            client only that was told to repeat writes.
        IF_UNSENT: Never: it has a condition, or does something else the second time.
    """

    ALWAYS = auto()
    IF_ALLOWED = auto()
    IF_UNSENT = auto()


class Request(Struct, frozen=True, gc=False):
    """One HTTP request, for whatever endpoint.

    Attributes:
        method: The HTTP method.
        target: Path and query, encoded as they go over the wire.
        body: The encoded form or JSON; `None` = no body.
        content_type: What the body is.
        replay: Whether it may be sent to another endpoint after it was sent to one.
        writes: Whether it can change anything.
        secret: Whether it may hold a password: its body and query are shown nowhere then, nor what may repeat them.
        patient: Whether the header of the answer may take as long as it likes.
        urgent: Whether it goes out at once, and waits for no turn.
        timeout: The most seconds that each try may take to the header of its answer, where that is less than the
            client's header timeout; `None` = as long as that.
    """

    method: str
    target: str
    body: bytes | None = None
    content_type: str | None = None
    replay: Replay = Replay.ALWAYS
    writes: bool = False
    secret: bool = False
    patient: bool = False
    urgent: bool = False
    timeout: float | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.shown_target}"

    @property
    def shown_target(self) -> str:
        """Path and query as they may be shown."""
        path, mark, _ = self.target.partition("?")
        return f"{path}?***" if self.secret and mark else self.target

    def within(self, seconds: float | None) -> Request:
        """The same request, with a time-out of its own; `None` = it stays as it is."""
        return self if seconds is None else msgspec.structs.replace(self, timeout=seconds)

    def __repr__(self) -> str:
        body = "***" if self.secret else self.body
        return f"Request({self}, {body!r}, {self.replay.name.lower()})"


def build(
    method: str,
    path: str,
    *,
    query: Iterable[tuple[str, str]] = (),
    form: Iterable[tuple[str, str]] | None = None,
    json: bytes | None = None,
    replay: Replay | None = None,
    writes: bool | None = None,
    secret: bool = False,
    patient: bool = False,
    urgent: bool = False,
) -> Request:
    """Make a request: encode its parts, or raise what the server would not take.

    Args:
        method: The HTTP method.
        path: The encoded path.
        query: Names and values of the query, as text.
        form: Names and values of a form; excludes `json`.
        json: An encoded JSON body.
        replay: Whether it may be sent again; `None` = only what reads, by its method.
        writes: Whether it can change anything; `None` = as its method says.
        secret: Whether it holds a password; a request below a segment `auth` is taken for one that does.
        patient: Whether the header of the answer may take as long as it likes.
        urgent: Whether it goes out at once, and waits for no turn.

    Raises:
        ValueError: The request line or the form is longer than etcd reads, or the text is not valid Unicode.
    """
    target = f"{path}?{urlencode(tuple(query))}" if query else path
    if line_length(method, target) > MAX_REQUEST_LINE:
        raise ValueError(
            f"the request line would be {line_length(method, target)} bytes, but etcd reads {MAX_REQUEST_LINE}: "
            f"{method} {path[:60]}..."
        )
    body, content_type = json, None if json is None else JSON
    if form is not None:
        body, content_type = encode_form(form), FORM
        if len(body) > MAX_FORM:
            raise ValueError(f"the form would be {len(body)} bytes, but etcd reads {MAX_FORM}: {method} {path[:60]}")
    if replay is None:
        replay = Replay.ALWAYS if method in _READING else Replay.IF_UNSENT
    if writes is None:
        writes = method not in _HARMLESS
    secret = secret or "/auth/" in f"{path}/"
    return Request(method, target, body, content_type, replay, writes, secret, patient, urgent)


def line_length(method: str, target: str) -> int:
    """How many bytes the request line has."""
    return len(method) + len(target) + len("  HTTP/1.1\r\n")


def encode_form(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode a form whose names need no encoding."""
    return "&".join([f"{name}={_quote_value(value)}" for name, value in fields]).encode("ascii")


def _quote_value(value: str) -> str:
    return value if _PLAIN_VALUE.fullmatch(value) else quote_plus(value)


def quote_path(path: str, what: str = "path") -> str:
    """Encode a path: a slash in front, repeated slashes folded into one, whatever is special in a URL as `%xx`.

    Args:
        path: The path as text.
        what: What it is, for an error.

    Raises:
        TypeError: The path is not text.
        ValueError: The path has a `.` or `..` segment, or is not valid Unicode.
    """
    if not isinstance(path, str):
        raise TypeError(f"a {what} is a str, not {type(path).__name__}: {path!r}")
    return _quote_path(path, what)


@lru_cache(maxsize=512)
def _quote_path(text: str, what: str) -> str:
    path = text if text.startswith("/") else f"/{text}"
    if _PLAIN_PATH.fullmatch(path):
        return path
    path = MANY_SLASHES.sub("/", path)
    if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"a {what} has no '.' or '..' segment: {text!r}")
    try:
        return quote(path)
    except UnicodeEncodeError as error:
        raise ValueError(f"a {what} is valid Unicode: {text!r} ({error.reason})") from None


def quote_segment(what: str, name: str) -> str:
    """Encode a name as one segment of a path.

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


def check_seconds(name: str, seconds: float) -> float:
    """Return a time in seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is zero or less, or has no end.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} is above 0 seconds and finite, not {seconds}")
    return seconds


def check_method(method: str) -> str:
    """An HTTP method in capitals.

    Raises:
        ValueError: It is no HTTP token.
    """
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise ValueError(f"not an HTTP method: {method!r}")
    return method.upper()
