"""tau2 retail through the service: one policy that compares owner and user tells every owner from everybody else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pdp.client import Answer
from pdp.testing.bundles import SCHEMA, bundle_files
from pdp.testing.inprocess import RunningServer, running_server
from tests.machinery.agentruns import JSON, definitions_of, rows
from tests.machinery.servers.replayed import open_session

# Which argument names the resource of a call, by the type of the resource.
NAMING = {"Order": "order_id", "Account": "user_id"}

OWNED = """
entity Order in [Server] = { owner?: User };
entity Account in [Server] = { owner?: User };
"""

OWNERS = """
@id("retail/owners")
permit (principal, action in [Action::"read_only", Action::"mutating"], resource in Server::"retail")
when { resource has owner && resource.owner == principal };
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was asked, what was answered to each, and what was recorded."""

    cases: list[JSON]
    answers: list[Answer]
    records: tuple[dict[str, Any], ...]

    def answered(self, expected: str) -> Counter[tuple[str, str, tuple[str, ...]]]:
        """Count the answers to the cases with an expectation: outcome, basis, policies."""
        return Counter(
            (answer.outcome.value, answer.basis, answer.policies)
            for case, answer in zip(self.cases, self.answers, strict=True)
            if case["expected"] == expected
        )


@pytest.fixture(scope="module")
def replay(test_data: Path) -> Replay:
    """Ask about every case, each user in a session of its own."""
    cases = list(rows(test_data / "tau2" / "retail_ownership_cases.jsonl"))
    with running_server(owner_bundle(cases)) as server:
        return Replay(cases=cases, answers=ask(server, cases), records=server.evidence.decision_records)


def owner_bundle(cases: list[JSON]) -> dict[str, bytes]:
    """Return a bundle with the tools that the cases call, the mapping of each, and the owner of every resource."""
    return bundle_files(
        policies={"retail": OWNERS},
        tools={"retail": definitions_of(cases)},
        overlays={"retail": json.dumps({"tools": {case["tool"]: overlay(case) for case in cases}})},
        directory=json.dumps(directory(cases)),
        schema=SCHEMA + OWNED,
    )


def overlay(case: JSON) -> JSON:
    """Say how the calls of a tool map to a resource, and what they may do."""
    risk = "read_only" if case["tool"].startswith("get_") else "mutating"
    return {"risk": risk, "resource": {"type": case["resource_type"], "id": f"{{{NAMING[case['resource_type']]}}}"}}


def directory(cases: list[JSON]) -> JSON:
    """Return the directory: users, the agent, and who owns what."""
    owners = {(case["resource_type"], case["resource_id"]): case["owner"] for case in cases}
    return {
        "users": {name: {} for case in cases for name in (case["user"], case["owner"])},
        "agents": {"retail-agent": {"ceiling": ["retail/*"]}},
        "entities": [
            {"type": kind, "id": name, "attributes": {"owner": {"type": "User", "id": owner}}}
            for (kind, name), owner in owners.items()
        ],
    }


def ask(server: RunningServer, cases: list[JSON]) -> list[Answer]:
    """Ask about the cases in order, each in the session of its user."""
    pep, approver = server.client("pep"), server.client("approver")
    sessions = {
        user: open_session(pep, approver, user=user, agent="retail-agent", tools=("retail/*",))
        for user in {case["user"] for case in cases}
    }
    return [sessions[case["user"]].authorize("retail", case["tool"], case["args"]) for case in cases]


def test_owners_are_allowed(replay: Replay) -> None:
    """All 397 calls by the owner are allowed, and by the owner policy."""
    assert {("allow", "permit", ("retail/owners",)): 397} == replay.answered("allow")


def test_everybody_else_is_denied(replay: Replay) -> None:
    """All 397 calls of the same tools with the same arguments for another user are denied, as nothing permits them."""
    assert {("deny", "default_deny", ()): 397} == replay.answered("deny")


def test_every_call_was_about_the_thing_that_it_names(replay: Replay) -> None:
    """The record names user and resource of each call; ids with `#` arrive as they are."""
    expected = [(case["user"], case["resource_type"], case["resource_id"]) for case in replay.cases]
    recorded = {record["id"]: record for record in replay.records}
    found = [recorded[answer.decision_id] for answer in replay.answers]

    assert expected == [(record["user"], record["resource_type"], record["resource_id"]) for record in found]
    assert len(replay.cases) == len(replay.records)
    assert any(record["resource_id"].startswith("#") for record in found)
