"""Google ADK's runner with a model of our own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from google.adk.agents import Agent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.apps import App
from google.adk.models import BaseLlm, LlmResponse
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.plugins import BasePlugin
from google.adk.runners import InMemoryRunner
from google.adk.tools import AgentTool, BaseTool, FunctionTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.tool_context import ToolContext
from google.adk.workflow import START, Workflow
from google.genai import types

from pdp.client import AsyncClient, Client
from pdp.doors.core import Door
from pdp.doors.google_adk import PDPPlugin
from pdp.testing.inprocess import RunningServer
from pdp.v1.authorization_pb2 import CALL_STATUS_SUCCEEDED
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import DoorConformance, approve, opened
from tests.doors.desk import MAPPED, NAMES, PREFIX, SCHEMA, CountedTools, Driver, Step

_CONFIRMATION = "adk_request_confirmation"


class ScriptedModel(BaseLlm):
    """A model that calls what it is told to call."""

    left: list[Any]

    async def generate_content_async(self, *_: Any, **__: Any) -> AsyncGenerator[LlmResponse, None]:
        """Return the next call, or the end."""
        part = types.Part(text="that is all")
        if self.left:
            step = self.left.pop(0)
            step.before()
            part = types.Part(function_call=types.FunctionCall(name=step.name, args=step.arguments))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def _model(*steps: Step) -> ScriptedModel:
    return ScriptedModel(model="scripted", left=list(steps))


class CountedTool(BaseTool):
    """A tool that does not look at its arguments."""

    def __init__(self, name: str, function: Callable[[str, Any], Any]) -> None:
        super().__init__(name=name, description=name)
        self._function = function

    def _get_declaration(self) -> types.FunctionDeclaration:
        schema = {"type": "object", "properties": dict(SCHEMA)}
        return types.FunctionDeclaration(name=self.name, description=self.name, parameters_json_schema=schema)

    async def run_async(self, *, args: dict[str, Any], **_: Any) -> Any:
        """Run with what it is given."""
        return self._function(self.name, args)


_GO: Any = types.UserContent(parts=[types.Part(text="go")])


async def _events(runner: InMemoryRunner, message: Any = _GO, **state: Any) -> list[Any]:
    """Run the agent in its only session, and return the events of the run."""
    where = {"app_name": runner.app_name, "user_id": "ann", "session_id": "one"}
    if await runner.session_service.get_session(**where) is None:
        await runner.session_service.create_session(**where, state=state)
    return [one async for one in runner.run_async(user_id="ann", session_id="one", new_message=message)]


def _shown(events: Sequence[Any]) -> list[Any]:
    """Return what the model gets: the one value of a result, or its error."""
    responses = [one.response for event in events for one in event.get_function_responses()]
    return [one.get("result", one.get("error", one)) for one in responses]


def _play(runner: InMemoryRunner) -> list[Any]:
    return _shown(asyncio.run(_events(runner)))


def _runner(*plugins: BasePlugin, model: ScriptedModel, tools: Sequence[Any], **options: Any) -> InMemoryRunner:
    agent = Agent(name="desk", model=model, tools=list(tools), **options)
    return InMemoryRunner(app=App(name="desk", root_agent=agent, plugins=list(plugins)))


class GoogleADKDriver(Driver):
    """A runner, run with and without a loop."""

    name = "google_adk"

    def play(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Run the agent in a thread of the framework."""
        runner = self._runner(door, tools, steps)
        asyncio.run(
            runner.session_service.create_session(
                app_name=runner.app_name, user_id="ann", session_id="one", state={"run": run}
            )
        )
        return _shown(list(runner.run(user_id="ann", session_id="one", new_message=_GO)))

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Await the agent."""
        return _shown(await _events(self._runner(door, tools, steps), run=run))

    def _runner(self, door: Door, tools: CountedTools, steps: Sequence[Step]) -> InMemoryRunner:
        of_run = copy.copy(door)
        vars(of_run)["session_of"] = lambda context: door.session_of(context.state["run"])
        known = [CountedTool(PREFIX + name, tools) for name in NAMES]
        return _runner(PDPPlugin(of_run), model=_model(*steps), tools=known)


class TestGoogleADK(DoorConformance):
    """The cases, with the runner of Google ADK."""

    driver = GoogleADKDriver()


def test_the_page_does_what_it_says() -> None:
    """Its app asks before it calls a tool."""
    tools = CountedTools()
    with example("python google-adk") as (defined, session, server):
        agent = Agent(
            name="coder", model=_model(Step(tool="git_log", prefix="")), tools=[CountedTool("git_log", tools)]
        )

        assert ["done"] == _play(InMemoryRunner(app=defined["app_with_door"](session, agent)))
        assert [("git", "git_log")] == asked(server)


class Rewrites(BasePlugin):
    """Changes arguments where it is asked about them."""

    async def before_tool_callback(self, *, tool_args: dict[str, Any], **_: Any) -> None:
        """Change them in place."""
        tool_args["text"] = "rewritten"


def test_what_other_hooks_change_is_asked_about() -> None:
    """Those of plugins after the door's, and of the agent itself."""
    tools = CountedTools()

    def more(args: dict[str, Any], **_: Any) -> None:
        args["amount"] = 7

    with example("python google-adk") as (_, session, server):
        plugins = [PDPPlugin(Door(session, MAPPED)), Rewrites(name="rewrites")]
        known = [CountedTool(Step().name, tools)]
        _play(_runner(*plugins, model=_model(Step()), tools=known, before_tool_callback=more))

        assert [("note", {"text": "rewritten", "amount": 7})] == tools.runs
        assert b'{"text":"rewritten","amount":7}' == server.sent("Authorize")[0].call.arguments_json


