"""The options of a client: wrong ones are refused at once, with how to write them right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aioetcd2 import Client, EndpointSelection, InvalidEndpointError, NoEndpointsError

ENDPOINT = "http://127.0.0.1:2379"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.mark.parametrize(
    ("endpoints", "error", "words"),
    [
        (
            "a:1,b:2",
            InvalidEndpointError,
            "not an endpoint: 'a:1,b:2': for several endpoints give a list: ['a:1', 'b:2']",
        ),
        ("http://a:1 http://b:2", InvalidEndpointError, "give a list: ['http://a:1', 'http://b:2']"),
        (" http://a:1", InvalidEndpointError, "it has white space"),
        (2379, InvalidEndpointError, "an endpoint is a str, as 'http://127.0.0.1:2379', not int: 2379"),
        (4001, InvalidEndpointError, "an endpoint is a str, as 'http://127.0.0.1:4001', not int: 4001"),
        (None, InvalidEndpointError, "an endpoint is a str, as 'http://127.0.0.1:2379', not NoneType: None"),
        (b"http://a:1", InvalidEndpointError, "an endpoint is a str, as 'http://127.0.0.1:2379', not bytes"),
        ([ENDPOINT, None], InvalidEndpointError, "not NoneType: None"),
        ([("a", 2379)], InvalidEndpointError, "not tuple: ('a', 2379)"),
        ([], NoEndpointsError, "one is enough, as in 'http://127.0.0.1:2379'"),
        ("", InvalidEndpointError, "the host is missing"),
        ("etcd://a:1", InvalidEndpointError, "the scheme must be http, https or unix"),
        ("http://a:1/v2/keys", InvalidEndpointError, "only scheme, host and port are allowed"),
        ("http://root:pw@a:1", InvalidEndpointError, "credentials go into username= and password="),
    ],
)
def test_endpoints(endpoints: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        Client(endpoints)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_list_of_endpoints_is_not_advised_where_that_would_show_a_password() -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        Client("http://root:hunter2,a:1@b:2")
    assert "hunter2" not in str(caught.value)


CAFILE = "ssl.create_default_context(cafile='ca.pem')"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ssl": False}, TypeError, f"not False: leave it out to have .* checked .*{CAFILE}.*no switch that turns"),
        ({"ssl": True}, TypeError, f"not True: leave it out to have servers checked .*; for others give {CAFILE}"),
        ({"ssl": "ca.pem"}, TypeError, f"not 'ca.pem': for certificates in a file give {CAFILE}"),
        ({"ssl": Path("ca.pem")}, TypeError, f"for certificates in a file give {CAFILE}"),
        (
            {"ssl": aiohttp.Fingerprint(b"0" * 32)},
            TypeError,
            f"ssl is an ssl.SSLContext or None, .*make one with {CAFILE}",
        ),
        ({"header_timeout": "5"}, TypeError, "header_timeout is a number of seconds, not str"),
        ({"header_timeout": True}, TypeError, "header_timeout is a number of seconds, not bool"),
        ({"header_timeout": 0}, ValueError, "header_timeout is above 0 seconds and finite, not 0"),
        ({"probe_interval": 0}, ValueError, "probe_interval is above 0 seconds and finite, not 0"),
        ({"probe_interval": None}, TypeError, "probe_interval is a number of seconds, not NoneType"),
        ({"auto_sync": True}, TypeError, "auto_sync is a number of seconds, not bool"),
        ({"quorum": "yes"}, TypeError, "quorum is True or False, not 'yes'"),
        ({"repeat_writes": 1}, TypeError, "repeat_writes is True or False, not 1"),
        ({"trust_env": None}, TypeError, "trust_env is True or False, not None"),
        (
            {"selection": "leader"},
            ValueError,
            "selection is EndpointSelection.RANDOM or EndpointSelection.PRIORITIZE_LEADER, not 'leader'",
        ),
        (
            {"check_redirect": 5},
            TypeError,
            "check_redirect is called with the number of redirects, and 5 can't be called",
        ),
        ({"max_connections": 0}, ValueError, "max_connections is an int of at least 1, or None, not 0"),
        ({"max_connections": 1.5}, ValueError, "max_connections is an int of at least 1, or None, not 1.5"),
        ({"connector": "c"}, TypeError, r"connector is an aiohttp\.BaseConnector, as aiohttp\.TCPConnector\(limit=0\)"),
        ({"trace_configs": aiohttp.TraceConfig()}, TypeError, "trace_configs is a list of aiohttp.TraceConfig, not <"),
        ({"trace_configs": [1]}, TypeError, r"trace_configs is a list of aiohttp.TraceConfig, not \[1\]"),
        ({"username": "u"}, ValueError, "username and password go together"),
        ({"password": "hunter2"}, ValueError, "username and password go together"),
        ({"username": 5, "password": "hunter2"}, ValueError, "username and password go together, and both are str"),
        ({"username": "a:b", "password": "hunter2"}, ValueError, "a user name has no ':'"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    pattern = words.replace("(cafile=", r"\(cafile=").replace("pem')", r"pem'\)")
    with pytest.raises(error, match=pattern) as caught:
        Client(ENDPOINT, **options)
    assert "hunter2" not in str(caught.value)


def test_right_ones_are_taken() -> None:
    selection: Any = "random"
    Client(ENDPOINT, selection=selection, header_timeout=None, trace_configs=(aiohttp.TraceConfig(),), ssl=None)
    assert EndpointSelection("random") is EndpointSelection.RANDOM
