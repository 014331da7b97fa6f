"""The JSON schema of test files takes what the reader takes, and refuses what the reader refuses."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pdp.errors import BundleError
from pdp.workbench.reading import read_suite, schema_text
from tests.workbench.material import FILE

VALIDATOR = Draft202012Validator(json.loads(schema_text()))

# What no JSON schema can say: names that are defined elsewhere in the file, and names that appear twice.
BETWEEN_PLACES = re.compile(
    r"unknown (session|call): |no expectation for |case `.*` appears twice|is its own parent|"
    r"`.*::.*` appears twice"
)

WHOLE: dict[str, Any] = {
    "name": "everything",
    "now": "2026-01-05T10:00:00Z",
    "approver": "lead",
    "gateway": "front",
    "users": {"ada": {"groups": ["staff"], "attributes": {"team": "x"}}, "eve": None},
    "agents": {"coder": {"groups": [], "ceiling": ["git/*", "git/git_*"]}},
    "entities": [{"type": "Thing", "id": "t", "attributes": {"n": 1}, "parents": [{"type": "Thing", "id": "u"}]}],
    "sessions": {
        "work": {
            "user": "ada",
            "agent": "coder",
            "tools": ["git/*"],
            "purpose": "x",
            "state": "ended",
            "grants": ["g"],
            "labels": ["l"],
            "environment": "e",
            "attributes": {"level": 1},
            "terms": {"ticket": "OPS-1", "max_sum": 20.5},
            "duration": 1.5,
            "may_delegate": True,
            "approver": "x",
            "gateway": "y",
        },
        "child": {"parent": "work", "tools": ["git/git_log"]},
    },
    "calls": {
        "read": {"tool": "git/git_log", "arguments": {"a": [1, {"b": None}]}, "caller": {"w": "x"}},
        "raw": {"tool": "a/b/c", "arguments": "{", "definition_digest": ""},
    },
    "cases": [
        {"case": "one", "session": "work", "call": "read", "expect": "deny forbid", "now": "2026-01-05T10:00+01:00"},
        {"case": "two", "session": "work", "step": "approve", "expect": {"outcome": "allow", "basis": "permit"}},
        {
            "case": "three",
            "sessions": ["work", "child"],
            "calls": ["read", "raw"],
            "expect": {
                "work": {
                    "read": "allow",
                    "raw": {"policies": ["p"], "errors": [], "obligations": ["n", {"r": {"a": [1]}}, {"x": None}]},
                },
                "child": "deny",
            },
        },
        {"case": "four", "session": "work", "calls": ["read"], "expect": {"read": "allow"}},
        {"case": "z", "session": "work", "call": "read", "step": "approve_call", "after": ["read"], "expect": "allow"},
        {"case": "y", "session": "work", "calls": ["read"], "step": "approve_call", "by": "ada", "expect": "allow"},
        {
            "case": "x",
            "session": "work",
            "call": "read",
            "step": "approve_call",
            "after": ["read", {"call": "raw", "result": {"id": 1}}],
            "approvals": ["raw"],
            "expect": "allow",
        },
        {"case": "five", "sessions": ["work"], "step": "request", "expect": {"basis": "default_deny"}},
        {"case": "six", "sessions": ["work"], "calls": ["read"], "expect": {"outcome": "deny"}},
        {"case": "eight", "session": "work", "approvals": ["read", "raw"], "calls": ["read"], "expect": "allow"},
        {
            "case": "seven",
            "session": "work",
            "after": ["read", {"call": "raw", "labels": ["l"], "failed": True}, {"call": "read"}],
            "call": "read",
            "expect": "allow",
        },
    ],
}
VALUES: tuple[Any, ...] = (
    None,
    True,
    3,
    1.5,
    -1.0,
    "x",
    "git/x",
    "allow",
    "allow forbid",
    ["x"],
    [3],
    {"x": "x"},
    {"x": {}},
)
KEYS = ("x", "user", "tools", "outcome", "session", "sessions", "calls", "step", "parent", "expect", "after", "by")


def read_problems(document: dict[str, Any]) -> list[str]:
    """Return what the reader finds wrong with a document."""
    try:
        # JSON is YAML, and quickly written.
        read_suite(FILE, json.dumps(document).encode())
    except BundleError as error:
        return [one.message for one in error.problems]
    return []


def judged(document: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Say whether the schema refuses a document, the reader does, and for something that a schema could say."""
    problems = read_problems(document)
    beyond = [problem for problem in problems if not BETWEEN_PLACES.search(problem)]
    return not VALIDATOR.is_valid(document), bool(problems), bool(beyond)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a document: a mapping or list, and a key or index of it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(document: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """Return the document with one place removed, renamed, doubled or given another value."""
    made = copy.deepcopy(document)
    where, key = source.choice(list(places(made)))
    match source.choice(("remove", "rename", "replace", "replace", "add")):
        case "remove":
            del where[key]
        case "rename" if isinstance(where, dict):
            where[source.choice(KEYS)] = where.pop(key)
        case "add" if isinstance(where, dict):
            where[source.choice(KEYS)] = copy.deepcopy(source.choice(VALUES))
        case _:
            where[key] = copy.deepcopy(source.choice(VALUES))
    return made


def test_schema_is_one() -> None:
    """The schema itself is right."""
    Draft202012Validator.check_schema(json.loads(schema_text()))


def test_whole_document_is_taken_by_both() -> None:
    """A file that uses everything is right for the schema and for the reader."""
    assert ([], []) == ([error.message for error in VALIDATOR.iter_errors(WHOLE)], read_problems(WHOLE))


def compare(seed: int, documents: int) -> tuple[list[dict[str, Any]], int]:
    """Return the documents about which schema and reader differ, and how many the schema refused."""
    source = random.Random(seed)  # noqa: S311 - no secret depends on it
    different, count = [], 0
    for _ in range(documents):
        document = changed(WHOLE, source)
        document = changed(document, source) if source.random() < 0.3 else document
        by_schema, by_reader, by_reader_beyond_names = judged(document)
        count += by_schema
        if (by_schema and not by_reader) or (by_reader_beyond_names and not by_schema):
            different.append(document)
    return different, count


@pytest.mark.parametrize("seed", range(3))
def test_changed_documents_are_judged_alike(seed: int) -> None:
    """Documents with one or two random changes are taken by both or refused by both."""
    different, refused = compare(seed, 60)

    assert [] == different
    assert 10 < refused < 60


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_changed_documents_are_judged_alike(seed: int) -> None:
    """The same for thousands of documents."""
    different, _ = compare(seed, 200)

    assert [] == different
