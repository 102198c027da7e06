"""What pytest loads of aioetcd2, as the plugin `aioetcd2.pytest_plugin`: its fixtures and its option.

It is no part of the package, and imports it only once a fixture is used. pytest loads a plugin in every run, wherever
aioetcd2 is installed, and before the coverage of its modules can be measured.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    LoopScope = Literal["function", "class", "module", "package", "session"]

    from aioetcd2 import Client
    from aioetcd2.pytest_plugin import CleanStore
    from aioetcd2.testing import EtcdCluster, EtcdServer

T = TypeVar("T")

QUICK_START = ("--heartbeat-interval=10", "--election-timeout=50")
"""A server that is alone elects itself: after a second by default, which each start would wait for."""

QUICK_ELECTIONS = ("--heartbeat-interval=50", "--election-timeout=500")

LOOP_SCOPES: tuple[LoopScope, ...] = ("function", "class", "module", "package", "session")

CLIENTS_ON_LOOPS = "aioetcd2.pytest_plugin: clients for pytest-asyncio"

CLIENT_ON_LOOP = "_etcd_client_on_{}_loop"

CLIENT_ON_ANYIO = "_etcd_client_on_anyio"

NONE_RUNS_IT = (
    "etcd_client is for async tests that pytest-asyncio or anyio runs: install one of them, and mark the test with "
    "@pytest.mark.asyncio or @pytest.mark.anyio. A test that is none can use etcd, the endpoints"
)

BOTH_CLAIM_IT = (
    "pytest-asyncio and anyio both claim this test, each with an event loop of its own: set asyncio_mode = strict, and "
    "mark the test for one of them"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option `etcd_missing`."""
    parser.addini(
        "etcd_missing", "what becomes of tests that need an etcd where there is none: fail or skip", default="fail"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an option that means nothing, and give pytest-asyncio its fixtures, which it looks for at collection."""
    if (missing := config.getini("etcd_missing")) not in ("fail", "skip"):
        raise pytest.UsageError(f"etcd_missing is fail or skip, not {missing!r}")
    if _has_pytest_asyncio(config) and not version("pytest-asyncio").startswith("0."):
        import pytest_asyncio

        fixtures = ModuleType(CLIENTS_ON_LOOPS)
        for scope in LOOP_SCOPES:
            decorate = pytest_asyncio.fixture(name=CLIENT_ON_LOOP.format(scope), loop_scope=scope)
            setattr(fixtures, scope, decorate(_client_opener()))
        config.pluginmanager.register(fixtures, CLIENTS_ON_LOOPS)


@pytest.fixture(scope="session")
def etcd_server(pytestconfig: pytest.Config) -> Iterator[EtcdServer]:
    """An `EtcdServer` that runs, with the v2 API: one for the session."""
    from aioetcd2.testing import EtcdServer

    _find_etcd(pytestconfig)
    server = EtcdServer(flags=QUICK_START)
    _run(server.__aenter__())
    yield server
    _run(server.__aexit__(None, None, None))


@pytest.fixture
def etcd_cluster(pytestconfig: pytest.Config) -> Iterator[EtcdCluster]:
    """An `EtcdCluster` of three members, which the test may hurt; a lost leader is replaced within about a second."""
    from aioetcd2.testing import EtcdCluster

    _find_etcd(pytestconfig)
    cluster = EtcdCluster(size=3, flags=QUICK_ELECTIONS)
    _run(cluster.__aenter__())
    yield cluster
    _run(cluster.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def _etcd_store(etcd_server: EtcdServer) -> CleanStore:
    from aioetcd2.pytest_plugin import CleanStore

    return CleanStore(etcd_server)


@pytest.fixture
def etcd(etcd_server: EtcdServer, _etcd_store: CleanStore) -> tuple[str, ...]:
    """The endpoints of `etcd_server`, as a `Client` takes them; its store is empty when the test begins."""
    _run(_etcd_store.clean())
    return etcd_server.endpoints


@pytest.fixture
def etcd_client(request: pytest.FixtureRequest, etcd: tuple[str, ...]) -> Client:
    """A `Client` for an async test, under pytest-asyncio or anyio; its store is empty when the test begins.

    It lives on the event loop of the test: an async fixture of the plugin that runs the test opens and closes it.
    """
    client: Client = request.getfixturevalue(_opening_on_the_loop_of(request))
    return client


def _client_opener() -> Callable[[tuple[str, ...]], AsyncIterator[Client]]:
    async def open_client(etcd: tuple[str, ...]) -> AsyncIterator[Client]:
        from aioetcd2 import Client

        async with Client(etcd) as client:
            yield client

    return open_client


_on_anyio = pytest.fixture(name=CLIENT_ON_ANYIO)(_client_opener())


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    return any(map(config.pluginmanager.has_plugin, ("asyncio", "pytest_asyncio.plugin")))


def _opening_on_the_loop_of(request: pytest.FixtureRequest) -> str:
    """The name of the async fixture that opens a client on the event loop of a test."""
    mark = request.node.get_closest_marker("asyncio") if _has_pytest_asyncio(request.config) else None
    if "anyio_backend" in request.fixturenames:
        if mark is not None:
            pytest.fail(BOTH_CLAIM_IT, pytrace=False)
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.skip(f"aioetcd2 needs asyncio, and does not run on {backend}")
        return CLIENT_ON_ANYIO
    if mark is None:
        pytest.fail(NONE_RUNS_IT, pytrace=False)
    if not request.config.pluginmanager.has_plugin(CLIENTS_ON_LOOPS):
        pytest.fail("etcd_client needs pytest-asyncio 1.0 or later", pytrace=False)
    scope = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope")
    return CLIENT_ON_LOOP.format(scope or request.config.getini("asyncio_default_test_loop_scope"))


def _find_etcd(config: pytest.Config) -> None:
    """Fail or skip what needs an etcd where there is none."""
    from aioetcd2.testing import find_etcd

    try:
        find_etcd()
    except FileNotFoundError as error:
        if config.getini("etcd_missing") == "skip" and not os.environ.get("AIOETCD2_ETCD"):
            pytest.skip(str(error))
        pytest.fail(str(error), pytrace=False)


def _run(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine in a thread of its own, so that no event loop of the tests' thread is touched."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
