"""The core of all adapters, by itself: a door without a framework, and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pdp.client import CallTokenRequest, Client, ClientSession
from pdp.client.asking import prepare
from pdp.client.held import HeldSession
from pdp.doors.admissions import PLAIN, Form, Refusal, frozen
from pdp.doors.calltokens import attached
from pdp.doors.core import DenyLoopError, Door, FrameworkCall
from pdp.doors.observing import CallUnderWay
from pdp.doors.repeats import Repeats
from pdp.doors.tooltable import Tools, tool_table
from pdp.errors import ConfigurationError
from tests.doors.cannot import CANNOT
from tests.doors.conformance import DoorConformance, Stage
from tests.doors.desk import CountedTools, Driver, Step
from tests.machinery.pages import blocks

# Such a text stands for an error of the tool, as a result of its own kind does in a framework.
_FORM: Form[Any] = Form(failed=lambda result: result.startswith("failed"))


class PlainDriver(Driver):
    """Calls tools as an adapter does, without a framework around it."""

    name = "core"

    def play(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Play the steps with functions."""
        return [self._play(door, tools, step, run) for step in steps]

    def _play(self, door: Door, tools: CountedTools, step: Step, run: Any) -> str:
        step.before()
        return _shown(door.run(_call(step, run), lambda arguments: tools(step.name, arguments), _FORM))

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Play the steps with coroutines."""
        shown = []
        for step in steps:
            step.before()

            async def tool(arguments: dict[str, Any], name: str = step.name) -> Any:
                return tools(name, arguments)

            shown.append(_shown(await door.run_async(_call(step, run), tool, _FORM)))
        return shown


def _call(step: Step, run: Any) -> FrameworkCall:
    return FrameworkCall(name=step.name, arguments=step.arguments, tool_call_id="call_1", run=run)


def _shown(result: Any) -> str:
    if isinstance(result, Refusal) and result.ends_run:
        raise DenyLoopError(result)
    return result.text if isinstance(result, Refusal) else str(result)


class TestCore(DoorConformance):
    """The cases, without a framework."""

    driver = PlainDriver()

    def test_an_error_in_place_of_a_result_is_bounded_too(self, stage: Stage) -> None:
        """A tool chooses whether it calls a text an error."""
        large, small = CountedTools(returns="failed" + "x" * 5), CountedTools(returns="failed")

        (withheld,) = stage.play(large, Step(tool="big"))
        (shown,) = stage.play(small, Step(tool="big"))

        assert "at most 10 may be handed on" in withheld
        assert "xxx" not in withheld
        assert "failed" == shown


def test_what_a_door_holds_of_a_question_shows_no_secret() -> None:
    """Tools that report errors write down the values of local names."""
    session = ClientSession(cast("Client", None), HeldSession(handle="pdps_secret"))
    question = Door(session, {"log": "git/log"})._question(
        FrameworkCall(name="log", arguments={"key": "hidden"}), PLAIN, CallUnderWay(None, "")
    )
    prepared = prepare(replace(question.call, session_handle="pdps_secret"))

    assert "hidden" not in repr((question, prepared))
    assert "pdps_secret" not in repr((question, prepared))


def test_an_adapter_that_runs_no_tool_refuses_a_door_with_call_tokens() -> None:
    """Its tools would find none, and nobody would know why."""
    handle = object.__new__(ClientSession)
    door = Door(handle, {"log": "git/log"}, call_tokens={"git": CallTokenRequest(audience="https://git.example")})

    with pytest.raises(ConfigurationError, match="this adapter runs no tool itself"):
        door.require_no_call_tokens("this adapter")
    Door(handle, {"log": "git/log"}).require_no_call_tokens("this adapter")


def test_a_tool_of_the_page_sends_the_token_of_its_call(project_root: Path) -> None:
    """The page's door asks for it, and the page's tool finds it."""
    (text,) = blocks(project_root / "pdp" / "doors" / "README.md", "python call token")
    page: dict[str, Any] = {}
    exec(text, page)  # noqa: S102 - our own page
    sent: list[tuple[str, Any]] = []
    http = SimpleNamespace(get=lambda path, headers: sent.append((path, headers)))

    door = page["door_of"](object.__new__(ClientSession))
    with attached("a.call.token"):
        page["list_issues"](http, "o")

    with pytest.raises(ConfigurationError):
        door.require_no_call_tokens("an adapter")
    assert [("/github/repos/o/issues", {"pdp-call-token": "a.call.token"})] == sent


def test_a_table_says_what_each_name_means() -> None:
    """Only the first `/` splits, and of the catalogue's name alone."""
    table = tool_table({"mcp__git__git_log": "git/git_log", "a/b": "s/t/u"})

    assert {"mcp__git__git_log": ("git", "git_log"), "a/b": ("s", "t/u")} == dict(table)


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ([("log", "git/log"), ("log", "hg/log")], "the tool `log` has two entries"),
        ([("log", "git/log"), ("log", "git/log")], "the tool `log` has two entries"),
        ({"log": "git_log"}, "the tool `log` is not mapped to `server/tool`: `git_log`"),
        ({"log": "/log"}, "not mapped"),
        ({"log": "git/"}, "not mapped"),
        ({"": "git/log"}, "not mapped"),
        ({}, "no tool is mapped"),
    ],
)
def test_a_table_that_could_be_misread_starts_no_door(tools: Tools, told: str) -> None:
    """Two entries for a name, a name without a meaning, and no entry at all."""
    with pytest.raises(ConfigurationError, match=told):
        tool_table(tools)


