"""What a request holds that nobody may see, and a server's words without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, quote, quote_plus

import msgspec

from .request import JSON, Request

MASK = "***"

_HIDDEN = "not shown, for the request held a secret"
_PASSWORD = re.compile(r'"password"\s*:', re.IGNORECASE)


def holds_password(fields: Iterable[tuple[str, str]], body: bytes | None) -> bool:
    """Whether a field of a query or form, or of a JSON body at any depth, is a password, in letters of any case."""
    if any(map(_is_password, (name for name, _ in fields))):
        return True
    return body is not None and _PASSWORD.search(body.decode("utf-8", "replace")) is not None


def _is_password(name: str) -> bool:
    return name.casefold() == "password"


def _is_hidden(name: str) -> bool:
    return name.casefold() in ("password", "token")


def words_for(request: object, words: str) -> str:
    """Words that a server chose for its answer, without what a secret request held."""
    if isinstance(request, Request) and request.secret:
        forms = {form for secret in _secrets(request) for form in _forms(secret) if form}
        for form in sorted(forms, key=len, reverse=True):
            words = words.replace(form, MASK)
    return words


def text_for(request: object, text: str) -> str:
    """An answer that is none of etcd's, for an error: to a secret request it is not shown, for it may repeat that."""
    return _HIDDEN if text and isinstance(request, Request) and request.secret else text


def _secrets(request: Request) -> Iterator[str]:
    """What stands in the fields of a query or body that are passwords or tokens."""
    query = request.target.partition("?")[2]
    body = (request.body or b"").decode("utf-8", "replace")
    if request.content_type == JSON:
        yield from _secrets_within(msgspec.json.decode(request.body or b"null"))
        body = ""
    for name, value in (*parse_qsl(query), *parse_qsl(body)):
        if _is_hidden(name):
            yield value


def _secrets_within(value: object) -> Iterator[str]:
    pending: list[tuple[str, object]] = [("", value)]
    for name, each in pending:
        if isinstance(each, dict):
            pending += [(name if _is_hidden(name) else str(key), inner) for key, inner in each.items()]
        elif isinstance(each, list):
            pending += [(name, inner) for inner in each]
        elif _is_hidden(name):
            yield str(each)


def _forms(text: str) -> Iterable[str]:
    """A text as a server may repeat it: as it is, as it went over the wire, or quoted in some usual way."""
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]
    return (
        text,
        in_json,
        json.dumps(text)[1:-1],
        json.dumps(in_json)[1:-1],
        repr(text)[1:-1],
        quote(text, safe=""),
        quote_plus(text),
    )
