"""Mutation testing: change one thing in one module, run its tests, and see whether one fails.

    git clone . ../mutants && cd ../mutants     # so that nothing is edited meanwhile
    python -m tests.mutate _net.endpoints tests/test_endpoints.py

A mutant is the module's syntax tree with one node replaced, compiled in memory: this process forks once per mutant, and
the fork imports it for the module and runs pytest up to the first failure. No source file is changed. The module as it
is comes first, and has to pass. Processes that tests start import the module from its file, so they know no mutant.

Where a whole file of tests takes too long, those that run the mutated statement are enough, the fast ones first, until
they would take longer than a budget:

    export COVERAGE_FILE=.coverage.tests
    python -m pytest tests --cov aioetcd2 --cov-context=test --durations=0 --durations-min=0 > seconds
    python -m tests.mutate _net.transport --coverage .coverage.tests --durations seconds --budget 20

Types, imports, docstrings, log messages and texts of errors are left alone. A mutant that survives is a test that is
missing, or the same program in other words: somebody has to look.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import itertools
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple, TypeVar
from unittest.mock import patch

import coverage
import hypothesis
import pytest

PACKAGE = "aioetcd2"
# fmt: off
PRELOADED = (  # what most tests import, so that no fork has to
    "_hypothesis_pytestplugin", "aiohttp.web", "dns.resolver", "hypothesis.internal.conjecture.engine", "msgspec",
    "pytest_asyncio.plugin", "pytest_cov.plugin", "pytest_timeout", "trustme",
)
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
METHODS = {
    "discard": "add", "fullmatch": "match", "isascii": "isprintable", "isdisjoint": "issuperset",
    "isprintable": "isascii", "lower": "upper", "partition": "rpartition", "rpartition": "partition",
    "rstrip": "lstrip", "search": "match", "startswith": "endswith", "upper": "lower",
}
# fmt: on
DROPPED = ast.AugAssign | ast.Expr | ast.Raise | ast.Delete | ast.Break | ast.Continue
IGNORED_FIELDS = {"annotation", "conversion", "ctx", "decorator_list", "format_spec", "op", "ops", "returns"}

Node = TypeVar("Node", bound=ast.AST)


class Change(NamedTuple):
    """What a node may become, and how to say it where the code of both does not."""

    new: ast.AST
    after: str = ""
    before: ast.AST | None = None


class Mutant(NamedTuple):
    """A change, and where in the tree it goes: `at` counts in a field that is a list."""

    line: int
    what: str
    parent: ast.AST
    field: str
    at: int
    new: ast.AST

    def apply(self) -> None:
        old = getattr(self.parent, self.field)
        setattr(self.parent, self.field, put(old, self.at, self.new) if isinstance(old, list) else self.new)


def show(node: ast.AST) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 90 else text[:87] + "..."


def put(items: Sequence[ast.AST], at: int, *new: ast.AST) -> list[ast.AST]:
    """The items with others, or nothing, in the place of one."""
    return [*items[:at], *new, *items[at + 1 :]]


def changed(node: Node, **fields: object) -> Node:
    new = copy.copy(node)
    for field, value in fields.items():
        setattr(new, field, value)
    return new


def changes(node: ast.AST, field: str, text: bool) -> Iterator[Change]:
    """What may become of a node in that field of its parent; `text`: it is only part of what a human reads."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield Change(changed(node, ops=put(ops, at, other())))
        case ast.BoolOp(op=op, values=values):
            yield Change(changed(node, op=ast.Or() if isinstance(op, ast.And) else ast.And()))
            for at in range(len(values)):
                rest = put(values, at)
                yield Change(changed(node, values=rest) if len(rest) > 1 else rest[0])
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield Change(node.operand)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield Change(changed(node, op=OPERATORS[type(op)]()))
        case ast.Constant(value=bool(value)):
            yield Change(ast.Constant(not value))
        case ast.Constant(value=int(value) | float(value)):
            yield Change(ast.Constant(value + 1))
        case ast.Constant(value=str(value) | bytes(value)) if not text:
            yield Change(ast.Constant(value + "XX" if isinstance(value, str) else value + b"XX"))
            if len(value) > 1:
                yield Change(ast.Constant(value[:0]))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, ast.UnaryOp) and not (isinstance(test, ast.Compare) and len(test.ops) == 1):
                yield Change(changed(node, test=ast.UnaryOp(ast.Not(), test)))  # else a change of the test is the same
            if isinstance(node, ast.IfExp):
                yield Change(node.body)
                yield Change(node.orelse)
            elif isinstance(node, ast.If):
                yield Change(changed(node, test=ast.Constant(False)))
                yield Change(changed(node, test=ast.Constant(True)))
        case ast.Call(keywords=keywords) if not text:
            for at, keyword in enumerate(keywords):
                yield Change(changed(node, keywords=put(keywords, at)), f"without {keyword.arg}=")
        case ast.Tuple(elts=elts) | ast.List(elts=elts) | ast.Set(elts=elts) if is_collection(node, elts, field):
            for at, element in enumerate(elts):
                yield Change(changed(node, elts=put(elts, at)), f"without {show(element)}")
        case ast.Name(id=name) if name in FUNCTIONS and field == "func":
            yield Change(changed(node, id=FUNCTIONS[name]))
        case ast.Attribute(attr=name) if name in METHODS and field == "func":
            yield Change(changed(node, attr=METHODS[name]))
        case ast.Return(value=ast.expr() as value) if show(value) != "None":
            yield Change(changed(node, value=ast.Constant(None)))
        case ast.Try(handlers=handlers):
            for at, handler in enumerate(handlers):
                kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else []
                for nth, kind in enumerate(kinds):
                    fewer = changed(handler, type=changed(handler.type or kind, elts=put(kinds, nth)))
                    yield Change(changed(node, handlers=put(handlers, at, fewer)), f"without {show(kind)}", handler)
                if len(handlers) > 1 or (node.finalbody and not node.orelse):
                    yield Change(changed(node, handlers=put(handlers, at)), "removed", handler)
        case ast.Assign(targets=targets) if all(isinstance(each, ast.Attribute | ast.Subscript) for each in targets):
            yield Change(ast.Pass())
    if isinstance(node, DROPPED) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield)):
        yield Change(ast.Pass())
    if isinstance(node, ast.Break | ast.Continue):
        yield Change(ast.Continue() if isinstance(node, ast.Break) else ast.Break())


