"""Run tests against mutants: as a plugin of pytest, which collects once and then forks for each mutant.

First every test runs once in a child, which notes how long it takes and which functions of the mutated modules it
calls. Then, for each mutant, a child puts the mutated code into the function, in place, and runs the tests that call
this function, the fastest first, until one fails. A mistake outside of functions is put in place of the value that it
changes, wherever that is known by now, and met by tests that call anything of the module. A mistake in the body of a
class makes another class, so it gets a process of its own, in which the module is imported from the mutated source.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

import pytest

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parent.parent.parent

Fate = Literal["killed", "timeout", "survived", "not reached"]

_ALL_PASSED = 0
_SOME_FAILED = 1
_CALLED = "__called_by_a_test__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a mutant. `tests` says how many of the tests could reach it."""

    mutant: Mutant
    fate: Fate
    tests: int
    seconds: float

    @property
    def killed(self) -> bool:
        """Say whether a test noticed it; one that no longer ends was noticed too."""
        return self.fate in {"killed", "timeout"}


def source_file(module: str) -> Path:
    """Return the file of a module."""
    return ROOT / (module.replace(".", "/") + ".py")


def mutants(modules: Iterable[str]) -> list[Mutant]:
    """Return every mutant of some modules."""
    return [one for module in modules for one in mutants_of(module, source_file(module).read_text(encoding="utf-8"))]


class Campaign:
    """The plugin. `told` is called with each result; `results` holds them all when the session ends."""

    def __init__(self, mutated: Sequence[Mutant], told: Callable[[Result], None]) -> None:
        self._mutants = mutated
        self._told = told
        self.results: list[Result] = []
        # Tests that have found a mutant, by function: they are asked first about the next one of this function.
        self._finders: dict[tuple[str, str], list[str]] = {}
        self._child = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Look at every test, then run each mutant; a child leaves this to run its tests."""
        if session.testsfailed:
            raise session.Interrupted("a test cannot be collected")
        pipe, items = os.pipe(), list(session.items)
        if self._fork(session):
            os.close(pipe[0])
            session.config.pluginmanager.register(_Survey({one.module for one in self._mutants}, pipe[1]))
            return None
        os.close(pipe[1])
        with os.fdopen(pipe[0], encoding="utf-8") as lines:
            reached = _Reached.read(lines)
        os.wait()
        by_name = {one.nodeid: one for one in items}
        if reached.failed:
            raise session.Interrupted(f"a test fails without a mutant: {reached.failed[0]}")
        for mutant in self._mutants:
            chosen = reached.by_function(mutant) if mutant.function else reached.by_module(mutant.module)
            started = time.monotonic()
            if not chosen:
                fate: Fate | None = "not reached"
            elif mutant.of_class:
                fate = _imported(mutant, chosen, reached.limit(chosen))
            else:
                fate = self._patched(mutant, session, by_name, chosen, reached.limit(chosen))
            if fate is None:
                return None
            seconds = time.monotonic() - started
            self.results.append(Result(mutant=mutant, fate=fate, tests=len(chosen), seconds=seconds))
            self._told(self.results[-1])
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """End a child here: what follows is the parent's."""
        if self._child:
            os._exit(int(exitstatus))

    def _fork(self, session: pytest.Session) -> bool:
        """Return whether this is the child now; its output goes nowhere."""
        if os.fork():
            return False
        self._child = True
        os.setsid()
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        session.config.get_terminal_writer()._file = nowhere
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return True

    def _patched(
        self, mutant: Mutant, session: pytest.Session, items: dict[str, pytest.Item], chosen: list[str], limit: float
    ) -> Fate | None:
        finders = self._finders.setdefault((mutant.module, mutant.function), [])
        order = dict.fromkeys([*(one for one in finders if one in chosen), *chosen])
        pipe = os.pipe()
        if self._fork(session):
            session.items[:] = [items[one] for one in order]
            session.config.option.maxfail = 1
            session.config.pluginmanager.register(_Finding(pipe[1]))
            patch(importlib.import_module(mutant.module), mutant)
            return None
        os.close(pipe[1])
        fate = _wait(limit)
        with os.fdopen(pipe[0], encoding="utf-8") as found:
            # What found the latest one is asked first; a test that ended its process could not say so.
            for name in found.read().splitlines():
                finders[:] = [name, *(one for one in finders if one != name)]
        return fate


class _Finding:
    """A plugin that writes which test fails."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the id of a failed test."""
        if report.failed:
            os.write(self._pipe, report.nodeid.encode("utf-8") + b"\n")


def _wait(seconds: float) -> Fate:
    """Wait for the one child, but not longer than some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            return "survived" if status == 0 else "killed"
        time.sleep(0.02)
    # The child leads a group of its own, so that whatever it started ends with it.
    for child in _children():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.waitpid(-1, 0)
    return "timeout"


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(one) for one in text.split()]


def patch(module: ModuleType, mutant: Mutant) -> None:
    """Put a mistake into a module that is imported already, wherever what it changes is known by now."""
    code = compile(mutant.source, str(module.__file__), "exec")
    if mutant.function:
        _function(module, mutant.function).__code__ = _code_of(code, mutant.function)
        return
    other = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, other)  # noqa: S102 - our own source
    for name, value in other.items():
        mine = vars(module).get(name)
        if isinstance(value, FunctionType):
            if value.__module__ == module.__name__:
                _function(module, name).__defaults__ = value.__defaults__
                _function(module, name).__kwdefaults__ = value.__kwdefaults__
        elif isinstance(value, type):
            _take_defaults(module, name, value)
        elif not isinstance(value, ModuleType) and repr(mine) != repr(value):
            _replace(name, mine, value)


def _take_defaults(module: ModuleType, name: str, other: type) -> None:
    for method, value in vars(other).items():
        if isinstance(value, FunctionType) and value.__code__.co_filename == str(module.__file__):
            mine = _function(module, f"{name}.{method}")
            mine.__defaults__, mine.__kwdefaults__ = value.__defaults__, value.__kwdefaults__


def _replace(name: str, old: object, new: object) -> None:
    """Put one value in place of another in every module of the project that has it under its name."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(ROOT) and vars(module).get(name) is old:
            setattr(module, name, new)


