"""The Claude Agent SDK with its real program, and a model of our own behind it.

Each run of an agent is a program that starts anew, so most of the cases are *long*.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    SdkMcpTool,
    create_sdk_mcp_server,
    query,
)

from pdp.client import Client
from pdp.doors import claude_agent
from pdp.doors.admissions import Refusal
from pdp.doors.claude_agent import PDPHooks
from pdp.doors.core import DenyLoopError, Door
from pdp.testing.inprocess import RunningServer
from pdp.v1.authorization_pb2 import CALL_STATUS_FAILED, CALL_STATUS_SUCCEEDED
from tests.doors.adapters.messages import Block, Messages, served
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import DoorConformance, opened
from tests.doors.desk import NAMES, SCHEMA, CountedTools, Driver, Step

_PREFIX = "mcp__desk__"
_TABLE = {f"{_PREFIX}{name}": f"desk/{name}" for name in NAMES[:-1]}


def _model(steps: Sequence[Step], prefix: str = _PREFIX) -> tuple[Messages, list[Any]]:
    left = list(enumerate(steps))

    def answer() -> list[Block]:
        if not left:
            return [{"type": "text", "text": "that is all"}]
        number, step = left.pop(0)
        step.before()
        name = f"{prefix}{step.tool}"
        return [{"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": json.dumps(step.arguments)}]

    return Messages(answer), left


def _tool(name: str, tools: CountedTools) -> SdkMcpTool[Any]:
    async def function(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": str(tools(name, arguments))}]}

    schema = {"type": "object", "properties": dict(SCHEMA)}
    return SdkMcpTool(name=name, description=name, input_schema=schema, handler=function)


@contextmanager
def at_home(options: Any, messages: Messages) -> Iterator[None]:
    """Have the program find the model, and nothing of this machine's own settings."""
    with TemporaryDirectory() as folder, served(messages):
        options.cwd, options.setting_sources, options.permission_mode = folder, [], "bypassPermissions"
        options.env = {
            "ANTHROPIC_BASE_URL": messages.url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CONFIG_DIR": folder,
            "DISABLE_AUTOUPDATER": "1",
            "ENABLE_TOOL_SEARCH": "false",
            "HOME": folder,
            "IS_SANDBOX": "1",
        }
        yield


async def _run(options: Any, messages: Messages) -> str:
    """Run the agent, and return how its run ended."""
    with at_home(options, messages):
        last = ""
        answers: Any = query(prompt="go", options=options)
        async with aclosing(answers):
            async for message in answers:
                if isinstance(message, ResultMessage):
                    last = str(message)
        return last


