"""Answers that are nested deeper than a recursive decoder goes: etcd holds trees of 900 levels and more."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any

import msgspec

from ..models import Node

_PARTS = re.compile(r'\s*([{}\[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+)')


def decode(body: bytes) -> dict[str, Any]:
    """The object that a keys answer is, its nodes as `Node`; without recursion, and slower than the usual way.

    Raises:
        ValueError: It is not JSON.
        msgspec.ValidationError: It has another shape.
    """
    text = bytes(body).decode()
    parser = _Parser()
    end = 0
    for found in _PARTS.finditer(text):
        if found.start() != end:
            break
        end = found.end()
        parser.take(found[1])
    if text[end:].strip() or not isinstance(parser.whole, dict):
        raise ValueError(f"JSON is malformed: byte {end}")
    return parser.whole


class _Kind(Enum):
    """What an object or an array is."""

    WHOLE = auto()
    NODE = auto()
    NODES = auto()
    UNKNOWN = auto()


class _Next(Enum):
    """What may come next."""

    VALUE = auto()
    VALUE_OR_END = auto()
    NAME = auto()
    NAME_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()
    NOTHING = auto()


class _Parser:
    """Builds values from tokens, with a list for a stack."""

    def __init__(self) -> None:
        self._open: list[tuple[Any, str, _Kind]] = []
        self._container: Any = None
        self._kind = _Kind.UNKNOWN
        self._name = ""  # of the value that comes next, in an object
        self._next = _Next.VALUE
        self.whole: Any = None

    def take(self, part: str) -> None:
        """Go on by one token."""
        if part == "{" or part == "[":
            self._expect(_Next.VALUE, _Next.VALUE_OR_END)
            self._open.append((self._container, self._name, self._kind))
            self._kind = self._kind_of(part)
            self._container, self._next = ({}, _Next.NAME_OR_END) if part == "{" else ([], _Next.VALUE_OR_END)
        elif part == "}" or part == "]":
            self._close({} if part == "}" else [])
        elif part == ",":
            self._expect(_Next.COMMA_OR_END)
            self._next = _Next.NAME if isinstance(self._container, dict) else _Next.VALUE
        elif part == ":":
            self._expect(_Next.COLON)
            self._next = _Next.VALUE
        elif self._next in (_Next.NAME, _Next.NAME_OR_END):
            self._name = msgspec.json.decode(part)
            self._next = _Next.COLON
            if not isinstance(self._name, str):
                raise ValueError("JSON is malformed")
        else:
            self._expect(_Next.VALUE, _Next.VALUE_OR_END)
            self._put(msgspec.json.decode(part))

    def _close(self, kind: Any) -> None:
        self._expect(_Next.COMMA_OR_END, _Next.NAME_OR_END if isinstance(kind, dict) else _Next.VALUE_OR_END)
        value = self._container
        if type(value) is not type(kind):
            raise ValueError("JSON is malformed")
        if self._kind is _Kind.NODE:
            value = _as_node(value)
        self._container, self._name, self._kind = self._open.pop()
        self._put(value)

    def _put(self, value: Any) -> None:
        self._next = _Next.COMMA_OR_END
        if self._container is None:
            self.whole = value
            self._next = _Next.NOTHING
        elif isinstance(self._container, dict):
            self._container[self._name] = value
        else:
            self._container.append(value)

    def _kind_of(self, part: str) -> _Kind:
        """What is being opened: nodes are where an answer has them, and anything else may be there as well."""
        if self._container is None:
            return _Kind.WHOLE
        if self._kind is _Kind.NODE:
            return _Kind.NODES if part == "[" and self._name == "nodes" else _Kind.UNKNOWN
        is_node = self._kind is _Kind.NODES or (self._kind is _Kind.WHOLE and self._name in ("node", "prevNode"))
        return _Kind.NODE if part == "{" and is_node else _Kind.UNKNOWN

    def _expect(self, *allowed: _Next) -> None:
        if self._next not in allowed:
            raise ValueError("JSON is malformed")


def _as_node(value: dict[str, Any]) -> Node:
    """An object as a node; its children are nodes by now."""
    children = value.pop("nodes", [])
    if not isinstance(children, list) or not all(isinstance(child, Node) for child in children):
        raise msgspec.ValidationError("Expected `array` of nodes")
    node = msgspec.convert(value, Node)
    return msgspec.structs.replace(node, nodes=tuple(children)) if children else node
