"""What the client does about obligations: guards fulfil them, and whoever does not look at them allows nothing."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp import types

from pdp.client import FULFILLED, Answer, AsyncClient, Client, ToolCall, ToolCallDenied, ToolResultWithheld, fulfil
from pdp.identity.callersfile import new_token, write_token
from pdp.v1.decision_pb2 import Decision
from tests.machinery.pages import blocks
from tests.machinery.servers.scripted import ScriptedServer

CANARY = "canary@example.com"
PEOPLE = [{"name": "Ann", "email": CANARY}]
REDACT = ("redact_result", {"fields": ["[].email"]})
Asked = tuple[str, Any]
Options = dict[str, Any]


def script(server: ScriptedServer, *asked: Asked) -> None:
    """Let the server allow every call with some obligations; parameters that are bytes go as they are."""

    def decide(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        for name, parameters in asked:
            text = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
            decision.obligations.add(id=name, parameters_json=text)
        return decision

    server.decide = decide


def _of_function(address: str, function: Callable[[], Any], options: Options, *, met: Collection[str] = ()) -> Any:
    with Client(address, **options) as client:
        return client.attach("pdps_secret").guard(server="files", tool="read", met=met)(function)()


def _of_coroutine(address: str, function: Callable[[], Any], options: Options, *, met: Collection[str] = ()) -> Any:
    with Client(address, **options) as client:
        guard = client.attach("pdps_secret").guard(server="files", tool="read", met=met)
        return asyncio.run(guard(_awaited(function))())


def _of_async_client(address: str, function: Callable[[], Any], options: Options, *, met: Collection[str] = ()) -> Any:
    async def run() -> Any:
        async with AsyncClient(address, **options) as client:
            guard = client.attach("pdps_secret").guard(server="files", tool="read", met=met)
            return await guard(_awaited(function))()

    return asyncio.run(run())


def _awaited(function: Callable[[], Any]) -> Callable[[], Any]:
    async def awaited() -> Any:
        return function()

    return awaited


def _giving(value: object) -> Callable[[], object]:
    return lambda: value


Guarded = Callable[..., Any]
every_guard = pytest.mark.parametrize(
    "guard", [_of_function, _of_coroutine, _of_async_client], ids=["function", "coroutine", "async client"]
)


@every_guard
def test_a_guard_redacts_the_result(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """All fields of all such obligations, without a word from the caller."""
    script(server, REDACT, ("redact_result", {"fields": ["[].name"]}))

    found = guard(address, lambda: PEOPLE, {})

    assert [{"name": "[redacted]", "email": "[redacted]"}] == found
    assert CANARY in str(PEOPLE)


@every_guard
@pytest.mark.parametrize("result", [f"Ann <{CANARY}>", {"people": PEOPLE}, object(), iter([CANARY])])
def test_a_guard_withholds_what_it_cannot_redact(
    server: ScriptedServer, address: str, guard: Guarded, result: object
) -> None:
    """The agent reads that the call was made, and why it gets nothing."""
    script(server, REDACT)

    with pytest.raises(
        ToolResultWithheld, match="the call of `files/read` was made, and its result is withheld"
    ) as raised:
        guard(address, lambda: result, {})

    assert CANARY not in "".join(traceback.format_exception(raised.value))
    assert raised.value.answer.allowed
    # An error about JSON holds the whole text.
    assert (None, None) == (raised.value.__cause__, raised.value.__context__)


@every_guard
def test_an_error_of_the_tool_cannot_say_what_is_redacted(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """It is replaced, and nothing leads to it."""
    script(server, REDACT)

    def fail() -> None:
        raise LookupError(f"no such user: {CANARY}")

    with pytest.raises(ToolResultWithheld, match="failed") as raised:
        guard(address, fail, {})

    assert (None, None) == (raised.value.__cause__, raised.value.__context__)
    assert CANARY not in "".join(traceback.format_exception(raised.value))


@every_guard
def test_without_redaction_an_error_of_the_tool_is_its_own(
    server: ScriptedServer, address: str, guard: Guarded
) -> None:
    """As long as it is no larger than a result may be, as programs show it."""
    script(server, ("max_result_bytes", {"bytes": len(repr(LookupError("no such file")))}))

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(LookupError, match="no such file"):
        guard(address, lambda: fail(LookupError("no such file")), {})
    for error, why in (
        (LookupError("no such files"), "bytes, and at most 27"),
        (UnreadableError(), "not a JSON value"),
    ):
        with pytest.raises(ToolResultWithheld, match=f"the call failed, and it.* {why}") as raised:
            guard(address, partial(fail, error), {})
        assert (None, None) == (raised.value.__cause__, raised.value.__context__)


class UnreadableError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@every_guard
def test_a_guard_bounds_the_result(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """The smallest bound counts, in bytes of UTF-8, after what is redacted; the message says what to do."""
    script(server, ("max_result_bytes", {"bytes": 99}), ("max_result_bytes", {"bytes": 12}))

    assert "x" * 12 == guard(address, lambda: "x" * 12, {})
    assert ["ab", "cd"] == guard(address, lambda: ["ab", "cd"], {})
    assert b"x" * 12 == guard(address, lambda: b"x" * 12, {})
    for large in ("x" * 13, "ä" * 7, ["ab", "cde"], b"x" * 13):
        with pytest.raises(ToolResultWithheld, match="bytes, and at most 12 may be handed on: ask for less"):
            guard(address, _giving(large), {})
    for strange in (iter("x"), Answered([1])):
        with pytest.raises(ToolResultWithheld, match="not a JSON value"):
            guard(address, _giving(strange), {})


class Answered:
    """An object that can be dumped as JSON, as those of many libraries."""

    def __init__(self, dumped: object) -> None:
        self.dumped = dumped

    def model_dump(self, **_: object) -> object:
        """Return the object as JSON."""
        return self.dumped


@every_guard
def test_a_result_of_the_sdk_is_fulfilled_as_it_is_sent(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """What a gateway gets from an MCP server needs no conversion, and stays an object of the SDK."""
    result = types.CallToolResult(content=[types.TextContent(type="text", text=json.dumps(PEOPLE))])
    script(server, REDACT, ("max_result_bytes", {"bytes": 200}))

    found = guard(address, lambda: result, {})

    clean = json.dumps([{"name": "Ann", "email": "[redacted]"}])
    assert types.CallToolResult(content=[types.TextContent(type="text", text=clean)]) == found
    script(server, ("max_result_bytes", {"bytes": 60}))
    with pytest.raises(ToolResultWithheld, match="at most 60 may be handed on"):
        guard(address, lambda: result, {})


@every_guard
def test_a_notice_is_shown_before_the_call(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """Each notice, with the answer, so that the person can be told about which call it is."""
    script(server, ("notice", {"text": "First."}), ("notice", {"text": "Second."}))
    seen: list[str] = []

    def show(text: str, answer: Answer) -> None:
        seen.append(f"{text} {answer.server}/{answer.tool}")

    guard(address, lambda: seen.append("ran"), {"on_notice": show})

    assert ["First. files/read", "Second. files/read", "ran"] == seen


async def _no_notice(text: str, answer: Answer) -> None:
    raise AssertionError(f"{text} {answer}")


def _failing(text: str, answer: Answer) -> None:
    raise RuntimeError(f"{text} {answer}")


@every_guard
@pytest.mark.parametrize(
    ("asked", "options", "why"),
    [
        (("notify", {}), {}, "unknown obligation: `notify`"),
        (("notify", {}), {"known_obligations": ["notify"]}, "unknown obligation: `notify`"),
        (("", {}), {}, "unknown obligation: ``"),
        (("notice", {"text": "x"}), {}, "unknown obligation: `notice`"),
        (("notice", {"text": "x"}), {"known_obligations": ["notice"]}, "unknown obligation: `notice`"),
        (("notice", {"text": "x"}), {"on_notice": _failing}, "a notice could not be shown"),
        (("notice", {"text": "x"}), {"on_notice": _no_notice}, "a notice could not be shown"),
        (("notice", {"text": "a\nb"}), {"on_notice": print}, "the obligation `notice` cannot be read"),
        (("redact_result", b""), {}, "the obligation `redact_result` cannot be read: not JSON"),
        (("redact_result", b"{"), {}, "the obligation `redact_result` cannot be read: not JSON"),
        (("redact_result", b"[" * 100_000), {}, "the obligation `redact_result` cannot be read: not JSON"),
        (("redact_result", b"\xff"), {}, "the obligation `redact_result` cannot be read: not JSON"),
        (("redact_result", []), {}, "the obligation `redact_result` cannot be read: not an object"),
        (("redact_result", {}), {}, "the obligation `redact_result` cannot be read: takes exactly"),
        (("redact_result", {"fields": ["a", "b..c"]}), {}, "the obligation `redact_result` cannot be read: `fields`"),
        (("redact_result", {"fields": ["a"], "but": 1}), {}, "the obligation `redact_result` cannot be read: takes"),
        (("max_result_bytes", {"bytes": -1}), {}, "the obligation `max_result_bytes` cannot be read: `bytes`"),
    ],
)
def test_what_a_guard_cannot_fulfil_does_not_run(
    server: ScriptedServer, address: str, guard: Guarded, asked: Asked, options: Options, why: str
) -> None:
    """Whatever is unknown, unreadable or cannot be shown is a deny that says why, also among others."""
    script(server, ("max_result_bytes", {"bytes": 1000}), asked)
    ran: list[int] = []

    with pytest.raises(ToolCallDenied) as raised:
        guard(address, lambda: ran.append(1), options)

    assert why in str(raised.value)
    assert ([], False, ()) == (ran, raised.value.answer.allowed, raised.value.answer.obligations)


def _unary(address: str, options: Options) -> Answer:
    with Client(address, **options) as client:
        return client.authorize("pdps_secret", "files", "read")


def _batch(address: str, options: Options) -> Answer:
    with Client(address, **options) as client:
        return client.batch([ToolCall(session_handle="pdps_secret", server="files", tool="read")])[0]


def _stream(address: str, options: Options) -> Answer:
    with Client(address, **options) as client, client.stream() as stream:
        return stream.authorize("pdps_secret", "files", "read")


@pytest.mark.parametrize("way", [_unary, _batch, _stream])
def test_who_overlooks_obligations_allows_nothing(
    server: ScriptedServer, address: str, way: Callable[[str, Options], Answer]
) -> None:
    """Unless the client was told that they are met, the answer is false."""
    script(server, REDACT)

    assert not way(address, {})
    assert not way(address, {"known_obligations": ["notice"]})
    assert way(address, {"known_obligations": FULFILLED}).allowed


def test_a_gateway_fulfils_an_answer_by_itself(server: ScriptedServer, address: str) -> None:
    """Without a guard: the same code, for any result."""
    script(server, REDACT)
    with Client(address, known_obligations=FULFILLED) as client:
        answer = client.authorize("pdps_secret", "files", "read")

    assert [{"name": "Ann", "email": "[redacted]"}] == fulfil(answer, PEOPLE)
    with pytest.raises(ToolResultWithheld, match="it is not JSON"):
        fulfil(answer, CANARY)


def test_what_is_not_ours_is_not_fulfilled_by_itself(server: ScriptedServer, address: str) -> None:
    """A gateway that knows another obligation fulfils it and does not ask us; a deny has no result."""
    script(server, REDACT, ("log_access", {}))
    with Client(address, known_obligations=[*FULFILLED, "log_access"]) as client:
        answer = client.authorize("pdps_secret", "files", "read")
    with Client(address) as client:
        denied = client.authorize("pdps_secret", "files", "read")

    assert answer.allowed
    for one in (answer, denied):
        with pytest.raises(ToolCallDenied, match="unknown obligation"):
            fulfil(one, PEOPLE)


def test_a_gateway_names_the_obligations_that_it_has_met(server: ScriptedServer, address: str) -> None:
    """The others are fulfilled: naming one that the product knows takes nothing away."""
    script(server, REDACT, ("log_access", {"to": "crm"}))
    met = ["log_access", *FULFILLED]
    with Client(address, known_obligations=met) as client:
        answer = client.authorize("pdps_secret", "files", "read")

    assert [{"name": "Ann", "email": "[redacted]"}] == fulfil(answer, PEOPLE, met=met)
    with pytest.raises(ToolCallDenied, match="unknown obligation: `log_access`"):
        fulfil(answer, PEOPLE, met=["redact_result"])
    with pytest.raises(TypeError, match="`met` must be a list of obligations"):
        fulfil(answer, PEOPLE, met="log_access")


@every_guard
def test_a_guarded_function_meets_the_obligations_that_the_guard_names(
    server: ScriptedServer, address: str, guard: Guarded
) -> None:
    """The guard fulfils the others, and denies what neither of them knows."""
    script(server, REDACT, ("log_access", {"to": "crm"}))

    assert [{"name": "Ann", "email": "[redacted]"}] == guard(address, lambda: PEOPLE, {}, met={"log_access"})
    with pytest.raises(ToolCallDenied, match="unknown obligation: `log_access`"):
        guard(address, lambda: PEOPLE, {}, met={"log_excess", "redact_result"})
    script(server, ("notice", {"text": "First."}))
    with pytest.raises(ToolCallDenied, match="unknown obligation: `notice`"):
        guard(address, lambda: PEOPLE, {}, met={"notice"})
    with pytest.raises(TypeError, match="`met` must be a list of obligations"):
        guard(address, lambda: PEOPLE, {}, met="notice")


@every_guard
def test_a_deny_within_a_redacted_call_keeps_its_words(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """A guarded function may call another one: what we say ourselves holds nothing of the result."""
    script(server, REDACT)
    answer = _unary(address, {})

    def deny() -> None:
        raise ToolCallDenied(answer)

    with pytest.raises(ToolCallDenied):
        guard(address, deny, {})


def test_the_page_does_what_it_says(
    server: ScriptedServer,
    address: str,
    project_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Both programs run as they are shown, and what they return has no address of a customer."""
    monkeypatch.setenv("PDP_ADDRESS", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".pdp" / "tokens").mkdir(parents=True)
    server.token = new_token()
    write_token(tmp_path / ".pdp" / "tokens" / "pep.token", server.token)
    page = project_root / "pdp" / "client" / "README.md"
    told: dict[str, Any] = {}
    for kind in ("python guard", "python fulfil"):
        (text,) = blocks(page, kind)
        exec(text, told)  # noqa: S102 - our own page

    script(server, REDACT)
    expected = [{"name": "Ann", "email": "[redacted]"}]
    assert expected == told["list_customers"]("pdps_secret")
    assert expected == told["ask_and_run"]("pdps_secret", "read", {}, lambda: PEOPLE)
    script(server, ("notice", {"text": "Customer data."}), ("max_result_bytes", {"bytes": 5}))
    assert "its result is withheld" in told["list_customers"]("pdps_secret")
    assert "crm/list_customers: Customer data.\n" == capsys.readouterr().out
    assert () == told["ask_and_run"]("pdps_secret", "read", {}, lambda: PEOPLE)