class ClaudeAgentDriver(Driver):
    """`query`, with tools in this process."""

    name = "claude_agent"
    prefix = _PREFIX

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Run the program once."""
        messages, left = _model(steps)
        server = create_sdk_mcp_server("desk", tools=[_tool(name, tools) for name in NAMES])
        if run is not None:
            session_of = door.session_of
            vars(door)["session_of"] = lambda _: session_of(run)
        options = ClaudeAgentOptions(mcp_servers={"desk": server}, tools=[], hooks=PDPHooks(door).hooks)
        ended = await _run(options, messages)
        if left:
            raise DenyLoopError(Refusal(text=f"the run ended before the model did: {ended}"))
        return messages.shown


@pytest.mark.long
class TestClaudeAgent(DoorConformance):
    """The cases, with the program of the Claude Agent SDK."""

    driver = ClaudeAgentDriver()
    ways = ("asyncio",)


def test_the_page_does_what_it_says() -> None:
    """Its agent asks before it calls a tool."""
    tools = CountedTools()
    messages, _ = _model([Step(tool="log")], "mcp__git__")
    with example("python claude-agent") as (defined, session, server):
        options = defined["options_with_door"](session, create_sdk_mcp_server("git", tools=[_tool("log", tools)]))
        asyncio.run(_run(options, messages))

        assert ["done"] == messages.shown
        assert [("git", "git_log")] == asked(server)


def test_calls_are_asked_about_in_the_real_program(server: RunningServer) -> None:
    """The least that must hold in every run of the tests: an allow, a deny, a tool without an entry, another allow."""
    tools = CountedTools()
    steps = [Step(), Step(tool="closed"), Step(tool="unmapped"), Step(tool="people"), Step(arguments={"amount": 2})]
    with Client(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as client:
        door = Door(client.attach(opened(server)[1]), _TABLE)
        done, denied, unknown, redacted, again = asyncio.run(ClaudeAgentDriver().play_async(door, tools, steps))

    assert [("note", {"text": "hello"}), ("note", {"amount": 2})] == tools.runs
    assert "done" == done == again
    assert "(default_deny)" in denied
    assert "(unknown_tool)" in unknown
    assert "did not run" in redacted


def test_a_hook_that_would_raise_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework would run the tool."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("inner words")

    tools = CountedTools()
    with example("python claude-agent") as (_, session, _server):
        door = Door(session, _TABLE)
        monkeypatch.setattr(door, "ask_async", broken)
        (shown,) = asyncio.run(ClaudeAgentDriver().play_async(door, tools, [Step()]))

    assert [] == tools.runs
    assert "The door failed at a call" in shown
    assert "inner words" not in shown


@pytest.mark.parametrize("allowed", [True, False])
def test_built_in_tools_are_asked_about(tmp_path: Path, *, allowed: bool) -> None:
    """They need entries like others; a result that must be withheld ends the run."""
    file = tmp_path / "written"
    messages, _ = _model([Step(tool="Bash", arguments={"command": f"touch {file}", "description": "touch"})], "")
    with example("python claude-agent") as (_, session, server):
        door = Door(session, {"Bash": "shell/run"} if allowed else _TABLE)
        asyncio.run(_run(ClaudeAgentOptions(tools=["Bash"], hooks=PDPHooks(door).hooks), messages))

        assert allowed == file.exists()
        assert [("shell", "run")] * allowed == asked(server)


def test_a_result_of_a_built_in_tool_that_must_be_withheld_ends_the_run() -> None:
    """The framework keeps the original of a result whose replacement has another form."""
    messages, _ = _model([Step(tool="Bash", arguments={"command": "echo canary", "description": "echo"})], "")
    with example("python claude-agent") as (_, session, server):
        obliged(server, max_result_bytes={"bytes": 1})
        hooks = PDPHooks(Door(session, {"Bash": "shell/run"})).hooks
        ended = asyncio.run(_run(ClaudeAgentOptions(tools=["Bash"], hooks=hooks), messages))

    assert [] == messages.shown
    assert "that is all" not in ended


@pytest.mark.parametrize(("most", "shown"), [(10, []), (1000, ["x" * 100])])
def test_an_error_that_must_be_withheld_ends_the_run(most: int, shown: list[str]) -> None:
    """Nothing can replace it."""

    def fail() -> None:
        raise LookupError("x" * 100)

    messages, _ = _model([Step()])
    with example("python claude-agent") as (_, session, server):
        obliged(server, max_result_bytes={"bytes": most})
        tools = create_sdk_mcp_server("desk", tools=[_tool("note", CountedTools(during=fail))])
        hooks = PDPHooks(Door(session, _TABLE)).hooks
        asyncio.run(_run(ClaudeAgentOptions(mcp_servers={"desk": tools}, tools=[], hooks=hooks), messages))

        assert shown == messages.shown
        assert [CALL_STATUS_FAILED] == [one.status for one in server.sent("ReportOutcome")]


def test_a_conversation_that_holds_what_must_be_withheld_does_not_go_on() -> None:
    """The model would be shown all of it with the next prompt."""
    messages, _ = _model([Step(tool="Bash", arguments={"command": "echo canary", "description": "echo"})], "")

    async def talk(options: Any) -> None:
        async with ClaudeSDKClient(options) as client:
            for prompt in ("go", "go on"):
                await client.query(prompt)
                async for _ in client.receive_response():
                    pass

    with example("python claude-agent") as (_, session, server):
        obliged(server, max_result_bytes={"bytes": 1})
        options = ClaudeAgentOptions(tools=["Bash"], hooks=PDPHooks(Door(session, {"Bash": "shell/run"})).hooks)
        with at_home(options, messages):
            asyncio.run(talk(options))

    assert [] == messages.shown


def test_no_conversation_goes_on_when_too_many_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not remembered could hold what the model must not see."""
    monkeypatch.setattr(claude_agent, "_MOST_OVER", 2)

    def given(name: str) -> dict[str, Any]:
        return {"session_id": name, "tool_use_id": "toolu_1", "tool_name": "Bash", "tool_input": {}}

    async def run(hooks: Any) -> list[bool]:
        goes_on: list[bool] = []
        for name in ("a", "b", "b", "c"):
            await hooks["PostToolUse"][0].hooks[0]({**given(name), "tool_response": "canary"}, "", None)
            said = [await hooks["UserPromptSubmit"][0].hooks[0](given(one), "", None) for one in (name, "new")]
            assert said[0]["continue_"] is False
            goes_on.append(said[1] == {})
        return goes_on

    with example("python claude-agent") as (_, session, _server):
        assert [True, True, True, False] == asyncio.run(run(PDPHooks(Door(session, _TABLE)).hooks))


