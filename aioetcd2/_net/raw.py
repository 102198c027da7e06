"""A request of the caller's own: anything goes that a server could read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote_plus

import msgspec

from .request import Replay, Request, build, check_method, check_text, quote_path
from .secrets import holds_password

Fields = Mapping[str, str] | Iterable[tuple[str, str]]


def raw(
    method: str, path: str, *, params: Fields | None, form: Fields | None, json: Any, one_shot: bool | None
) -> Request:
    """A request from what a caller gives; `Client.request()` says what that is.

    Raises:
        ValueError: The server could not read such a request.
        TypeError: A field is no pair of texts, or `json` can't be encoded.
    """
    if form is not None and json is not None:
        raise ValueError("form and json exclude each other")
    query, fields = _pairs(params), _pairs(form)
    body = None if json is None else _encode(json)
    return build(
        check_method(method),
        quote_path(path),
        query=query,
        form=None if form is None else [(quote_plus(name), value) for name, value in fields],
        json=body,
        replay=None if one_shot is None else Replay.IF_UNSENT if one_shot else Replay.ALWAYS,
        secret=holds_password([*query, *fields], body),
    )


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise ValueError("json is nested too deeply, or holds itself") from None
    except UnicodeEncodeError:  # which would show the text
        raise ValueError("json is valid Unicode: surrogates not allowed") from None


def _pairs(fields: Fields | None) -> list[tuple[str, str]]:
    if fields is None:
        return []
    pairs = list(cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"a field is a tuple of a name and a value, not {_kind_of(pair)}")
        check_text("the name of a field", pair[0])
        check_text(f"the value of {pair[0]!r}", pair[1])
    return pairs


def _kind_of(pair: object) -> str:
    """What something is, without what it holds: a password, perhaps."""
    return f"a {type(pair).__name__}" + (f" of {len(pair)}" if isinstance(pair, tuple) else "")
