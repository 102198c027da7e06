"""The options of a client, looked at before anything is made of them: each refusal says how to write it right."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Iterable

import aiohttp

from .request import check_seconds

_WAY_TO_TRUST = "ssl.create_default_context(cafile={})"


def check_context(context: object) -> None:
    """Check the `ssl` option.

    Raises:
        TypeError: It is no `ssl.SSLContext`.
    """
    if context is None or isinstance(context, ssl_module.SSLContext):
        return
    if isinstance(context, bool):
        way_out = "leave it out to have servers checked against the system's certificates"
        way_out += f"; for others give {_WAY_TO_TRUST.format(repr('ca.pem'))}"
        way_out += ". There is no switch that turns the check off" if not context else ""
    elif isinstance(context, (str, os.PathLike)):
        way_out = f"for certificates in a file give {_WAY_TO_TRUST.format(repr(os.fspath(context)))}"
    else:
        way_out = f"make one with {_WAY_TO_TRUST.format(repr('ca.pem'))}"
    raise TypeError(f"ssl is an ssl.SSLContext or None, not {context!r}: {way_out}")


def check_switches(**switches: object) -> None:
    """Check options that are on or off.

    Raises:
        TypeError: One is no bool.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} is True or False, not {value!r}")


def check_lengths(**seconds: float | None) -> None:
    """Check options that are a time in seconds, or `None`.

    Raises:
        TypeError: One is no number.
        ValueError: One is zero or less, or has no end.
    """
    for name, value in seconds.items():
        if value is not None:
            check_seconds(name, value)


def check_callable(name: str, value: object, takes: str) -> None:
    """Check an option that is called.

    Raises:
        TypeError: It can't be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is called with {takes}, and {value!r} can't be called")


def check_connector(connector: object) -> None:
    """Check the `connector` option.

    Raises:
        TypeError: It is no connector of aiohttp.
    """
    if connector is not None and not isinstance(connector, aiohttp.BaseConnector):
        raise TypeError(f"connector is an aiohttp.BaseConnector, as aiohttp.TCPConnector(limit=0), not {connector!r}")


def check_traces(traces: object) -> list[aiohttp.TraceConfig]:
    """The `trace_configs` option as a list.

    Raises:
        TypeError: It holds something else.
    """
    found: list[object] = list(traces) if isinstance(traces, Iterable) else [traces, None]
    configs = [each for each in found if isinstance(each, aiohttp.TraceConfig)]
    if len(configs) < len(found):
        raise TypeError(f"trace_configs is a list of aiohttp.TraceConfig, not {traces!r}")
    return configs


def check_number(name: str, number: object) -> None:
    """Check an option that is a count, or `None`.

    Raises:
        ValueError: It is no int of at least 1.
    """
    if number is not None and (type(number) is not int or number < 1):
        raise ValueError(f"{name} is an int of at least 1, or None, not {number!r}")