def test_an_empty_result_is_that_of_the_tool() -> None:
    """For a hook of the framework, an empty object is a result in place of the tool's."""
    tools = CountedTools(returns={})
    with example("python google-adk") as (_, session, server):
        plugin = PDPPlugin(Door(session, MAPPED))

        assert [{}] == _play(_runner(plugin, model=_model(Step()), tools=[CountedTool(Step().name, tools)]))
        assert 1 == len(tools.runs) == len(asked(server))


def _answer(events: Sequence[Any], *, confirmed: bool) -> Any:
    """Return the answer of the user to the confirmation for which a run has paused."""
    (call,) = [one for event in events for one in event.get_function_calls() if one.name == _CONFIRMATION]
    response = types.FunctionResponse(id=call.id, name=call.name, response={"confirmed": confirmed})
    return types.UserContent(parts=[types.Part(function_response=response)])


def test_a_call_that_the_framework_holds_for_confirmation_is_asked_about_after_it() -> None:
    """So it opens nothing that the PDP denies, and a call that the user rejects is not asked about."""
    runs: list[str] = []

    def note(text: str) -> str:
        runs.append(text)
        return "done"

    async def run(session: Any, *, confirmed: bool) -> list[Any]:
        plugin = PDPPlugin(Door(session, {"note": "desk/note"}))
        tool = FunctionTool(note, require_confirmation=True)
        runner = _runner(plugin, model=_model(Step(prefix="")), tools=[tool])
        held = await _events(runner)
        return _shown(await _events(runner, _answer(held, confirmed=confirmed)))

    with example("python google-adk") as (_, session, server):
        rejected = asyncio.run(run(session, confirmed=False))

        assert ([], []) == (runs, asked(server))
        assert ["This tool call is rejected."] == rejected
        assert ["done"] == asyncio.run(run(session, confirmed=True))
        assert [("desk", "note")] == asked(server)
        assert ["hello"] == runs


