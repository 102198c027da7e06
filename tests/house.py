"""The rules of the house, as `docs/architecture.md` tells them: each says what is wrong with a folder of sources.

They read the sources and import nothing, so that they can be shown to fail on a copy with a fault in it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("models", "events"),
    ("_net.request", "_net.endpoints", "_net.deadlines", "_net.addresses", "_net.turns", "_net.tally"),
    ("_net.secrets", "_net.curl", "_net.credentials", "_net.verdict", "_net.exchange", "_net.foreign"),
    ("_net.reporter", "_net.causes", "_net.raw", "_net.one_for_all", "_net.options"),
    ("_net.rediscovery", "_net.redirects", "_net.places", "_net.sending", "_net.stream"),
    ("_net.routes",),
    ("_net.transport",),
    ("_net.failover",),
    ("_watching.steps", "_watching.outage", "_watching.opening"),
    ("_watching.speaker",),
    ("_watching.looks", "_watching.buffering", "_watching.liveness"),
    ("_watching.surroundings", "_watching.calls"),
    ("_watching.renewal", "_watching.registration"),
    ("_watching.driver",),
    ("_v2.requests", "_v2.deep", "_v2.census", "_v2.lost_events", "_v3"),
    ("_v2.responses",),
    ("_v2.auth", "_v2.cluster", "_v2.identity", "_v2.stream"),
    ("_v2.catch_up", "_v2.position", "_v2.hearing", "_v2.past"),
    ("_v2.counting", "_v2.history_apart", "_v2.watch_machine"),
    ("_v2.watching",),
    ("_v2.keys",),
    ("watch", "members", "auth", "stats", "discovery"),
    ("keys",),
    ("client",),
    ("recipes", "testing"),
    ("pytest_plugin",),
    ("migrate",),
    ("cli",),
    ("__main__",),
)
"""Each module imports only from levels above its own. A room without a dot is of one level; some are yet to come."""

ROOMS = ("_net", "_watching", "_v2", "_v3", "recipes", "migrate", "cli")
ON_THE_FACADES = ("recipes", "migrate", "cli", "testing", "pytest_plugin", "__main__")
"""Rooms and modules that know the public API alone."""

SPEAK_TO_AIOHTTP = (
    "_net.transport",
    "_net.routes",
    "_net.sending",
    "_net.stream",
    "_net.places",
    "_net.causes",
    "_net.options",
)
"""Exchanges, and the connections that they travel over."""

MOST_LINES = 300
MOST_COMPLEX = 12

_LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


class Import(NamedTuple):
    """A name that a module imports: absolute module, and name, empty for a plain import."""

    module: str
    name: str
    line: int


class Module:
    """One source file.

    Args:
        folder: The package's folder.
        path: The file.
        source: What is in it.

    Attributes:
        path: The file.
        name: Its dotted name below the package, as `_net.request`; empty for the package itself.
        source: What is in it.
        tree: Its syntax tree.
    """

    def __init__(self, folder: Path, path: Path, source: str) -> None:
        parts = [*path.relative_to(folder).parts[:-1], *([] if path.stem == "__init__" else [path.stem])]
        self._package = [folder.name, *path.relative_to(folder).parts[:-1]]
        self.path = path
        self.name = ".".join(parts)
        self.source = source
        self.tree = ast.parse(self.source)

    @property
    def is_public(self) -> bool:
        """Whether users import it."""
        return bool(self.name) and not any(part.startswith("_") for part in self.name.split("."))

    @cached_property
    def imports(self) -> list[Import]:
        """What it imports at run time."""
        found = []
        for node in at_run_time(self.tree):
            if isinstance(node, ast.Import):
                found += [Import(alias.name, "", node.lineno) for alias in node.names]
            else:
                above = self._package[: len(self._package) - node.level + 1] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                found += [Import(module, alias.name, node.lineno) for alias in node.names]
        return found

    @cached_property
    def exported(self) -> list[str] | None:
        """Its `__all__`; `None` where it has none."""
        names: list[str] | None = None
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
                names = ast.literal_eval(node.value)
        return names

    @cached_property
    def defined(self) -> set[str]:
        """The classes and functions that it makes."""
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return {node.name for node in self.tree.body if isinstance(node, kinds)}

    @cached_property
    def code_lines(self) -> int:
        """Its lines but for blank ones, comments and docstrings."""
        texts: set[int] = set()
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                texts.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = enumerate(self.source.splitlines(), 1)
        return sum(1 for number, line in lines if number not in texts and line.strip() and line.strip()[0] != "#")


_module = lru_cache(Module)
"""What is looked at again is not parsed again."""


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


class House:
    """A folder of sources, and what is wrong with it.

    Args:
        folder: The package's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = [_module(folder, path, path.read_text("utf-8")) for path in sorted(folder.rglob("*.py"))]
        self._names = {module.name for module in self.modules}

    def complaints(self) -> Iterator[str]:
        """Everything that is wrong, what is found soonest first."""
        rules = (
            self.modules_in_no_room,
            self.imports_against_the_levels,
            self.aiohttp_outside_the_transport,
            self.hands_on_the_pool,
            self.lines_logged_elsewhere,
            self.dialects_in_the_net,
            self.engine_rooms_entered_from_below,
            self.modules_that_are_too_long,
            self.exports_that_are_wrong,
            self.errors_that_are_none,
            self.public_names_without_a_docstring,
            self.functions_that_are_too_complex,
        )
        for rule in rules:
            yield from rule()

    def ours(self, module: Module) -> Iterator[tuple[str, Import]]:
        """What a module imports of this package: the dotted name of the module that is meant, empty for the package."""
        for each in module.imports:
            first, _, rest = each.module.partition(".")
            if first == self.folder.name:
                inner = f"{rest}.{each.name}" if rest else each.name
                yield (inner if inner in self._names and each.name else rest), each

    def level_of(self, name: str) -> int | None:
        """The number of a module's level; `None` where the house has no place for it."""
        return _LEVEL.get(name, _LEVEL.get(name.partition(".")[0]))

    def _where(self, module: Module, line: int) -> str:
        return f"{module.path.relative_to(self.folder)}:{line}"

    def modules_in_no_room(self) -> Iterator[str]:
        """A module whose place nobody has said."""
        for module in self.modules:
            if module.name and module.name not in ROOMS and self.level_of(module.name) is None:
                yield f"{module.name} has no level"

    def imports_against_the_levels(self) -> Iterator[str]:
        """A module that imports from its own level or from one below; from the package itself, whoever is in it."""
        for module in self.modules:
            own = self.level_of(module.name)
            if own is None:
                continue
            for other, found in self.ours(module):
                room = module.name.partition(".")[0]
                if room in ROOMS and room in _LEVEL and other.partition(".")[0] == room:
                    continue  # both in a room of one level
                level = self.level_of(other) if other else _LEVEL["client"]
                if level is None or level >= own:
                    yield f"{self._where(module, found.line)}: {module.name} imports {other or self.folder.name}"

    def aiohttp_outside_the_transport(self) -> Iterator[str]:
        """Another module that speaks to aiohttp."""
        for module in self.modules:
            for found in module.imports:
                if found.module.partition(".")[0] in ("aiohttp", "yarl") and module.name not in SPEAK_TO_AIOHTTP:
                    yield f"{self._where(module, found.line)}: {module.name} imports {found.module}"

    def hands_on_the_pool(self) -> Iterator[str]:
        """Another module than failover and client that decides about endpoints."""
        for module in self.modules:
            if module.name not in ("_net.endpoints", "_net.failover", "client") and "EndpointPool" in module.source:
                yield f"{module.name} touches the pool"

    def lines_logged_elsewhere(self) -> Iterator[str]:
        """Another module than the reporter that logs, or prints."""
        for module in self.modules:
            if module.name.partition(".")[0] in ("_net", "_watching", "_v2", "_v3") or module.is_public:
                for found in module.imports:
                    if found.module.partition(".")[0] == "logging" and module.name != "_net.reporter":
                        yield f"{self._where(module, found.line)}: {module.name} logs"

    def dialects_in_the_net(self) -> Iterator[str]:
        """A word of one of etcd's APIs in the room that knows none."""
        for module in self.modules:
            if module.name.startswith("_net"):
                for number, line in enumerate(module.source.splitlines(), 1):
                    if word := re.search(r"v2|v3|x-etcd|x-raft", line, re.IGNORECASE):
                        yield f"{self._where(module, number)}: {module.name} says {word[0]}"

    def engine_rooms_entered_from_below(self) -> Iterator[str]:
        """What is built on the public API, and reaches behind it."""
        for module in self.modules:
            if module.name.partition(".")[0] in ON_THE_FACADES:
                for other, found in self.ours(module):
                    inside = other.partition(".")[0] == module.name.partition(".")[0] and other in self._names
                    if not inside and any(part.startswith("_") for part in [*other.split("."), found.name]):
                        yield f"{self._where(module, found.line)}: {module.name} imports {other} {found.name}"

    def modules_that_are_too_long(self) -> Iterator[str]:
        """A module that nobody reads in one sitting."""
        for module in self.modules:
            if module.code_lines > MOST_LINES:
                yield f"{module.name} has {module.code_lines} lines of code, more than {MOST_LINES}"

    def functions_that_are_too_complex(self) -> Iterator[str]:
        """A function with too many ways through it, as ruff counts them (C901)."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format=concise"),
                *("--select=C901", "--config", f"lint.mccabe.max-complexity={MOST_COMPLEX}", str(self.folder)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        yield from (line for line in (done.stdout + done.stderr).splitlines() if "C901" in line or "rror:" in line)

    def exports_that_are_wrong(self) -> Iterator[str]:
        """An `__all__` that is missing, unsorted, incomplete, or names what is not there."""
        for module in self.modules:
            if not module.is_public:
                continue
            names = module.exported
            if names is None:
                yield f"{module.name} has no __all__"
                continue
            if names != sorted(set(names)):
                yield f"{module.name}: __all__ is not sorted"
            imported = {found.name for found in module.imports}
            for name in names:
                if name not in module.defined | imported | _assigned(module.tree):
                    yield f"{module.name}: __all__ names {name}, which is not there"
            for name in sorted(module.defined):
                if not name.startswith("_") and name not in names:
                    yield f"{module.name}: {name} is public, and not in __all__"

    def errors_that_are_none(self) -> Iterator[str]:
        """A public exception that is no `EtcdError`, or is made elsewhere than in `errors`."""
        errors = next(module for module in self.modules if module.name == "errors")
        known = {"EtcdError"}
        for node in errors.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "EtcdError":
                bases = {ast.unparse(base) for base in node.bases}
                if bases & known:
                    known.add(node.name)
                elif "IntEnum" not in bases:
                    yield f"errors.{node.name} is no EtcdError"
        for module in self.modules:
            if not module.is_public or module is errors:
                continue
            for node in module.tree.body:
                if (
                    isinstance(node, ast.ClassDef)
                    and node.name[0] != "_"
                    and any(map(_is_error, map(ast.unparse, node.bases)))
                ):
                    yield f"{module.name}.{node.name} is an error outside of errors"

    def public_names_without_a_docstring(self) -> Iterator[str]:
        """Something that users see, and nobody explains."""
        for module in self.modules:
            if module.is_public:
                if ast.get_docstring(module.tree) is None:
                    yield f"{module.name} has no docstring"
                yield from (f"{name} has no docstring" for name in undocumented(module.tree, module.name))


def undocumented(tree: ast.AST, where: str) -> Iterator[str]:
    """The public classes, functions and methods below a tree that have no docstring."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            name = f"{where}.{node.name}"
            overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)  # told by what comes last
            if ast.get_docstring(node) is None and not overload:
                yield name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, name)


def _is_error(base: str) -> bool:
    return base.endswith(("Error", "Exception"))


def _assigned(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names
