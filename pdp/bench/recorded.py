"""Recorded calls as a workload: from a file with one call a line, or from a decision log.

A line is a JSON object: `server`, `tool` and `arguments`, and optionally `session` (calls of one name share one
session), `user`, `agent`, and `expect` (`allow` or `deny`). A decision log holds no arguments; calls with equal
arguments there are equal here too, so that sessions, tools, order and repetition are those of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdp.bench.bundle import AGENT, USER
from pdp.errors import ConfigurationError
from pdp.foundation.nearest import hint
from pdp.record import read_records

_REQUIRED = {"server": str, "tool": str, "arguments": dict}
_OPTIONAL = {"session": str, "user": str, "agent": str, "expect": str}
_KINDS = {**_REQUIRED, **_OPTIONAL}
_WORDS: Mapping[type, str] = {str: "a text", dict: "an object"}
_EXPECTED = {"allow": True, "deny": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call; `place` is its file and line, and `expected` is None when no outcome is stated."""

    place: str
    server: str
    tool: str
    arguments: Mapping[str, Any] = field(repr=False)
    session: str
    user: str
    agent: str
    expected: bool | None


def read_calls(path: Path) -> tuple[RecordedCall, ...]:
    """Return the calls of a file, or of a folder with a decision log.

    Raise `ConfigurationError`, with a line for each problem that begins with file and line.
    """
    calls = tuple(_from_record(path) if path.is_dir() else _from_file(path))
    if not calls:
        raise ConfigurationError(f"`{path}` holds no calls")
    return calls


def _from_file(path: Path) -> Iterator[RecordedCall]:
    problems: list[str] = []
    calls: list[RecordedCall] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        row = _row(line)
        found = [f"{place}: {one}" for one in _problems(row)]
        problems += found
        calls += [] if found else [_call(place, row)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return iter(calls)


def _row(line: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(line)
    except ValueError:
        return None


def _problems(row: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if not isinstance(row, dict):
        yield "not a JSON object"
        return
    for name in row:
        if name not in _KINDS:
            yield f"unknown field: `{name}`{hint(name, _KINDS)}"
    for name, kind in _KINDS.items():
        if name not in row:
            if name in _REQUIRED:
                yield f"`{name}` is missing"
        elif not isinstance(row[name], kind):
            yield f"`{name}` must be {_WORDS[kind]}"
    expected = row.get("expect")
    if isinstance(expected, str) and expected not in _EXPECTED:
        yield f"`expect` is `{expected}`; write `allow` or `deny`"


def _call(place: str, row: Mapping[str, Any]) -> RecordedCall:
    return RecordedCall(
        place=place,
        server=row["server"],
        tool=row["tool"],
        arguments=row["arguments"],
        session=row.get("session", ""),
        user=row.get("user", USER),
        agent=row.get("agent", AGENT),
        expected=_EXPECTED[row["expect"]] if "expect" in row else None,
    )


def _from_record(folder: Path) -> Iterator[RecordedCall]:
    for located in read_records(folder):
        record = located.record
        # Without a session the policies decided nothing.
        if record.get("kind") == "decision" and record.get("session_id"):
            yield RecordedCall(
                place=f"{located.file}:{located.line}",
                server=record["server"],
                tool=record["tool"],
                arguments={"arguments_digest": record["arguments_digest"]},
                session=record["session_id"],
                user=record["user"],
                agent=record["agent"],
                expected=None,
            )


def arguments_of(call: RecordedCall) -> bytes:
    """Return the arguments as an agent would write them."""
    return json.dumps(call.arguments, ensure_ascii=False).encode()