def is_collection(node: ast.AST, elements: list[ast.expr], field: str) -> bool:
    """Whether elements may be left out: of what is searched or is constant, but not of what will be unpacked."""
    if len(elements) < 2 or not all(isinstance(each, ast.Constant | ast.Name | ast.Attribute) for each in elements):
        return False
    if field == "value" and not isinstance(node, ast.Set):
        return not any(isinstance(each, ast.Name) and not each.id[:1].isupper() for each in elements)
    return field in {"value", "comparators", "args"}


def is_ignored(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.ClassDef(bases=bases):
            return "Protocol" in map(show, bases)
        case ast.If(test=test):
            return "TYPE_CHECKING" in show(test)
        case ast.Assign(targets=targets):
            return not {"__slots__", "__all__", "logger"}.isdisjoint(map(show, targets))
        case ast.Call(func=func):
            return show(func).startswith(("logger.", "logging."))
    return False


def mutants(parent: ast.AST, text: bool = False) -> Iterator[Mutant]:
    for field, value in ast.iter_fields(parent):
        for at, node in enumerate(value if isinstance(value, list) else [value]):
            if field in IGNORED_FIELDS or not isinstance(node, ast.AST) or is_ignored(node):
                continue
            for new, after, before in changes(node, field, text):
                ast.fix_missing_locations(new if hasattr(new, "lineno") else ast.copy_location(new, node))
                what = f"{show(before or node)}  =>  {after or show(new)}"
                yield Mutant(getattr(before or node, "lineno", 0), what, parent, field, at, new)
            is_error = isinstance(node, ast.Raise | ast.Call) and re.match(r"raise\b|\w+Error\(", show(node))
            yield from mutants(node, text or bool(is_error))


def run_forked(name: str, tree: ast.Module, mutant: Mutant | None, tests: Iterable[str], output: int) -> None:
    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        return compile(tree, loader.path, "exec") if fullname == name else original(loader, fullname)

    os.dup2(output, 1)
    os.dup2(output, 2)
    if mutant:
        mutant.apply()
    original = SourceFileLoader.get_code
    patch.object(SourceFileLoader, "get_code", get_code).start()
    preloaded = "ignore::pytest.PytestAssertRewriteWarning"
    code = pytest.main(["-x", "-W", preloaded, "-p", "no:cacheprovider", "--tb=line", "--timeout=20", *tests])
    sys.stdout.flush()
    os._exit(code)


def run(name: str, tree: ast.Module, mutant: Mutant | None, tests: Iterable[str], limit: float) -> tuple[str, str]:
    """What becomes of a mutant, and why."""
    with tempfile.TemporaryFile() as output:
        arguments = name, tree, mutant, tests, output.fileno()
        fork = multiprocessing.get_context("fork").Process(target=run_forked, args=arguments)
        fork.start()
        fork.join(limit)
        if fork.exitcode is None:
            assert fork.pid
            os.kill(fork.pid, signal.SIGINT)  # let it stop the servers that it has started
            fork.join(5)
            fork.kill()
            fork.join()
            return "timeout", f"{limit:g} s"
        output.seek(0)
        text = output.read().decode(errors="replace")
    found = re.search(r"(\d+ passed)" if fork.exitcode == 0 else r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return "killed" if fork.exitcode else "SURVIVED", found[1] if found else "".join(text.splitlines()[-1:])


def tests_by_line(
    tree: ast.Module, file: Path, recorded: str, durations_file: str | None, budget: float
) -> dict[int, list[str]]:
    """The tests that run the statement of a line, the fast ones first, in a budget; for what runs at import, all."""
    durations: defaultdict[str, float] = defaultdict(float)
    timed = Path(durations_file).read_text() if durations_file else ""
    for seconds, test in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(.+)$", timed, re.MULTILINE):
        durations[test] += float(seconds)
    data = coverage.CoverageData(recorded)
    data.read()
    by_line = data.contexts_by_lineno(str(file.resolve()))
    contexts = {line: {each.rpartition("|")[0] for each in of_line} for line, of_line in by_line.items()}
    if not contexts:
        raise SystemExit(f"{recorded} says nothing of {file.resolve()}")
    statements: dict[int, range] = {}
    for node in ast.walk(tree):  # the inner ones after the outer ones
        if isinstance(node, ast.stmt):
            body: list[ast.stmt] = getattr(node, "body", [])
            last = body[0].lineno - 1 if body else node.end_lineno or 0
            lines = range(node.lineno, max(last, node.lineno) + 1)
            statements.update(dict.fromkeys(lines, lines))
    found = {}
    for line in range(1, max(statements) + 1):
        tests = set().union(*(contexts.get(each, set()) for each in statements.get(line, [line])))
        if "" in tests:
            tests = set().union(*contexts.values()) - {""}
        fast_first = sorted(tests, key=lambda test: (durations[test], test))
        spent = itertools.accumulate(durations[test] for test in fast_first)
        found[line] = [test for test, seconds in zip(fast_first, spent, strict=True) if seconds <= budget]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("module", metavar="MODULE", help="such as _net.endpoints")
    parser.add_argument("tests", metavar="TESTFILE", nargs="*", help="the tests for each mutant")
    parser.add_argument("--list", action="store_true", help="only say which mutants there are")
    parser.add_argument("--only", metavar="N,N", help="the numbers of the mutants to try")
    parser.add_argument("--part", metavar="K/N", default="1/1", help="only every Nth, beginning with the Kth")
    parser.add_argument("--sample", metavar="N", type=int, help="how many to try, chosen at random")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of the choice")
    parser.add_argument("--until", metavar="HH:MM", default="24", help="when to stop, today")
    parser.add_argument("--limit", metavar="SECONDS", type=float, default=40, help="for each mutant")
    parser.add_argument("--coverage", metavar="FILE", help="instead of TESTFILE: which test runs what")
    parser.add_argument("--durations", metavar="FILE", help="how long each test takes")
    parser.add_argument(
        "--budget", metavar="SECONDS", type=float, default=float("inf"), help="for the tests of a mutant"
    )
    options = parser.parse_args()
    if not (options.list or bool(options.tests) != bool(options.coverage)):
        parser.error("either TESTFILE or --coverage is needed")

    name = f"{PACKAGE}.{options.module}"
    file = Path(*name.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_bytes())
    every = chosen = list(enumerate(mutants(tree)))
    if options.only:
        chosen = [every[int(number)] for number in options.only.split(",")]
    elif options.sample:
        chosen = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    first, _, step = options.part.partition("/")
    chosen = chosen[int(first) - 1 :: int(step)]
    print(f"{file}: {len(every)} mutants, {len(chosen)} chosen, seed {options.seed}", flush=True)
    if options.list:
        for number, mutant in chosen:
            print(f"{number:4} {file}:{mutant.line}: {mutant.what}")
        return

    by_line: dict[int, list[str]] = {}
    if options.coverage:
        by_line = tests_by_line(tree, file, options.coverage, options.durations, options.budget)
    tests = {number: by_line.get(mutant.line, options.tests) for number, mutant in chosen}
    for each in PRELOADED:
        importlib.import_module(each)
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    if used := sorted({test for of_mutant in tests.values() for test in of_mutant}):
        outcome, why = run(name, tree, None, used, 10 * options.limit)
        if outcome != "SURVIVED":
            raise SystemExit(f"the unmutated module does not pass: {outcome} [{why}]")

    begin = time.monotonic()
    outcomes: Counter[str] = Counter()
    for number, mutant in chosen:
        if time.strftime("%H:%M") >= options.until:
            print("time is up")
            break
        outcome, why = "SURVIVED", "no test runs this line"
        if tests[number]:
            outcome, why = run(name, tree, mutant, tests[number], options.limit)
        outcomes[outcome] += 1
        print(f"{number:4} {outcome:8} {file}:{mutant.line}: {mutant.what}   [{why}]", flush=True)
    print(f"{file}: {dict(outcomes)}, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
