"""The questions of a measurement, with their right answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from pdp.bench.bundle import AGENT, FORBIDDEN, SERVER, TOOL, USER, generated_files
from pdp.foundation.jsontext import digest

_REPEATED = 64
# One question in four must be denied: a server that allows everything is detected.
_DENIED_EVERY = 4
_ITEM_CHARACTERS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """The user and agent of questions; one session is opened for each."""

    user: str
    agent: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call, and whether it must be allowed. `asker` is an index, from 0, into the workload's list.

    `arguments_digest` is that of the arguments as the API writes it; `question` fills it in.
    """

    server: str
    tool: str
    arguments_json: bytes = field(repr=False)
    arguments_digest: str
    allowed: bool
    asker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A bundle, and questions about it.

    `files` is the bundle, and `file` where the questions were read from. A session is opened for each of `askers`, with
    `tool_patterns`. `repeated` are questions that are asked repeatedly, so that their answers are remembered after the
    first time. `fresh` returns one that was never asked before; None where a workload has none.
    """

    name: str
    file: str
    files: Mapping[str, bytes] = field(repr=False)
    askers: Sequence[Asker]
    tool_patterns: Sequence[str]
    repeated: Sequence[Question] = field(repr=False)
    fresh: Callable[[], Question] | None


def generated_workload() -> Workload:
    """Return ten policies per slice, 300-byte arguments, one denied question in four."""
    numbers = count()
    return Workload(
        name="generated",
        file="",
        files=generated_files(),
        askers=(Asker(user=USER, agent=AGENT),),
        tool_patterns=(f"{SERVER}/*",),
        repeated=tuple(_question("repeated", number) for number in range(_REPEATED)),
        fresh=lambda: _question("fresh", next(numbers)),
    )


def _question(word: str, number: int) -> Question:
    denied = number % _DENIED_EVERY == _DENIED_EVERY - 1
    item = f"{FORBIDDEN}-{word}-{number}" if denied else f"{word}-{number}"
    return question(SERVER, TOOL, arguments(item), allowed=not denied)


def question(server: str, tool: str, arguments_json: bytes, *, allowed: bool, asker: int = 0) -> Question:
    """Return a question, with the digest that the answer must repeat."""
    return Question(
        server=server,
        tool=tool,
        arguments_json=arguments_json,
        arguments_digest=digest(arguments_json),
        allowed=allowed,
        asker=asker,
    )


def arguments(item: str) -> bytes:
    """Return well-formed arguments of about 300 bytes."""
    return json.dumps({"item": item.ljust(_ITEM_CHARACTERS, "."), "limit": 50, "deep": True}).encode()
