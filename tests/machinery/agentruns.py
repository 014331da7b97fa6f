"""Read workloads, and make tool definitions for those that bring calls only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pdp.testing.bundles import tool

JSON = dict[str, Any]

# The suites with ground truth and attacks.
SUITES = ("workspace", "banking")

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def rows(path: Path) -> Iterator[JSON]:
    """Yield the objects of a file with one per line, packed or not."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    for line in text.splitlines():
        yield json.loads(line)


def user_tasks(material: Path) -> dict[str, list[JSON]]:
    """Return the ground-truth calls of each user task."""
    tasks: dict[str, list[JSON]] = {}
    for row in rows(material / "calls.jsonl.gz"):
        if row["kind"] == "user":
            tasks.setdefault(f"{row['suite']}/{row['task']}", []).append(row)
    return tasks


def attack_traces(material: Path) -> dict[str, list[JSON]]:
    """Return the calls of each attack trace that injects any."""
    traces = {row["id"]: row["calls"] for row in rows(material / "attack_traces.jsonl.gz")}
    return {name: calls for name, calls in traces.items() if any(call["origin"] == "injection" for call in calls)}


def task_texts(material: Path) -> dict[str, str]:
    """Return what the user asked for in each user task."""
    tasks = (row for row in rows(material / "tasks.jsonl.gz") if row["kind"] == "user")
    return {f"{row['suite']}/{row['task']}": row["text"] for row in tasks}


def suite_tools(material: Path) -> dict[str, list[JSON]]:
    """Return the definitions of the tools of each suite, as a server lists them."""
    tools: dict[str, list[JSON]] = {}
    for row in rows(material / "tools.jsonl.gz"):
        if row["suite"] in SUITES:
            tools.setdefault(row["suite"], []).append({key: row[key] for key in ("name", "description", "inputSchema")})
    return tools


def definitions_of(calls: Iterable[JSON]) -> list[JSON]:
    """Return a definition for each tool in the calls; what every call of a tool names is required.

    A call has a `tool` and its `args`. The definitions are sorted by name.
    """
    arguments: dict[str, list[JSON]] = {}
    for call in calls:
        arguments.setdefault(call["tool"], []).append(call["args"])
    return [_definition(name, seen) for name, seen in sorted(arguments.items())]


def _definition(name: str, seen: list[JSON]) -> JSON:
    values: dict[str, list[Any]] = {}
    for arguments in seen:
        for parameter, value in arguments.items():
            values.setdefault(parameter, []).append(value)
    properties = {parameter: _schema(found) for parameter, found in values.items()}
    return tool(name, properties, [parameter for parameter, found in values.items() if len(found) == len(seen)])


def _schema(values: list[Any]) -> JSON:
    kinds = sorted({_KINDS[type(value)] for value in values})
    if kinds == ["array"]:
        items = [item for value in values for item in value]
        return {"type": "array", "items": _schema(items)} if items else {"type": "array"}
    return {"type": kinds[0] if len(kinds) == 1 else kinds}
