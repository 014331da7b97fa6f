"""BFCL's multi-turn workload through the service: every call gets an answer, one by one, in batches and on streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

from pdp.client import Answer, Client, ClientSession, ToolCall
from pdp.policy.tools.importing import propose_overlay, propose_risk
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import running_server
from tests.machinery.agentruns import JSON, definitions_of, rows
from tests.machinery.servers.replayed import open_session

# What the file holds: the categories `base` and `long_context`.
CALLS = 2345
CONVERSATIONS = 400

DIRECTORY = """
users: {ann: {}}
agents: {assistant: {ceiling: ["bfcl/*"]}}
"""

HARMLESS = """
@id("bfcl/harmless")
permit (principal, action in [Action::"read_only", Action::"mutating"], resource == Server::"bfcl");
"""

Way = Callable[[Client, ClientSession, list[JSON]], list[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Every call with the way in which it was asked about and the answer; and the number of records."""

    asked: list[tuple[str, JSON, Answer]]
    recorded: list[str]


@pytest.fixture(scope="module")
def replay(test_data: Path) -> Replay:
    """Ask about every conversation in a session of its own, in turn one by one, as batches and on a stream."""
    calls = list(rows(test_data / "bfcl" / "multi_turn_calls.jsonl"))
    tools = definitions_of(calls)
    files = bundle_files(
        policies={"bfcl": HARMLESS},
        tools={"bfcl": tools},
        overlays={"bfcl": propose_overlay("bfcl", tools)},
        directory=DIRECTORY,
    )
    conversations: dict[tuple[str, str], list[JSON]] = {}
    for call in calls:
        conversations.setdefault((call["category"], call["id"]), []).append(call)
    asked: list[tuple[str, JSON, Answer]] = []
    with running_server(files) as server:
        pep, approver = server.client("pep"), server.client("approver")
        for number, conversation in enumerate(conversations.values()):
            name, way = WAYS[number % len(WAYS)]
            session = open_session(pep, approver, user="ann", agent="assistant", tools=("bfcl/*",))
            answers = way(pep, session, conversation)
            asked += [(name, call, answer) for call, answer in zip(conversation, answers, strict=True)]
        recorded = [record["id"] for record in server.evidence.decision_records]
    assert len(conversations) == CONVERSATIONS
    return Replay(asked=asked, recorded=recorded)


def one_by_one(_: Client, session: ClientSession, calls: list[JSON]) -> list[Answer]:
    """Ask about each call with an RPC of its own."""
    return [session.authorize("bfcl", call["tool"], call["args"]) for call in calls]


def as_batches(_: Client, session: ClientSession, calls: list[JSON]) -> list[Answer]:
    """Ask about all calls of a turn at once."""
    answers: list[Answer] = []
    for _, turn in groupby(calls, key=itemgetter("turn")):
        answers += session.batch([ToolCall(server="bfcl", tool=call["tool"], arguments=call["args"]) for call in turn])
    return answers


def on_a_stream(pep: Client, session: ClientSession, calls: list[JSON]) -> list[Answer]:
    """Ask about the calls one after the other on one stream."""
    with pep.stream() as stream:
        return [stream.authorize(session.handle, "bfcl", call["tool"], call["args"]) for call in calls]


WAYS: tuple[tuple[str, Way], ...] = (("unary", one_by_one), ("batch", as_batches), ("stream", on_a_stream))


def test_every_call_gets_an_answer(replay: Replay) -> None:
    """No call is without a decision, whichever way it was asked; a share of at least a quarter went each way."""
    ways = Counter(way for way, _, _ in replay.asked)

    assert [] == [answer.error for _, _, answer in replay.asked if answer.error]
    assert CALLS == len(replay.asked) == len({answer.decision_id for _, _, answer in replay.asked})
    assert all(ways[way] >= CALLS // 4 for way, _ in WAYS)


def test_every_way_decides_by_risk_alone(replay: Replay) -> None:
    """Whichever way it is asked, what destroys is denied and the rest is allowed; no argument is refused."""
    expected = [(way, call["tool"], "default_deny" if destroys(call) else "permit") for way, call, _ in replay.asked]

    assert expected == [(way, call["tool"], answer.basis) for way, call, answer in replay.asked]
    assert {(way, basis) for way, _, basis in expected} == {
        (way, basis) for way, _ in WAYS for basis in ("permit", "default_deny")
    }


def test_every_answer_is_recorded(replay: Replay) -> None:
    """The record holds each decision once, also those of batches and streams."""
    assert sorted(answer.decision_id for _, _, answer in replay.asked) == sorted(replay.recorded)


def destroys(call: JSON) -> bool:
    """Say whether the import proposes the group `destructive` for the tool of a call."""
    return propose_risk({"name": call["tool"]})[0] == "destructive"