def _function(module: ModuleType, path: str) -> FunctionType:
    found: Any = module
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, classmethod | staticmethod):
        found = found.__func__
    function = inspect.unwrap(found)
    if not isinstance(function, FunctionType):
        raise TypeError(f"`{path}` is no function")
    return function


def _code_of(code: CodeType, name: str) -> CodeType:
    pending = [code]
    while pending:
        one = pending.pop()
        if one.co_qualname == name:
            return one
        pending.extend(inner for inner in one.co_consts if isinstance(inner, CodeType))
    raise LookupError(f"no function: `{name}`")


@dataclass(slots=True)
class _Reached:
    """Which tests call which functions, and how long each takes."""

    seconds: dict[str, float] = field(default_factory=dict)
    functions: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[str]) -> _Reached:
        """Read what a survey wrote."""
        reached = cls()
        for line in lines:
            one = json.loads(line)
            reached.seconds[one["test"]] = one["seconds"]
            if one["failed"]:
                reached.failed.append(one["test"])
            for module, function in one["called"]:
                reached.functions.setdefault(module, {}).setdefault(function, set()).add(one["test"])
        return reached

    def by_function(self, mutant: Mutant) -> list[str]:
        """Return the tests that call the function of a mutant, the fastest first."""
        return self._fastest(self.functions.get(mutant.module, {}).get(mutant.function, set()))

    def by_module(self, module: str) -> list[str]:
        """Return the tests of every file in which a test calls a function of a module, the fastest first.

        A mistake outside of functions may be seen by a test that calls none of them.
        """
        calling = {test for tests in self.functions.get(module, {}).values() for test in tests}
        files = {test.split("::")[0] for test in calling}
        return self._fastest({test for test in self.seconds if test.split("::")[0] in files})

    def limit(self, tests: list[str]) -> float:
        """Return how many seconds some tests may take; the machine may be busier than it was."""
        return 30 + 6 * sum(self.seconds[one] for one in tests)

    def _fastest(self, tests: set[str]) -> list[str]:
        """Return tests in the order in which to ask them: of each function in turn the fastest row."""
        rows: dict[str, list[str]] = {}
        for test in sorted(tests, key=lambda one: (self.seconds[one], one)):
            rows.setdefault(test.split("[")[0], []).append(test)
        return [test for turn in zip_longest(*rows.values()) for test in turn if test is not None]


class _Survey:
    """A plugin that writes for each test which functions it calls and how long it takes."""

    def __init__(self, modules: Iterable[str], pipe: int) -> None:
        self._out = os.fdopen(pipe, "w", encoding="utf-8")
        self._called: set[tuple[str, str]] = set()
        self._failed = False
        # Called by the functions themselves, on whatever thread.
        vars(builtins)[_CALLED] = lambda *function: self._called.add(function)
        for module in modules:
            _announce(importlib.import_module(module))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Write what a test has called."""
        self._called, self._failed, started = set(), False, time.monotonic()
        result = yield
        line = {
            "test": item.nodeid,
            "seconds": time.monotonic() - started,
            "failed": self._failed,
            "called": sorted(self._called),
        }
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test has failed."""
        self._failed = self._failed or report.failed


def _announce(module: ModuleType) -> None:
    """Make each function of a module say that it is called."""
    tree = ast.parse(source_file(module.__name__).read_text(encoding="utf-8"))
    functions = []
    classes = [("", tree.body), *((f"{one.name}.", one.body) for one in tree.body if isinstance(one, ast.ClassDef))]
    for prefix, body in classes:
        for one in body:
            if isinstance(one, ast.FunctionDef):
                call = f"{_CALLED}({module.__name__!r}, {prefix + one.name!r})"
                one.body[:0] = ast.parse(call).body
                functions.append(prefix + one.name)
    source = ast.unparse(tree)
    for name in functions:
        patch(module, Mutant(module=module.__name__, name="", line=0, function=name, of_class=False, source=source))


# A mutant outside of functions, in a process of its own.


def _imported(mutant: Mutant, tests: list[str], seconds: float) -> Fate:
    job = json.dumps({"module": mutant.module, "source": mutant.source, "tests": tests})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.mutation.campaign"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
        text=True,
    )
    try:
        process.communicate(job, timeout=60 + seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "timeout"
    return "survived" if process.returncode == _ALL_PASSED else "killed"


class _Mutated(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.get_filename(fullname), "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, fullname: str, path: object, target: object = None) -> Any:  # noqa: ARG002 - the importer's own signature
        if fullname != self._module:
            return None
        file = str(source_file(fullname))
        return importlib.machinery.ModuleSpec(fullname, _Mutated(fullname, file, self._source), origin=file)


def options() -> list[str]:
    """Return how pytest runs here: quietly, each time with the same examples, and nothing is kept."""
    return ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "not long", "--no-header"]


def _run_one() -> int:
    job = json.load(sys.stdin)
    sys.meta_path.insert(0, _Finder(job["module"], job["source"]))
    try:
        return int(pytest.main([*options(), "-x", *job["tests"]]))
    except BaseException:  # noqa: BLE001 - a mutant that cannot even be imported is found
        return _SOME_FAILED


if __name__ == "__main__":
    sys.exit(_run_one())