@pytest.mark.parametrize(
    ("obligations", "told"),
    [
        ({"redact_result": {"fields": ["[].email"]}}, "its result is withheld"),
        ({"max_result_bytes": {"bytes": 40}}, "its result is withheld"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("how", ["hint", "payload"])
def test_a_confirmation_of_a_tool_tells_no_more_than_a_result(obligations: Any, told: str, how: str) -> None:
    """Where it would, the run does not pause, and the result is withheld too."""

    def note(text: str, tool_context: ToolContext) -> list[dict[str, str]]:
        tool_context.request_confirmation(**{how: f"send {text} to ann@example.com?"})
        return []

    with example("python google-adk") as (_, session, server):
        obliged(server, **obligations)
        plugin = PDPPlugin(Door(session, {"note": "desk/note"}))
        runner = _runner(plugin, model=_model(Step(prefix="")), tools=[FunctionTool(note)])
        events = asyncio.run(_events(runner))

        assert bool(told) is not ("ann@example.com" in str(events))
        assert bool(told) is not any(
            one.name == _CONFIRMATION for event in events for one in event.get_function_calls()
        )
        assert told in str(_shown(events))
        assert [CALL_STATUS_SUCCEEDED] == [one.status for one in server.sent("ReportOutcome")]


def test_a_call_that_waits_for_a_person_pauses_the_run(server: RunningServer) -> None:
    """With `pauses`. When the run goes on, the approval of the PDP decides, and not the answer to the framework."""
    tools = CountedTools()
    session_id, handle = opened(server)

    async def run(client: Client, *, approved: bool) -> list[Any]:
        plugin = PDPPlugin(Door(client.attach(handle), MAPPED), pauses=True)
        model = _model(Step(tool="pay", arguments={"amount": 5}))
        runner = _runner(plugin, model=model, tools=[CountedTool(f"{PREFIX}pay", tools)])
        held = await _events(runner)
        if approved:
            await asyncio.to_thread(approve, server, session_id)
        return [*_shown(held), *_shown(await _events(runner, _answer(held, confirmed=True)))]

    with Client(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as client:
        waits, still = asyncio.run(run(client, approved=False))
        before = list(tools.runs)
        _, done = asyncio.run(run(client, approved=True))

    assert "a person must approve exactly this call first" in waits
    assert "a person must approve exactly this call first" in still
    assert [] == before
    assert "done" == done
    assert [("pay", {"amount": 5})] == tools.runs


# The framework itself still passes plugins on in this way.
@pytest.mark.filterwarnings("ignore:The `plugins` argument is deprecated:DeprecationWarning")
def test_the_tools_of_an_agent_that_is_a_tool_are_asked_about() -> None:
    """The plugin is that of the runner, so it is there for every agent."""
    tools = CountedTools()
    inner = Agent(name="helper", model=_model(Step(tool="unmapped")), tools=[CountedTool(f"{PREFIX}unmapped", tools)])
    with example("python google-adk") as (_, session, server):
        plugin = PDPPlugin(Door(session, {"helper": "agents/helper"}))
        call = Step(tool="helper", prefix="", arguments={"request": "go"})
        _play(_runner(plugin, model=_model(call), tools=[AgentTool(inner)]))

        assert [] == tools.runs
        assert [("agents", "helper")] == asked(server)


def test_a_transfer_to_another_agent_is_asked_about() -> None:
    """It is a tool of the framework, and the tools of the other agent are asked about, too."""
    tools = CountedTools()
    other = Agent(name="other", model=_model(Step()), tools=[CountedTool(Step().name, tools)])
    transfer = Step(tool="transfer_to_agent", prefix="", arguments={"agent_name": "other"})
    with example("python google-adk") as (_, session, server):
        denied = _play(_runner(PDPPlugin(Door(session, MAPPED)), model=_model(transfer), tools=[], sub_agents=[other]))

        assert "(unknown_tool)" in denied[0]
        assert [] == tools.runs
        plugin = PDPPlugin(Door(session, {**MAPPED, "transfer_to_agent": "agents/transfer"}))
        _play(_runner(plugin, model=_model(transfer), tools=[], sub_agents=[other.clone()]))

        assert [("agents", "transfer"), ("desk", "note")] == asked(server)
        assert 1 == len(tools.runs)


def test_a_tool_in_a_workflow_is_asked_about() -> None:
    """Where no agent calls it."""
    tools = CountedTools()

    def arguments(node_input: Any) -> dict[str, Any]:
        return {"text": str(node_input.parts[0].text)}

    with example("python google-adk") as (_, session, server):
        for table in ({"note": "desk/note"}, {"other": "desk/other"}):
            steps = (START, arguments, CountedTool("note", tools))
            plugin = PDPPlugin(Door(session, table))
            app = App(name="desk", root_agent=Workflow(name="steps", edges=[steps]), plugins=[plugin])
            asyncio.run(_events(InMemoryRunner(app=app)))

        assert [("note", {"text": "go"})] == tools.runs
        assert [("desk", "note")] == asked(server)


class Connection(BaseLlmConnection):
    """A live conversation in which the model makes one call."""

    def __init__(self) -> None:
        self._shown: asyncio.Queue[Any] = asyncio.Queue()
        self.shown: list[Any] = []

    async def send_history(self, *_: Any) -> None:
        """Know what was said before."""

    async def send_realtime(self, *_: Any) -> None:
        """Hear nothing."""

    async def send_content(self, content: Any) -> None:
        """Keep what the model is shown."""
        self.shown += [part.function_response.response for part in content.parts]
        await self._shown.put(None)

    async def receive(self) -> AsyncGenerator[LlmResponse, None]:
        """Make the call, and end the turn when its result is there."""
        call = types.FunctionCall(id="call_1", name="note", args={"text": "hello"})
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(function_call=call)]))
        while True:
            await self._shown.get()
            yield LlmResponse(turn_complete=True)

    async def close(self) -> None:
        """Leave nothing open."""


class LiveModel(ScriptedModel):
    """A model that speaks with its user."""

    connection: Any

    @asynccontextmanager
    async def connect(self, *_: Any) -> AsyncGenerator[Connection, None]:
        """Return the only conversation."""
        yield self.connection


@pytest.mark.parametrize("allowed", [True, False])
def test_a_call_in_a_live_run_is_asked_about(*, allowed: bool) -> None:
    """There the framework runs tools in other ways."""
    tools = CountedTools()
    connection = Connection()

    async def run(session: Any) -> None:
        plugin = PDPPlugin(Door(session, {"note" if allowed else "other": "desk/note"}))
        model = LiveModel(model="scripted", left=[], connection=connection)
        runner = _runner(plugin, model=model, tools=[CountedTool("note", tools)])
        await runner.session_service.create_session(app_name=runner.app_name, user_id="ann", session_id="one")
        events = runner.run_live(user_id="ann", session_id="one", live_request_queue=LiveRequestQueue())
        async with aclosing(events):
            async for event in events:
                if event.turn_complete:
                    return

    with example("python google-adk") as (_, session, server):
        asyncio.run(run(session))

        assert [("note", {"text": "hello"})] * allowed == tools.runs
        assert [("desk", "note")] * allowed == asked(server)
        assert ("done" if allowed else "(unknown_tool)") in str(connection.shown)


@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_a_tool_that_streams_is_stopped_when_its_session_is_over(server: RunningServer, way: str) -> None:
    """The model is shown what came before, and that the call has failed."""
    session_id, handle = opened(server)
    connection = Connection()
    ended = asyncio.Event()

    async def note(text: str) -> AsyncGenerator[str, None]:
        try:
            yield text
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run(client: Any) -> None:
        plugin = PDPPlugin(Door(client.attach(handle), {"note": "desk/note"}))
        model = LiveModel(model="scripted", left=[], connection=connection)
        runner = _runner(plugin, model=model, tools=[note])
        await runner.session_service.create_session(app_name=runner.app_name, user_id="ann", session_id="one")
        events = runner.run_live(user_id="ann", session_id="one", live_request_queue=LiveRequestQueue())
        async with aclosing(events):
            async for _ in events:
                if "hello" in str(connection.shown):
                    break
            approver = server.client("approver")
            await asyncio.to_thread(approver.revoke_sessions, session_id=session_id, reason="enough")
            async with asyncio.timeout(10):
                await ended.wait()
                while "failed" not in str(connection.shown):  # noqa: ASYNC110 - the framework says nothing then
                    await asyncio.sleep(0.01)

    async def begin() -> None:
        options: Any = {"token": server.token("pep"), "plaintext": True, "timeout": 60.0}
        if way == "threads":
            with Client(server.address, **options) as client:
                await run(client)
        else:
            async with AsyncClient(server.address, **options) as client:
                await run(client)

    asyncio.run(begin())


class Toolset(BaseToolset):
    """One tool, which the framework may copy to give it another name."""

    def __init__(self, tool: BaseTool, prefix: str | None = None) -> None:
        super().__init__(tool_name_prefix=prefix)
        self._tool = tool

    async def get_tools(self, *_: Any, **__: Any) -> list[BaseTool]:
        """Return always the same object."""
        return [self._tool]


def test_a_tool_has_in_each_run_the_door_and_the_name_of_that_run() -> None:
    """The same object can be a tool of several agents, and of a runner without a door."""
    tools = CountedTools()
    tool = CountedTool("note", tools)
    with example("python google-adk") as (_, session, server):
        for prefix in (None, "more", "other"):
            name = f"{prefix}_note" if prefix else "note"
            plugin = PDPPlugin(Door(session, {name: f"desk/{name}"}))
            _play(_runner(plugin, model=_model(Step(tool=name, prefix="")), tools=[Toolset(tool, prefix)]))

        assert [("desk", "note"), ("desk", "more_note"), ("desk", "other_note")] == asked(server)
        assert ["done"] == _play(_runner(model=_model(Step(prefix="")), tools=[tool]))
        assert 3 == len(asked(server))
        assert 4 == len(tools.runs)


def test_a_copy_of_a_tool_runs_itself() -> None:
    """And not the tool that it was made of, which has asked before."""
    runs: list[str] = []

    def note(text: str) -> str:
        return f"note {text}"

    def pay(text: str) -> str:
        runs.append(text)
        return f"pay {text}"

    tool = FunctionTool(note)
    with example("python google-adk") as (_, session, server):
        plugin = PDPPlugin(Door(session, {"note": "desk/note", "pay": "desk/pay"}))
        assert ["note hello"] == _play(_runner(plugin, model=_model(Step(prefix="")), tools=[tool]))
        other = copy.copy(tool)
        other.name, other.func = "pay", pay

        assert ["pay hello"] == _play(_runner(plugin, model=_model(Step(tool="pay", prefix="")), tools=[other]))
        assert [("desk", "note"), ("desk", "pay")] == asked(server)
