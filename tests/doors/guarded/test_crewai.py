"""CrewAI's agent with a model of our own: it has no adapter, and a guard on the function holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import clear_before_tool_call_hooks, register_before_tool_call_hook
from pydantic import PrivateAttr

from pdp.v1.decision_pb2 import BASIS_DEFAULT_DENY, OUTCOME_DENY, Decision
from tests.doors.adapters.page import asked, example

pytestmark = pytest.mark.long


class ScriptedModel(BaseLLM):
    """A model that calls one tool with what it is told, and keeps what it was last shown."""

    _left: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _shown: str = PrivateAttr(default="")

    def call(self, messages: Any, *_: Any, **__: Any) -> str:
        """Return the next call, or the end."""
        self._shown = str(messages)
        if not self._left:
            return "Thought: I now can give a great answer\nFinal Answer: that is all"
        return f"Thought: go\nAction: git_log\nAction Input: {json.dumps(self._left.pop(0))}"


def _play(tools: Sequence[Any], *calls: dict[str, Any]) -> str:
    """Run an agent that makes the calls; return what its model was shown at the end."""
    model = ScriptedModel(model="scripted")
    model._left = list(calls)
    agent = Agent(role="coder", goal="test", backstory="none", llm=model, tools=list(tools))
    Crew(agents=[agent], tasks=[Task(description="go", expected_output="all", agent=agent)], cache=True).kickoff()
    return model._shown


def test_a_guarded_function_does_not_run_when_it_is_denied() -> None:
    """The model is told, and the run goes on."""

    def denied(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        decision.outcome, decision.basis = OUTCOME_DENY, BASIS_DEFAULT_DENY
        return decision

    with example("python crewai") as (defined, session, server):
        server.decide = denied
        shown = _play(defined["tools_with_guard"](session), {"path": "/srv"})

        assert "denied: `git/git_log`" in shown
        assert "log of /srv" not in shown
        assert [("git", "git_log")] == asked(server)


def test_every_call_is_asked_about() -> None:
    """Also one that the framework has a result of: its cache is off."""
    with example("python crewai") as (defined, session, server):
        shown = _play(defined["tools_with_guard"](session), {"path": "/srv"}, {"path": "/opt"}, {"path": "/srv"})

        assert "log of /srv" in shown
        assert [("git", "git_log")] * 3 == asked(server)


def test_a_hook_that_raises_lets_the_tool_run() -> None:
    """So a hook is no gate there, and this project has no adapter for it."""
    hooked: list[str] = []

    def broken(context: Any) -> bool:
        hooked.append(context.tool_name)
        raise RuntimeError("no decision")

    with example("python crewai") as (defined, session, server):
        register_before_tool_call_hook(broken)
        try:
            shown = _play(defined["tools_with_guard"](session), {"path": "/srv"})
        finally:
            clear_before_tool_call_hooks()

        assert ["git_log"] == hooked
        assert "log of /srv" in shown
        assert [("git", "git_log")] == asked(server)
