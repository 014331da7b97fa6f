"""What every adapter must do, whatever its framework: one table of cases, played by the framework's own agent.

A subclass names its driver; `cannot.py` says what an adapter cannot have, and why.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, ClassVar

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pdp.client import AsyncClient, CallTokenRequest, Client
from pdp.doors.calltokens import call_token
from pdp.doors.core import DenyLoopError, Door, Session
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1 import session_pb2
from pdp.v1.decision_pb2 import Decision
from tests.doors.cannot import CANNOT
from tests.doors.desk import NAMES, PEOPLE, CountedTools, Driver, Step, files
from tests.machinery.ports import free_port
from tests.machinery.servers.scripted import ScriptedServer

# How a run is played: by functions, by coroutines, or by coroutines with a client for threads.
WAYS = ("threads", "asyncio", "mixed")
COROUTINES = WAYS[1:]
# What an agent has set up for OpenTelemetry: once, since frameworks keep what they find.
AGENT_SHOWS = InMemorySpanExporter()
AGENT_SET_UP = TracerProvider()
AGENT_SET_UP.add_span_processor(SimpleSpanProcessor(AGENT_SHOWS))
# How long a call waits before it is made again to a server that has come back: a little at first, 30 s in all.
_PAUSES = [min(0.02 * 2**number, 2.0) for number in range(20)]
_DEEP = '{"value": ' + "[" * 300 + "]" * 300 + "}"


class Stage:
    """A server, and the sessions in which agents play against it."""

    def __init__(self, driver: Driver, way: str, address: str, token: str, handle: str) -> None:
        self.handle = handle
        self._driver = driver
        self.way = way
        self._options: dict[str, Any] = {"token": token, "plaintext": True}
        self._address = address
        self.shown: list[str] = []

    def play(
        self,
        tools: CountedTools,
        *steps: Step,
        handles: Mapping[Any, str] | None = None,
        run: Any = None,
        timeout: float = 60.0,
        **options: Any,
    ) -> list[str]:
        """Play the steps in one run of the agent; return what the model saw."""
        client_options = {"timeout": timeout, **self._options}
        if self.way == "threads":
            with Client(self._address, **client_options) as client:
                shown = self._driver.play(self._door(client, handles, options), tools, steps, run)
        else:
            shown = asyncio.run(self._play_async(client_options, tools, steps, handles, run, options))
        self.shown += shown
        return shown

    async def _play_async(
        self,
        client_options: dict[str, Any],
        tools: CountedTools,
        steps: Sequence[Step],
        handles: Mapping[Any, str] | None,
        run: Any,
        options: dict[str, Any],
    ) -> list[str]:
        if self.way == "mixed":
            with Client(self._address, **client_options) as client:
                return await self._driver.play_async(self._door(client, handles, options), tools, steps, run)
        async with AsyncClient(self._address, **client_options) as client:
            return await self._driver.play_async(self._door(client, handles, options), tools, steps, run)

    async def cancelled(
        self, tools: CountedTools, step: Step, asked: threading.Event, released: threading.Event
    ) -> None:
        """Play a step, and cancel the run once its question has reached the server, which then answers."""
        options = {"timeout": 60.0, **self._options}
        playing = asyncio.ensure_future(self._play_async(options, tools, [step], None, None, {}))
        await asyncio.to_thread(asked.wait, 60)
        playing.cancel()
        # A server in this process hears of it by a message, so the answer comes when all of the run is over.
        await asyncio.wait([playing])
        released.set()
        # Some frameworks turn it into an error of their own.
        assert playing.cancelled() or playing.exception() is not None

    def many(self, runs: Mapping[Any, Step], tools: CountedTools, handles: Mapping[Any, str]) -> dict[Any, str]:
        """Play one step in each of many runs at the same time; return what each model saw."""
        if self.way != "threads":
            return asyncio.run(self._many_async(runs, tools, handles))
        shown: dict[Any, str] = {}
        with Client(self._address, timeout=60.0, **self._options) as client:
            door = self._door(client, handles, {})

            def one(run: Any, step: Step) -> None:
                (shown[run],) = self._driver.play(door, tools, [step], run)

            threads = [threading.Thread(target=one, args=pair) for pair in runs.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return shown

    async def _many_async(
        self, runs: Mapping[Any, Step], tools: CountedTools, handles: Mapping[Any, str]
    ) -> dict[Any, str]:
        async with AsyncClient(self._address, timeout=60.0, **self._options) as client:
            door = self._door(client, handles, {})
            played = [self._driver.play_async(door, tools, [step], run) for run, step in runs.items()]
            return dict(zip(runs, [text for (text,) in await asyncio.gather(*played)], strict=True))

    def _door(self, client: Any, handles: Mapping[Any, str] | None, options: dict[str, Any]) -> Door:
        def session(run: Any) -> Session:
            attached: Session = client.attach((handles or {}).get(run, self.handle))
            return attached

        mapped = {f"{self._driver.prefix}{name}": f"desk/{name}" for name in NAMES[:-1]}
        return Door(session if handles else client.attach(self.handle), mapped, **options)


class DoorConformance:
    """The cases. Each has a sentence that says what must hold."""

    driver: ClassVar[Driver]
    ways: ClassVar[Sequence[str]] = WAYS
    stage_type: ClassVar[type[Stage]] = Stage

    @pytest.fixture(autouse=True)
    def _can(self, request: pytest.FixtureRequest) -> None:
        if why := CANNOT[self.driver.name].get(request.function.__name__.removeprefix("test_")):
            pytest.skip(why)

    @pytest.fixture(params=WAYS)
    def way(self, request: pytest.FixtureRequest) -> str:
        """Return each way of this framework."""
        if request.param not in self.ways:
            pytest.skip("the framework has no such way")
        return str(request.param)

    @pytest.fixture
    def stage(
        self, server: RunningServer, way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> Iterator[Stage]:
        """Return the stage of a test in a session of its own, and look that its handle is in no output."""
        caplog.set_level(logging.DEBUG)
        stage = self.stage_type(self.driver, way, server.address, server.token("pep"), opened(server)[1])
        yield stage
        out = "".join([caplog.text, *capfd.readouterr(), *stage.shown])
        assert stage.handle not in out
        assert stage.handle[6:] not in out

    @pytest.fixture
    def lying(self, way: str) -> Iterator[tuple[ScriptedServer, Stage]]:
        """Return a server that answers as a test tells it to."""
        scripted = ScriptedServer()
        yield scripted, self.stage_type(self.driver, way, scripted.start(), "sesame", "pdps_secret")
        scripted.stop()

    def test_an_allowed_call_runs_once_with_what_was_asked_about(self, stage: Stage) -> None:
        """The model sees the result as the tool returned it."""
        tools = CountedTools(returns="as it is: ä {}")

        shown = stage.play(tools, Step(arguments={"text": "hello", "amount": 3}))

        assert [("note", {"text": "hello", "amount": 3})] == tools.runs
        assert ["as it is: ä {}"] == shown

    def test_a_decision_has_the_frameworks_id_of_the_call(self, stage: Stage, server: RunningServer) -> None:
        """So that record and trace lead to the call of the model."""
        before = len(server.evidence.decision_spans)

        stage.play(CountedTools(), Step())

        (span,) = server.evidence.decision_spans[before:]
        assert span["gen_ai.tool.call.id"]

    def test_a_denied_call_does_not_run_and_the_next_one_does(self, stage: Stage) -> None:
        """The model is told the basis and the decision, and not to repeat it; no policy is named."""
        tools = CountedTools()

        denied, done = stage.play(tools, Step(tool="closed"), Step())

        assert [("note", {"text": "hello"})] == tools.runs
        assert "Denied (default_deny): the call of `" in denied
        assert "closed` did not run; no rule permits this call: do not retry it" in denied
        assert "Decision dec_" in denied
        assert "desk/" not in denied
        assert "done" == done

    def test_a_tool_without_an_entry_is_denied(self, stage: Stage) -> None:
        """Its name is not taken apart to find one."""
        tools = CountedTools()

        (shown,) = stage.play(tools, Step(tool="unmapped"))

        assert [] == tools.runs
        assert "(unknown_tool)" in shown

    @pytest.mark.parametrize("over", ["expired", "revoked", "ended", "unknown"])
    def test_a_session_that_is_over_allows_nothing(self, stage: Stage, server: RunningServer, over: str) -> None:
        """Nor does a handle that no session has."""
        tools = CountedTools()
        session_id, stage.handle = opened(server)
        if over == "expired":
            server.clock.advance(8 * 3600)
        elif over == "revoked":
            server.client("approver").revoke_sessions(session_id=session_id, reason="enough")
        elif over == "ended":
            server.client("pep").end_session(stage.handle)
        else:
            stage.handle = "pdps_" + "a" * 43

        (shown,) = stage.play(tools, Step())

        assert [] == tools.runs
        basis = {"unknown": "session_not_found"}.get(over, f"session_{over}")
        assert f"({basis})" in shown

    def test_a_session_that_is_revoked_meanwhile_allows_nothing_more(self, stage: Stage, server: RunningServer) -> None:
        """The next call of the same run is denied."""
        tools = CountedTools()
        session_id, stage.handle = opened(server)

        def revoke() -> None:
            server.client("approver").revoke_sessions(session_id=session_id, reason="enough")

        done, denied = stage.play(tools, Step(), Step(before=revoke))

        assert 1 == len(tools.runs)
        assert "done" == done
        assert "(session_revoked)" in denied

    def test_nothing_runs_while_no_server_answers(self, way: str) -> None:
        """From the first call on, and the model is not told where the server should be."""
        port = free_port()
        tools = CountedTools()
        stage = self.stage_type(self.driver, way, f"127.0.0.1:{port}", "sesame", "pdps_secret")

        (shown,) = stage.play(tools, Step(), timeout=0.5)

        assert [] == tools.runs
        assert "no decision could be made about it" in shown
        assert str(port) not in shown

    def test_a_server_that_goes_away_and_comes_back_needs_no_new_door(self, way: str) -> None:
        """Calls meanwhile do not run."""
        address = f"127.0.0.1:{free_port()}"
        servers = [ScriptedServer(), ScriptedServer()]
        tools = CountedTools()
        servers[0].start(address)
        stage = self.stage_type(self.driver, way, address, "sesame", "pdps_secret")

        back = {"text": "back"}

        def later(pause: float) -> None:
            """Wait until the call has run: a channel tries again a moment after it has failed."""
            if ("note", back) not in tools.runs:
                time.sleep(pause)

        shown = stage.play(
            tools,
            Step(),
            Step(before=servers[0].stop, arguments={"text": "away"}),
            Step(before=lambda: servers[1].start(address), arguments=back),
            *(Step(before=partial(later, pause), arguments=back) for pause in _PAUSES),
            most_repeats=len(_PAUSES),
        )
        servers[1].stop()

        assert "no decision" in shown[1]
        assert "done" == shown[-1]
        assert ("note", {"text": "away"}) not in tools.runs
        assert ("note", back) == tools.runs[-1]

    def test_an_answer_that_is_late_is_no_answer(self, lying: tuple[ScriptedServer, Stage]) -> None:
        """The call is denied at the client's deadline."""
        scripted, stage = lying
        tools = CountedTools()

        def late(request: Any, _: Any) -> Decision:
            scripted.released.wait(30)
            return scripted.honest(request)

        scripted.decide = late
        (shown,) = stage.play(tools, Step(), timeout=0.2)

        assert [] == tools.runs
        assert "no decision" in shown

    def test_a_run_that_is_cancelled_while_it_asks_runs_nothing(self, lying: tuple[ScriptedServer, Stage]) -> None:
        """Not even when the answer comes after that."""
        scripted, stage = lying
        if stage.way == "threads":
            pytest.skip("nothing cancels a function")
        tools = CountedTools()
        asked = threading.Event()

        def late(request: Any, _: Any) -> Decision:
            asked.set()
            scripted.released.wait(30)
            return scripted.honest(request)

        scripted.decide = late
        asyncio.run(stage.cancelled(tools, Step(), asked, scripted.released))

        assert [] == tools.runs

    @pytest.mark.parametrize(
        "lie",
        [
            lambda decision: setattr(decision, "tool", "pay"),
            lambda decision: setattr(decision, "arguments_digest", "sha256:" + "0" * 64),
            lambda decision: setattr(decision, "outcome", 7),
            lambda decision: setattr(decision, "session_id", ""),
        ],
        ids=["tool", "arguments", "outcome", "session"],
    )
    def test_an_answer_about_something_else_is_a_deny(
        self, lying: tuple[ScriptedServer, Stage], lie: Callable[[Decision], None]
    ) -> None:
        """About another tool, about other arguments, with an outcome that nobody knows, or without a session."""
        scripted, stage = lying
        tools = CountedTools()

        def decide(request: Any, _: Any) -> Decision:
            decision = scripted.honest(request)
            lie(decision)
            return decision

        scripted.decide = decide
        (shown,) = stage.play(tools, Step())

        assert [] == tools.runs
        assert "no decision" in shown

    def test_arguments_that_change_meanwhile_run_as_they_were(self, lying: tuple[ScriptedServer, Stage]) -> None:
        """Another hook may hold the same object, and change it while the server decides."""
        scripted, stage = lying
        tools = CountedTools()
        arguments: dict[str, Any] = {"text": "harmless", "value": ["a"]}

        def decide(request: Any, _: Any) -> Decision:
            arguments["text"] = "changed"
            arguments["value"].append("b")
            return scripted.honest(request)

        scripted.decide = decide
        stage.play(tools, Step(arguments=arguments))

        assert [("note", {"text": "harmless", "value": ["a"]})] == tools.runs

    def test_an_error_of_the_server_is_not_told(self, lying: tuple[ScriptedServer, Stage]) -> None:
        """The model learns that there is no decision, and nothing else."""
        scripted, stage = lying
        tools = CountedTools()
        scripted.decide = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "inner words")

        (shown,) = stage.play(tools, Step())

        assert [] == tools.runs
        assert "inner" not in shown

    def test_an_unknown_obligation_is_a_deny(self, stage: Stage) -> None:
        """Unless the program says that its tools meet it."""
        tools = CountedTools()

        (denied,) = stage.play(tools, Step(tool="access"))
        (done,) = stage.play(tools, Step(tool="access"), met=["log_access"])

        assert 1 == len(tools.runs)
        assert "Denied (unknown_obligation)" in denied
        assert "done" == done

    def test_fields_of_a_result_are_redacted(self, stage: Stage) -> None:
        """Before the model sees it."""
        tools = CountedTools(returns=PEOPLE)

        (shown,) = stage.play(tools, Step(tool="people"))

        assert 1 == len(tools.runs)
        assert "Ann" in shown
        assert "[redacted]" in shown
        assert "ann@example.com" not in shown

    def test_the_error_of_a_tool_with_redacted_results_is_not_told(self, stage: Stage) -> None:
        """It could hold what must be redacted; the run goes on."""

        def fail() -> None:
            raise LookupError("no such person: ann@example.com")

        tools = CountedTools(during=fail)

        withheld, done = stage.play(tools, Step(tool="people"), Step(before=lambda: setattr(tools, "_during", int)))

        assert "its result is withheld" in withheld
        assert "ann@example.com" not in withheld
        assert "done" == done

    def test_a_result_that_is_too_large_is_withheld(self, stage: Stage) -> None:
        """The model is told how much it may have."""
        tools = CountedTools(returns="x" * 11)

        (shown,) = stage.play(tools, Step(tool="big"))

        assert 1 == len(tools.runs)
        assert "at most 10 may be handed on" in shown
        assert "xxx" not in shown

    def test_the_error_of_a_tool_that_is_too_large_is_withheld(self, stage: Stage) -> None:
        """It would reach the model in place of the result."""

        def fail() -> None:
            raise LookupError("x" * 1000)

        tools = CountedTools(during=fail)

        shown, done = stage.play(tools, Step(tool="big"), Step(before=lambda: setattr(tools, "_during", int)))

        assert "at most 10 may be handed on" in shown
        assert "xxx" not in shown
        assert "done" == done

    def test_a_fault_of_the_door_itself_is_a_deny(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its words go nowhere."""

        def broken(*_: Any) -> Any:
            raise RuntimeError("inner words")

        monkeypatch.setattr(Door, "_question", broken)
        tools = CountedTools()

        (shown,) = stage.play(tools, Step())

        assert [] == tools.runs
        assert "no decision" in shown
        assert "inner words" not in shown + caplog.text

    def test_a_run_without_a_session_is_denied(self, stage: Stage) -> None:
        """The function that finds the session of a run may fail, too."""
        tools = CountedTools()

        (shown,) = stage.play(tools, Step(), handles={"other": "pdps_x"}, run=["no key"])

        assert [] == tools.runs
        assert "no decision" in shown

    @pytest.mark.parametrize("value", [1, 1.0, 0.1, -0.0, 2**53 + 1, 10**30 - 1, 1e300], ids=repr)
    def test_a_number_runs_as_it_was_asked_about(self, stage: Stage, server: RunningServer, value: float) -> None:
        """In type and in every digit, or it does not run."""
        tools = CountedTools()
        before = len(server.evidence.records)

        stage.play(tools, Step(arguments={"value": value}))

        ran = [json.dumps(arguments) for _, arguments in tools.runs]
        assert ran in ([], [json.dumps({"value": value})])
        assert before < len(server.evidence.records)

    @pytest.mark.parametrize("value", ["é", "e\u0301", "\u202eevil", "🦊", "a\0b", "\ufeff", "ǆ"], ids=ascii)
    def test_a_text_runs_as_it_was_asked_about(self, stage: Stage, value: str) -> None:
        """In every character: nothing is normalized."""
        tools = CountedTools()

        stage.play(tools, Step(arguments={"text": value}))

        assert [("note", {"text": value})] == tools.runs

    @pytest.mark.parametrize(
        "arguments",
        [{"amount": "one"}, {"amount": 1.5}, {"text": 7}, {"text": None}],
        ids=["a text for a number", "no integer", "a number for a text", "nothing"],
    )
    def test_arguments_that_do_not_fit_do_not_run(self, stage: Stage, arguments: dict[str, Any]) -> None:
        """However much a framework likes to convert them."""
        tools = CountedTools()

        _, done = stage.play(tools, Step(arguments=arguments), Step(arguments={"text": "still there"}))

        assert [("note", {"text": "still there"})] == tools.runs
        assert "done" == done

    def test_a_text_for_a_number_runs_as_it_was_asked_about(self, stage: Stage) -> None:
        """The server takes no text for a number, so a framework that converts it has done so before it asked."""
        tools = CountedTools()

        stage.play(tools, Step(arguments={"amount": "1"}))

        assert tools.runs in ([], [("note", {"amount": 1})])

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_no_number_does_not_run(self, stage: Stage, value: float) -> None:
        """JSON has no such numbers, whatever Python writes."""
        tools = CountedTools()

        _, done = stage.play(tools, Step(arguments={"value": value}), Step())

        assert [("note", {"text": "hello"})] == tools.runs
        assert "done" == done

    def test_half_a_character_does_not_run(self, stage: Stage) -> None:
        """A text that no bytes can hold is asked about nowhere."""
        tools = CountedTools()

        _, done = stage.play(tools, Step(arguments={"text": "\ud800"}), Step())

        assert [("note", {"text": "hello"})] == tools.runs
        assert "done" == done

    @pytest.mark.parametrize(
        "text",
        ['{"text": "a"', "[]", '"text"', '{"value": NaN}', '{"value": 1e400}', _DEEP],
        ids=["cut off", "a list", "a text", "no number", "a number beyond all", "deep"],
    )
    def test_text_that_is_no_call_does_not_run(self, stage: Stage, text: str) -> None:
        """What the model wrote reaches the server as it is, or not at all."""
        tools = CountedTools()

        shown = stage.play(tools, Step(arguments=text), Step(arguments='{"text": "still there"}'))

        assert [("note", {"text": "still there"})] == tools.runs
        assert "done" == shown[-1]

    def test_a_key_twice_runs_as_it_was_asked_about(self, stage: Stage) -> None:
        """With the last of its values, as programs read it here, or not at all."""
        tools = CountedTools()

        stage.play(tools, Step(arguments='{"text": "a", "text": "b"}'))

        assert tools.runs in ([], [("note", {"text": "b"})])

    def test_calls_of_many_runs_are_not_mixed_up(self, stage: Stage, server: RunningServer) -> None:
        """Fifty at the same time, in two sessions of which one is over: each runs in its own, or not at all."""
        tools = CountedTools()
        over_id, over = opened(server)
        handles = {n: over if n % 2 else stage.handle for n in range(50)}
        server.client("approver").revoke_sessions(session_id=over_id, reason="enough")
        steps = {n: Step(arguments={"amount": n}) for n in range(50)}

        shown = stage.many(steps, tools, handles)

        assert list(range(0, 50, 2)) == sorted(arguments["amount"] for _, arguments in tools.runs)
        assert {n for n, text in shown.items() if "done" == text} == set(range(0, 50, 2))
        assert all("(session_revoked)" in text for n, text in shown.items() if n % 2)

    def test_a_call_that_waits_for_a_person_runs_once_when_approved(self, stage: Stage, server: RunningServer) -> None:
        """The model is told how; the same call runs once after that, and another one does not."""
        tools = CountedTools()
        session_id, stage.handle = opened(server)
        pay = {"amount": 5}

        waits, other, done, again = stage.play(
            tools,
            Step(tool="pay", arguments=pay),
            Step(tool="pay", arguments={"amount": 6}, before=lambda: approve(server, session_id)),
            Step(tool="pay", arguments=pay),
            Step(tool="pay", arguments=pay),
        )

        assert [("pay", pay)] == tools.runs
        assert "a person must approve exactly this call first" in waits
        assert "`pdp approvals approve acc_" in waits
        assert "must approve" in other
        assert "done" == done
        assert "must approve" in again

    def test_a_call_may_wait_for_the_person(self, stage: Stage, server: RunningServer) -> None:
        """As long as the door says, and then the same call runs."""
        tools = CountedTools()
        session_id, stage.handle = opened(server)
        pay = {"amount": 8}
        person = threading.Thread(target=lambda: approve(server, session_id))

        (done,) = stage.play(tools, Step(tool="pay", arguments=pay, before=person.start), wait=60.0)
        person.join()

        assert [("pay", pay)] == tools.runs
        assert "done" == done

    def test_a_decision_joins_the_trace(self, stage: Stage, server: RunningServer) -> None:
        """Of the current span of OpenTelemetry, also where the agent has set up nothing that makes spans."""
        tools = CountedTools()
        tracer = TracerProvider().get_tracer("agent")

        with tracer.start_as_current_span("run") as span:
            stage.play(tools, Step())

        assert f"{span.get_span_context().trace_id:032x}" == server.evidence.records[-1]["trace_id"]

    def test_a_call_has_a_span_between_the_agent_and_the_decision(
        self, stage: Stage, server: RunningServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By what the agent has set up, below its current span; no argument, result or handle is on it."""
        AGENT_SHOWS.clear()
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", AGENT_SET_UP)

        with AGENT_SET_UP.get_tracer("agent").start_as_current_span("run"):
            stage.play(CountedTools(returns="secret result"), Step(arguments={"text": "secret text"}))

        spans = {span.context.span_id: span for span in AGENT_SHOWS.get_finished_spans() if span.context}
        (door,) = (one for one in spans.values() if one.attributes and "pdp.door.outcome" in one.attributes)
        above = [door]
        while (parent := above[-1].parent) is not None:
            above.append(spans[parent.span_id])
        decision = [one for one in server.evidence.spans if one.name == "pdp.authorize"][-1]
        shown: Any = door.attributes
        assert ("run", "execute_tool note") == (above[-1].name, door.name)
        assert [decision.parent_id] == [f"{number:016x}" for number, span in spans.items() if span is door]
        assert ["desk", "alice", "allow"] == [shown[one] for one in ("pdp.server", "enduser.id", "pdp.door.outcome")]
        assert shown["pdp.phase.upstream_us"] > 0
        assert [] == [secret for secret in (stage.handle, "secret") if secret in str(dict(shown))]

    def test_a_model_that_only_repeats_a_denied_call_is_stopped(self, stage: Stage) -> None:
        """After as many denies of the same call as the door says; each has the same text."""
        tools = CountedTools()
        steps = [Step(tool="unmapped")] * 9

        with pytest.raises(Exception, match="again and again") as caught:
            stage.play(tools, *steps, most_repeats=3)

        assert [] == tools.runs
        assert isinstance(caught.value, DenyLoopError) or isinstance(caught.value.__cause__, DenyLoopError)

    def test_a_tool_finds_the_call_token_of_its_call(self, way: str) -> None:
        """While it runs, and nobody does afterwards; where the server gives none, the call is not made."""
        wanted = {"desk": CallTokenRequest(audience="https://tools.example")}
        found: list[str] = []
        tools = CountedTools(during=lambda: found.append(call_token()))
        for issuer in ("https://pdp.example", ""):
            with running_server(
                files(overlay="audiences: ['https://tools.example']\n"), call_token_issuer=issuer
            ) as server:
                stage = self.stage_type(self.driver, way, server.address, server.token("pep"), opened(server)[1])
                shown = stage.play(tools, Step(), Step(arguments={"text": "more"}), call_tokens=wanted)

        stated = [json.loads(urlsafe_b64decode(one.split(".")[1] + "==")) for one in found]
        assert [("desk", "note")] * 2 == [(one["srv"], one["tool"]) for one in stated]
        assert 2 == len({one["jti"] for one in stated})
        assert "" == call_token()
        assert 2 == len(tools.runs)
        assert all("no_call_token" in text for text in shown)

    def test_a_result_is_reported_before_it_is_shown(self, way: str) -> None:
        """Where the server wants to know what came of calls; what cannot be reported is withheld."""
        with running_server(files(reports=True)) as server:
            session_id, handle = opened(server)
            stage = self.stage_type(self.driver, way, server.address, server.token("pep"), handle)
            tools = CountedTools()

            (done,) = stage.play(tools, Step())
            reported = [one for one in server.evidence.records if one["kind"] == "call.reported"]
            tools = CountedTools(
                returns="secret",
                during=lambda: server.client("approver").revoke_sessions(session_id=session_id, reason="enough"),
            )
            (withheld,) = stage.play(tools, Step())

        assert "done" == done
        assert 1 == len(reported)
        assert 1 == len(tools.runs)
        assert "could not be reported" in withheld
        assert "secret" not in withheld
        assert "revoked" not in withheld


def opened(server: RunningServer) -> tuple[str, str]:
    """Return id and handle of a new session that a person has approved."""
    gateway, approver = server.client("pep"), server.client("approver")
    wanted = gateway.request_session(user="alice", agent="coder", purpose="Test", tools=["desk/*"])
    shown: session_pb2.Session = approver.get_session(wanted.session.session_id)
    approver.approve_session(shown.session_id, request_digest=shown.request_digest)
    return shown.session_id, wanted.session_handle


def approve(server: RunningServer, session_id: str) -> None:
    """Approve the first call of a session that waits, as soon as it does."""
    approver = server.client("approver")
    watch: Any = approver.watch_access_requests(session_id=session_id)
    with closing(watch):
        request = next(watch)
        shown = approver.get_access_request(request.access_request_id)
        approver.approve_call(request.access_request_id, request_digest=shown.request_digest)