@pytest.mark.parametrize(
    ("server", "tool", "found"),
    [("a", "b__c", True), ("a__b", "c", False), ("a_", "c", False), ("a b", "c", True), ("a", "b", True)],
)
def test_a_name_of_a_tool_means_one_server(server: str, tool: str, *, found: bool) -> None:
    """A server whose name has `__` gets no entry of another one."""
    name = f"mcp__{server.replace(' ', '_')}__{tool}"
    tools = CountedTools()
    messages, _ = _model([Step(tool=name)], "")
    with example("python claude-agent") as (_, session, pdp):
        hooks = PDPHooks(Door(session, {name: "desk/note"})).hooks
        made = {server: create_sdk_mcp_server(server, tools=[_tool(tool, tools)])}
        asyncio.run(_run(ClaudeAgentOptions(mcp_servers=made, tools=[], hooks=hooks), messages))

        assert found is bool(tools.runs) is bool(asked(pdp))
        assert ("done" if found else "(unknown_tool)") in messages.shown[0]


@pytest.mark.parametrize(("name", "found"), [("mcp__a__b", True), ("mcp__a__b__c", False), ("mcp__a___b", False)])
def test_a_name_that_could_mean_two_servers_is_unknown_where_the_server_is(name: str, *, found: bool) -> None:
    """Older programs do not say it."""
    given = {"session_id": "one", "tool_use_id": "toolu_1", "tool_name": name, "tool_input": {}}
    with example("python claude-agent") as (_, session, _server):
        hooks = PDPHooks(Door(session, {name: "desk/note"})).hooks
        said: Any = asyncio.run(hooks["PreToolUse"][0].hooks[0](given, "", None))

    assert found is (said == {})


def test_a_call_that_ran_with_other_arguments_is_reported() -> None:
    """As one that was made; its result is withheld."""
    asked_about = {"session_id": "one", "tool_use_id": "toolu_1", "tool_name": f"{_PREFIX}note"}

    async def run(hooks: Any) -> list[Any]:
        steps = [("PreToolUse", {"text": "a"}), ("PostToolUse", {"text": "b"})]
        return [
            await hooks[event][0].hooks[0](
                {**asked_about, "tool_input": arguments, "tool_response": [{"type": "text", "text": "canary"}]},
                "",
                None,
            )
            for event, arguments in steps
        ]

    with example("python claude-agent") as (_, session, server):
        obliged(server)
        allowed, withheld = asyncio.run(run(PDPHooks(Door(session, _TABLE)).hooks))

        assert {} == allowed
        assert "it is not the call that was asked about" in str(withheld)
        assert [CALL_STATUS_SUCCEEDED] == [one.status for one in server.sent("ReportOutcome")]


def test_the_tools_of_subagents_are_asked_about(tmp_path: Path) -> None:
    """The call of a subagent, and what it calls itself."""
    file = tmp_path / "written"
    bash = Step(tool="Bash", arguments={"command": f"touch {file}", "description": "touch"})
    task = {"description": "touch", "prompt": "touch a file", "subagent_type": "general-purpose"}
    messages, left = _model([Step(tool="Agent", arguments=task), bash], "")
    with example("python claude-agent") as (_, session, server):
        hooks = PDPHooks(Door(session, {"Agent": "shell/agent"})).hooks
        asyncio.run(_run(ClaudeAgentOptions(tools=["Agent", "Bash"], hooks=hooks), messages))

        assert [] == left
        assert not file.exists()
        assert any("(unknown_tool)" in text for text in messages.shown)
        assert [("shell", "agent")] == asked(server)
