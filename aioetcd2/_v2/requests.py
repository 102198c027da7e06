"""What goes over the wire for keys: requests, built from arguments that have been checked."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from .._net.request import MAX_REQUEST_LINE, Replay, Request, build, line_length

PREFIX = "/v2/keys"

Fields = list[tuple[str, str]]


@lru_cache(maxsize=512)
def read(path: str, recursive: bool = False, sort: bool = False, quorum: bool = False) -> Request:
    """A get, of one key or of a directory."""
    flags = {"recursive": recursive, "sorted": sort, "quorum": quorum}
    return build("GET", path, query=[(name, "true") for name, wanted in flags.items() if wanted])


def with_quorum(request: Request) -> Request | None:
    """The same read, answered by the whole cluster; `None` where etcd would not read so long a request."""
    target = f"{request.target}{'&' if '?' in request.target else '?'}quorum=true"
    if line_length(request.method, target) > MAX_REQUEST_LINE:
        return None
    return msgspec.structs.replace(request, target=target)


def put(
    path: str,
    value: str,
    ttl: int | None = None,
    prev_value: str | None = None,
    prev_index: int | None = None,
    prev_exist: bool | None = None,
    no_value_on_success: bool = False,
) -> Request:
    """A set; with a condition it is a compare-and-set or a create."""
    form = [("value", value)]
    if ttl is not None:
        form.append(("ttl", str(ttl)))
    if prev_exist is not None:
        form.append(("prevExist", "true" if prev_exist else "false"))
    if no_value_on_success:
        form.append(("noValueOnSuccess", "true"))
    conditions = _conditions(prev_value, prev_index)
    return build("PUT", path, form=form + conditions, replay=_replay(conditions, prev_exist))


def post(directory: str, value: str, ttl: int | None) -> Request:
    """A new key whose name the server makes."""
    form = [("value", value)]
    if ttl is not None:
        form.append(("ttl", str(ttl)))
    return build("POST", directory, form=form)


def refresh(path: str, ttl: int, prev_value: str | None = None, prev_index: int | None = None) -> Request:
    """A new TTL for the same value.

    Without `prevExist` the server would make the key anew, if there is no other condition; with it, it would heed none.
    """
    conditions = _conditions(prev_value, prev_index)
    form = [("refresh", "true"), ("ttl", str(ttl)), *(conditions or [("prevExist", "true")])]
    return build("PUT", path, form=form, replay=_replay(conditions))


def mkdir(path: str, ttl: int | None, prev_exist: bool | None) -> Request:
    """A new directory, or a new TTL for one."""
    form = [("dir", "true")]
    if ttl is not None:
        form.append(("ttl", str(ttl)))
    if prev_exist is not None:
        form.append(("prevExist", "true" if prev_exist else "false"))
    return build("PUT", path, form=form, replay=_replay([], prev_exist))


def delete(path: str, recursive: bool, dir: bool, prev_value: str | None, prev_index: int | None) -> Request:
    """A delete; with a condition, a compare-and-delete."""
    query = [(name, "true") for name, wanted in (("recursive", recursive), ("dir", dir)) if wanted]
    return build("DELETE", path, query=query + _conditions(prev_value, prev_index))


def wait(path: str, recursive: bool, since: int | None, *, stream: bool, patient: bool = False) -> Request:
    """A wait for the events of a path after an index; `None` = after the moment of registration."""
    query = [("wait", "true")]
    if stream:
        query.append(("stream", "true"))
    if recursive:
        query.append(("recursive", "true"))
    if since is not None:
        query.append(("waitIndex", str(since + 1)))
    return build("GET", path, query=query, patient=patient)


def _replay(conditions: Fields, prev_exist: bool | None = None) -> Replay:
    """A plain write may be repeated where that is allowed; one with a condition would meet its own first copy."""
    return Replay.IF_UNSENT if conditions or prev_exist is False else Replay.IF_ALLOWED


def _conditions(prev_value: str | None, prev_index: int | None) -> Fields:
    conditions: Fields = []
    if prev_value is not None:
        conditions.append(("prevValue", prev_value))
    if prev_index is not None:
        conditions.append(("prevIndex", str(int(prev_index))))
    return conditions
