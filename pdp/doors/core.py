"""What the adapters of all agent frameworks share: ask before a call runs, and hand on its result as was decided.

A door decides nothing and fails closed by itself: whatever goes wrong around a question, the tool does not run.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pdp.client import AsyncClientSession, CallTokenRequest, ClientSession, ToolCall, ToolCallDenied
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.errors import one_line
from pdp.client.fulfilling import met_ids
from pdp.client.sync.admitted import AdmittedCall
from pdp.client.values import ERROR_BASIS
from pdp.doors import refusals
from pdp.doors.admissions import PLAIN, Admission, Form, Refusal, awaited
from pdp.doors.agentspans import begin_call
from pdp.doors.calltokens import NoCallTokenError, attached, token_of_admitted, token_of_waiting
from pdp.doors.observing import CallUnderWay, NotMadeError
from pdp.doors.repeats import Repeats
from pdp.doors.tooltable import Tools, tool_table
from pdp.errors import ConfigurationError, PDPError
from pdp.model import Visibility

_LOG = logging.getLogger(__name__)

R = TypeVar("R")
Session = ClientSession | AsyncClientSession


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkCall:
    """A call that a framework is about to make of the tool that it knows as `name`.

    `arguments` are what the tool gets, in the form of the framework.
    `run` is what the framework knows about the run, for a door whose session depends on it.
    """

    name: str
    arguments: Any = field(repr=False)
    tool_call_id: str = ""
    run: Any = field(default=None, repr=False)


class DenyLoopError(Exception):
    """The model repeated a denied call too often: end the run, and tell the user what the model was told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"the same call was denied again and again: {refusal.text}")
        self._refusal = refusal

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._refusal,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A call in the words of the catalogue, the session to ask in, and what makes two calls the same."""

    name: str
    session: Session
    call: ToolCall
    arguments: Any = field(repr=False)
    identity: tuple[str | bytes, ...] = field(repr=False)


class _UnknownToolError(NotMadeError):
    """The door has no entry for the tool: deny its call."""


class Door:
    """Asks about the calls of one program; an adapter stands between the program's framework and its tools.

    `session` is the session to ask in, or a function that returns it for what the framework knows about a run. A
    `ClientSession` serves functions and coroutines, an `AsyncClientSession` coroutines of its own event loop.
    `tools` maps the framework's name of each tool to `server/tool` of the catalogue; any other tool is denied.
    `wait` is how many seconds a call waits for the person who must approve it; None means the session's.
    `met` are obligations of the bundle that the tools meet themselves.
    `call_tokens` has, by tool server, which call token each call of its tools brings: the tool gets it by `call_token`
    while it runs, and without one the call is not made. Only for adapters that run tools themselves.
    After `most_repeats` denies of the same call in a row, the next one ends the run.
    Raise `ConfigurationError` for a table that could be misread.
    """

    def __init__(
        self,
        session: Session | Callable[[Any], Session],
        tools: Tools,
        *,
        wait: float | None = None,
        met: Collection[str] = (),
        most_repeats: int = 5,
        call_tokens: Mapping[str, CallTokenRequest] = MappingProxyType({}),
    ) -> None:
        self.tools = tool_table(tools)
        self._call_tokens = dict(call_tokens)
        self._session = session
        self.wait = wait
        self._met = met_ids(met)
        self._repeats = Repeats(most_repeats)

    def require_no_call_tokens(self, adapter: str) -> None:
        """Raise `ConfigurationError` for a door with call tokens: the adapter of this name could hand on none."""
        if self._call_tokens:
            raise ConfigurationError(f"{adapter} runs no tool itself, so no tool would get its call token")

    def session_of(self, run: Any) -> Session:  # noqa: ANN401 - whatever a framework knows about a run
        """Return the session of a run. Raise `ConfigurationError` when there is none."""
        session = self._session(run) if callable(self._session) else self._session
        if not isinstance(session, ClientSession | AsyncClientSession):
            raise ConfigurationError("the door has no session for this run")
        return session

    def ask(self, call: FrameworkCall, form: Form[Any] = PLAIN) -> Admission | Refusal:
        """Ask about a call. Only an `Admission` lets it run."""
        question = None
        try:
            with begin_call(call.name, call.tool_call_id) as under_way:
                question = self._question(call, form, under_way)
                if not isinstance(question.session, ClientSession):
                    raise ConfigurationError("a door with an `AsyncClientSession` serves coroutines only")
                with under_way.asking():
                    admitted = question.session.admit(question.call, **self._options(under_way))
                under_way.decided(admitted.answer)
                token = token_of_waiting(admitted, question.call)
                return self._admission(question, admitted, form, under_way, token)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            return self._refusal(call, question, error)

    async def ask_async(self, call: FrameworkCall, form: Form[Any] = PLAIN) -> Admission | Refusal:
        """Do as `ask`, without holding up the event loop."""
        question = None
        try:
            with begin_call(call.name, call.tool_call_id) as under_way:
                question = self._question(call, form, under_way)
                with under_way.asking():
                    admitted = await awaited(question.session.admit, question.call, **self._options(under_way))
                under_way.decided(admitted.answer)
                token = await _token_of(admitted, question.call)
                return self._admission(question, admitted, form, under_way, token)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            return self._refusal(call, question, error)

    async def visible(self, run: Any) -> frozenset[str]:  # noqa: ANN401 - whatever a framework knows about a run
        """Return the framework's names of the tools that the session of a run can see; none when that is unknown.

        Being listed gives no authority: each call is asked about.
        """
        try:
            listed = await awaited(self.session_of(run).list_tools)
        except Exception as error:  # noqa: BLE001 - fails closed: what may be seen is not known
            _LOG.warning("no tool is listed: %s", _told(error))
            return frozenset()
        seen = {(one.server, one.tool) for one in listed if one.visibility is not Visibility.NEVER}
        return frozenset(name for name, meant in self.tools.items() if meant in seen)

    def run(self, call: FrameworkCall, tool: Callable[[Any], R], form: Form[R] = PLAIN) -> R | Refusal:
        """Ask about a call, run its tool if it is allowed, and return what may be handed on.

        The error of a tool goes on, unless it may hold what must be redacted.
        """
        admission = self.ask(call, form)
        if isinstance(admission, Refusal):
            return admission
        try:
            with admission.running(), attached(admission.call_token):
                result = tool(admission.arguments)
        except form.steering as pause:
            if refusal := admission.steered(pause):
                return refusal
            raise
        except Exception as error:
            if refusal := admission.failed(error):
                return refusal
            raise
        return admission.handed_on(result)

    async def run_async(
        self, call: FrameworkCall, tool: Callable[[Any], Awaitable[R]], form: Form[R] = PLAIN
    ) -> R | Refusal:
        """Do as `run`, for a coroutine. What it returns may yield, until the session is over: `ToolCallStopped`."""
        admission = await self.ask_async(call, form)
        if isinstance(admission, Refusal):
            return admission
        try:
            with admission.running(), attached(admission.call_token):
                result = await tool(admission.arguments)
        except form.steering as pause:
            if refusal := await admission.steered_async(pause):
                return refusal
            raise
        except Exception as error:
            if refusal := await admission.failed_async(error):
                return refusal
            raise
        kept = await admission.handed_on_async(result)
        return cast("R", admission.until_over(kept)) if inspect.isasyncgen(kept) else kept

    def _question(self, call: FrameworkCall, form: Form[Any], under_way: CallUnderWay) -> _Question:
        if call.name not in self.tools:
            raise _UnknownToolError
        server, tool = under_way.server, under_way.tool = self.tools[call.name]
        session = self.session_of(call.run)
        arguments, text = form.freeze(call.arguments)
        wanted = self._call_tokens.get(server)
        asked = ToolCall(
            server=server,
            tool=tool,
            arguments=text,
            tool_call_id=call.tool_call_id,
            call_tokens=(wanted,) if wanted else (),
        )
        return _Question(
            name=call.name,
            session=session,
            call=asked,
            arguments=arguments,
            identity=(call.name, session.handle, text),
        )

    def _options(self, under_way: CallUnderWay) -> dict[str, Any]:
        return {"met": self._met, "wait": self.wait, **under_way.joined}

    def _admission(
        self,
        question: _Question,
        admitted: AdmittedCall | AsyncAdmittedCall,
        form: Form[Any],
        under_way: CallUnderWay,
        token: str,
    ) -> Admission:
        self._repeats.allowed(*question.identity)
        under_way.sent()
        return Admission(question.name, question.arguments, admitted, form, under_way, token)

    def _refusal(self, call: FrameworkCall, question: _Question | None, error: Exception) -> Refusal:
        ends_run = self._repeats.denied(*(question.identity if question else (call.name,)))
        if isinstance(error, ToolCallDenied):
            answer = error.answer
            if answer.basis == ERROR_BASIS:
                _LOG.warning("there is no decision about a call of `%s`: %s", call.name, answer.error)
            text = refusals.denied(answer, call=call.name)
            return Refusal(text=text, waits=answer.waits, ends_run=ends_run)
        if isinstance(error, NoCallTokenError):
            return Refusal(text=str(error), ends_run=ends_run)
        if isinstance(error, _UnknownToolError):
            _LOG.warning("a call is denied: the door has no entry for the tool `%s`", one_line(call.name))
            return Refusal(text=refusals.unknown(call.name), ends_run=ends_run)
        _LOG.error("a call of `%s` is denied, because asking about it failed: %s", call.name, _told(error))
        return Refusal(text=refusals.UNDECIDED, ends_run=ends_run)


async def _token_of(admitted: AdmittedCall | AsyncAdmittedCall, call: ToolCall) -> str:
    if isinstance(admitted, AsyncAdmittedCall):
        return await token_of_admitted(admitted, call)
    return await asyncio.to_thread(token_of_waiting, admitted, call) if call.call_tokens else ""


def _told(error: Exception) -> str:
    """Return what a log may hold of an error. The text of another's can hold arguments."""
    return str(error) if isinstance(error, PDPError) else type(error).__name__
