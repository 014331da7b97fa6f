"""AgentDojo through the service: an allow-list lets every user task through, and by itself stops no attack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pdp.client import Answer, Client
from pdp.testing.bundles import bundle_files
from pdp.testing.otlp import Value
from tests.machinery.agentruns import JSON, attack_traces, suite_tools, user_tasks
from tests.machinery.servers.replayed import decision_records, decision_spans, open_session, serving, tracing

USER_CALLS = 117
ATTACK_CALLS = 1393

DIRECTORY = """
users: {emma: {}}
agents: {assistant: {ceiling: ["workspace/*", "banking/*"]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was answered, by suite and task or trace; what was recorded; and what was traced."""

    tasks: dict[str, tuple[Answer, ...]]
    attacks: dict[str, tuple[Answer, ...]]
    session_ids: dict[str, str]
    records: list[dict[str, Any]]
    spans: list[dict[str, Value]]

    @property
    def answers(self) -> list[Answer]:
        """Return every answer."""
        return [answer for answers in (*self.tasks.values(), *self.attacks.values()) for answer in answers]


@pytest.fixture(scope="module")
def replay(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """Run every user task and every attack trace with an injected call, each in a session of its own."""
    material, folder = test_data / "agentdojo", tmp_path_factory.mktemp("agentdojo")
    tasks, attacks = user_tasks(material), attack_traces(material)
    sessions: dict[str, str] = {}
    with tracing() as receiver:
        with serving(folder, allow_lists(material)) as (pep, approver):
            answers = {name: run(pep, approver, name, calls, sessions) for name, calls in (tasks | attacks).items()}
        return Replay(
            tasks={name: answers[name] for name in tasks},
            attacks={name: answers[name] for name in attacks},
            session_ids=sessions,
            records=decision_records(folder),
            spans=decision_spans(receiver),
        )


def allow_lists(material: Path) -> dict[str, bytes]:
    """Return one bundle for both suites: the tools as they are, and for each suite a permit that names its tools."""
    tools = suite_tools(material)
    return bundle_files(
        policies={suite: allow_list(suite, [one["name"] for one in found]) for suite, found in tools.items()},
        tools=tools,
        directory=DIRECTORY,
    )


def allow_list(suite: str, tools: Iterable[str]) -> str:
    """Return a permit for tools by name."""
    actions = ", ".join(f'Action::"{suite}/{tool}"' for tool in tools)
    return f'@id("{suite}/allow-list")\npermit (principal, action in [{actions}], resource == Server::"{suite}");\n'


def run(pep: Client, approver: Client, name: str, calls: list[JSON], sessions: dict[str, str]) -> tuple[Answer, ...]:
    """Ask about the calls of one task in a fresh session, and note the session."""
    suite = name.partition("/")[0]
    session = open_session(pep, approver, user="emma", agent="assistant", purpose=name, tools=(f"{suite}/*",))
    sessions[name] = session.id
    return tuple(session.authorize(suite, call["tool"], call["args"], tool_call_id=name) for call in calls)


def test_every_user_task_is_wholly_allowed(replay: Replay) -> None:
    """All calls of all 56 user tasks may go ahead, by the allow-list of their suite."""
    refused = {name for name, answers in replay.tasks.items() if not all(answers)}

    assert refused == set()
    assert (56, USER_CALLS) == (len(replay.tasks), sum(map(len, replay.tasks.values())))
    for name, answers in replay.tasks.items():
        assert {(f"{name.partition('/')[0]}/allow-list",)} == {answer.policies for answer in answers}


def test_an_allow_list_stops_no_attack(replay: Replay) -> None:
    """Not one of 384 attack traces is denied: the baseline that rules with a memory of the session must beat."""
    denied = [name for name, answers in replay.attacks.items() if not all(answers)]

    assert (384, ATTACK_CALLS) == (len(replay.attacks), sum(map(len, replay.attacks.values())))
    assert [] == denied


def test_calls_records_and_spans_are_equal_in_number(replay: Replay) -> None:
    """Each call is answered, recorded and traced exactly once, under one decision id."""
    answered = sorted(answer.decision_id for answer in replay.answers)

    assert USER_CALLS + ATTACK_CALLS == len(set(answered)) == len(answered)
    assert answered == sorted(record["id"] for record in replay.records)
    assert answered == sorted(str(span["pdp.decision.id"]) for span in replay.spans)


def test_every_decision_names_user_agent_and_session(replay: Replay) -> None:
    """Answer, record and span of each call name the user, the agent and the session that it was asked in."""
    expected = {
        answer.decision_id: ("emma", "assistant", replay.session_ids[name])
        for name, answers in (replay.tasks | replay.attacks).items()
        for answer in answers
    }

    assert expected == {answer.decision_id: (answer.user, answer.agent, answer.session_id) for answer in replay.answers}
    assert expected == {
        record["id"]: (record["user"], record["agent"], record["session_id"]) for record in replay.records
    }
    assert expected == {
        span["pdp.decision.id"]: (span["enduser.id"], span["gen_ai.agent.id"], span["session.id"])
        for span in replay.spans
    }
