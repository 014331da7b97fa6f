"""What the cases of doors are played on: tools that count their runs, calls that a model makes, and policies."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.doors.core import Door
from pdp.testing.bundles import bundle_files, tool

# Every tool takes these. The door knows all but the last.
SCHEMA: Final[Mapping[str, Any]] = {"value": {}, "text": {"type": "string"}, "amount": {"type": "integer"}}
NAMES: Final = ("note", "pay", "people", "access", "big", "closed", "unmapped")
# As an adapter would see tools of an MCP server: a prefix, and no rule by which to split it.
PREFIX: Final = "the_desk_"
MAPPED: Final = {f"{PREFIX}{name}": f"desk/{name}" for name in NAMES[:-1]}
PEOPLE: Final = '[{"name": "Ann", "email": "ann@example.com"}]'

_POLICIES = """
@id("desk/open") permit (principal, action in [Action::"desk/note", Action::"desk/pay"], resource);
@id("desk/asked") @step_up("Pay?") forbid (principal, action == Action::"desk/pay", resource);
@id("desk/redacted") @obligation("redact_result: {fields: ['[].email']}")
permit (principal, action == Action::"desk/people", resource);
@id("desk/logged") @obligation("log_access: {}") permit (principal, action == Action::"desk/access", resource);
@id("desk/short") @obligation("max_result_bytes: {bytes: 10}")
permit (principal, action == Action::"desk/big", resource);
"""


def files(*, reports: bool = False, overlay: str = "") -> dict[str, bytes]:
    """Return a bundle with one rule for each tool; where it makes use of reports, results are reported."""
    return bundle_files(
        policies={"desk": _POLICIES},
        tools={"desk": [tool(name, SCHEMA) for name in NAMES[:-1]]},
        overlays={"desk": f"risk: mutating\n{overlay}"},
        directory="users: {alice: {}}\nagents: {coder: {ceiling: ['desk/*']}}\n",
        manifest="name: desk\nobligations: {log_access: {meaning: Written down}}\n",
        labels=("untrusted",) if reports else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call that the model makes; `before` happens first. Arguments that are a text are what the model wrote."""

    tool: str = "note"
    prefix: str = PREFIX
    arguments: Mapping[str, Any] | str = field(default_factory=lambda: {"text": "hello"})
    before: Callable[[], object] = lambda: None

    @property
    def name(self) -> str:
        """Return the framework's name of the tool."""
        return f"{self.prefix}{self.tool}"


class CountedTools:
    """The function behind every tool: it keeps what it ran with. Safe to use from many threads.

    `during` happens while it runs.
    """

    def __init__(self, returns: Any = "done", during: Callable[[], object] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._returns = returns
        self._during = during
        self.runs: list[tuple[str, Any]] = []

    def __call__(self, name: str, arguments: Any) -> Any:
        """Run the tool of a framework's name."""
        with self._lock:
            self.runs.append((name.removeprefix(PREFIX), copy.deepcopy(arguments)))
        self._during()
        return self._returns


class Driver:
    """Runs the agent of a framework, with a model that makes the calls it is told to make.

    `play` returns what the model saw of each call. A framework that knows only coroutines has only `play_async`.
    """

    name = ""
    # What the framework's names of tools begin with.
    prefix = PREFIX

    def play(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Play the steps one after the other, in one run of the agent."""
        raise NotImplementedError

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Do as `play`, for asyncio."""
        raise NotImplementedError