def test_what_runs_is_read_from_what_was_asked_about() -> None:
    """A change of the agent's own objects meanwhile changes nothing."""
    given: dict[str, Any] = {"list": [1, {"deep": 1.0}], "text": "é"}
    runs, asked = frozen(given)
    given["list"][1]["deep"] = 2

    assert {"list": [1, {"deep": 1.0}], "text": "é"} == runs
    assert '{"list":[1,{"deep":1.0}],"text":"é"}'.encode() == asked


@pytest.mark.parametrize(
    "arguments",
    [{1: "a"}, {"a": (1,)}, {"a": float("inf")}, {"a": object()}, {"a": "\ud800"}, {"a": 10**5000}],
    ids=["a number as a name", "a tuple", "no number", "an object", "half a character", "too many digits"],
)
def test_what_json_does_not_keep_is_not_asked_about(arguments: dict[Any, Any]) -> None:
    """Names that are no texts, other lists, numbers without end."""
    with pytest.raises((TypeError, ValueError)):
        frozen(arguments)


def test_denies_in_a_row_are_counted_for_each_call() -> None:
    """One call's do not count for another; an allow, and the end of a run, begin anew."""
    repeats = Repeats(2)

    assert [False, False, True, False] == [repeats.denied("a", b"1") for _ in range(4)]
    assert [False, False, True] == [repeats.denied("a", "1", "") for _ in range(3)]
    repeats.denied("b")
    repeats.allowed("b")
    assert [False, False, True] == [repeats.denied("b") for _ in range(3)]


def test_the_call_denied_longest_ago_is_forgotten_first() -> None:
    """A model that always finds another call fills no memory."""
    repeats = Repeats(1)
    repeats.denied("first")
    for number in range(1024):
        repeats.denied(str(number))

    assert not repeats.denied("first")
    assert repeats.denied("1023")


def test_every_case_is_run_by_an_adapter() -> None:
    """What an adapter cannot have is a case that there is, and that another one has."""
    cases = {name.removeprefix("test_") for name in vars(DoorConformance) if name.startswith("test_")}
    frameworks = [left_out for name, left_out in CANNOT.items() if name != "core"]

    assert all(left_out.keys() <= cases and all(left_out.values()) for left_out in CANNOT.values())
    assert set() == set.intersection(*(set(left_out) for left_out in frameworks))


def test_every_adapter_runs_the_cases(project_root: Path) -> None:
    """Each has its own class of them, and an entry of what it cannot have."""
    doors = project_root / "tests" / "doors"
    files = {
        path.stem.removeprefix("test_"): path
        for one in ("adapters", "apart")
        for path in doors.glob(f"{one}/test_*.py")
    }
    gateway = doors / "agentgateway" / "test_agentgateway_conformance.py"

    assert files.keys() | {"core", "agentgateway"} == CANNOT.keys()
    assert all((project_root / "pdp" / "doors" / f"{name}.py").is_file() for name in files)
    assert "(DoorConformance)" in gateway.read_text("utf-8")
    assert all("(DoorConformance)" in path.read_text("utf-8") for path in files.values())
