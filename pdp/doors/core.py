"""What the adapters of all agent frameworks share: ask before a call runs, and hand on its result as was decided.

A door decides nothing and fails closed by itself: whatever goes wrong around a question, the tool does not run.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pdp.client import Answer, AsyncClientSession, ClientSession, ToolCall, ToolCallDenied, ToolResultWithheld
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.errors import one_line
from pdp.client.fulfilling import met_ids
from pdp.client.sync.admitted import AdmittedCall
from pdp.client.values import ERROR_BASIS
from pdp.doors import refusals
from pdp.doors.repeats import Repeats
from pdp.doors.tooltable import Tools, tool_table
from pdp.doors.traces import current_trace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the model gets instead of a result.

    `waits` says that a person can still approve the call, and `ends_run` that the model repeats a denied call again and
    again.
    """

    text: str
    waits: bool = False
    ends_run: bool = False


class DenyLoopError(Exception):
    """The model repeated a denied call too often: end the run, and tell the user what the model was told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"the same call was denied again and again: {refusal.text}")


def frozen(arguments: Mapping[str, Any]) -> tuple[Any, bytes]:
    """Return arguments as they run, and as they are asked about: the first are read from the second.

    Raise `ValueError` for what does not survive as JSON.
    """
    text = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    read = json.loads(text)
    if read != arguments:
        raise ValueError("the arguments hold what JSON does not")
    return read, text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Form(Generic[R]):
    """How a framework holds the arguments and the result of a call.

    `freeze` returns arguments as the tool gets them, which nothing else holds, and as they are asked about.
    `content` is what the model will see of a result, `with_content` makes a result with another, and `failed` says
    whether the framework wrote it in place of a tool's error. `steering` are exceptions by which the framework steers a
    run: they go on untouched, since the call is not over.
    """

    freeze: Callable[[Any], tuple[Any, bytes]] = frozen
    content: Callable[[R], Any] = lambda result: result
    with_content: Callable[[R, Any], Any] = lambda _, content: content
    failed: Callable[[R], bool] = lambda _: False
    steering: tuple[type[Exception], ...] = ()


PLAIN: Form[Any] = Form()


class Admission:
    """An allowed call: run the tool with `arguments`, which are what was asked about, then hand on its result."""

    def __init__(
        self,
        name: str,
        arguments: Any,  # noqa: ANN401 - in the form of the framework
        admitted: AdmittedCall | AsyncAdmittedCall,
        form: Form[Any],
    ) -> None:
        self.arguments = arguments
        self._name = name
        self._admitted = admitted
        self._form = form

    @property
    def answer(self) -> Answer:
        """Return the answer that allowed the call."""
        return self._admitted.answer

    def handed_on(self, result: R) -> R | Refusal:
        """Report what the tool returned, and return what may be handed on of it."""
        try:
            if self._form.failed(result):
                return self.failed() or result
            content = self._admitted.result = self._form.content(result)
            return self._kept(result, content, self._admitted.handed_on())
        except Exception as error:  # noqa: BLE001 - fails closed: what may not have been reported is not shown
            return self._withheld(error)

    async def handed_on_async(self, result: R) -> R | Refusal:
        """Do as `handed_on`, without holding up the event loop."""
        try:
            if self._form.failed(result):
                return await self.failed_async() or result
            content = self._admitted.result = self._form.content(result)
            return self._kept(result, content, await _awaited(self._admitted.handed_on))
        except Exception as error:  # noqa: BLE001 - fails closed: what may not have been reported is not shown
            return self._withheld(error)

    def failed(self, error: Exception | None = None) -> Refusal | None:
        """Report that the tool failed. Return what the model gets in place of an error that it must not see."""
        try:
            return self._withheld() if self._admitted.failed(error) else None
        except Exception as problem:  # noqa: BLE001 - fails closed: the error may hold what must be redacted
            return self._withheld(problem)

    async def failed_async(self, error: Exception | None = None) -> Refusal | None:
        """Do as `failed`, without holding up the event loop."""
        try:
            return self._withheld() if await _awaited(self._admitted.failed, error) else None
        except Exception as problem:  # noqa: BLE001 - fails closed: the error may hold what must be redacted
            return self._withheld(problem)

    def _kept(self, result: R, content: Any, kept: Any) -> R:  # noqa: ANN401 - whatever a tool returns
        return result if kept is content else cast("R", self._form.with_content(result, kept))

    def _withheld(self, error: Exception | None = None) -> Refusal:
        why = "it failed, and its error may hold redacted values"
        if isinstance(error, ToolResultWithheld):
            why = error.why
        elif error is not None:
            # Without its text, which can hold values of the result.
            _LOG.error("a result of `%s` is withheld, because handling it failed: %s", self._name, type(error).__name__)
            why = "handling it failed"
        return Refusal(text=refusals.withheld(self.answer, why, call=self._name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A call in the words of the catalogue, the session to ask in, and what makes two calls the same."""

    name: str
    session: Session
    call: ToolCall
    arguments: Any
    identity: tuple[str | bytes, ...]


class _UnknownToolError(Exception):
    """The door has no entry for the tool: deny its call."""


class Door:
    """Asks about the calls of one program; an adapter stands between the program's framework and its tools.

    `session` is the session to ask in, or a function that returns it for what the framework knows about a run. A
    `ClientSession` serves functions and coroutines, an `AsyncClientSession` coroutines of its own event loop.
    `tools` maps the framework's name of each tool to `server/tool` of the catalogue; any other tool is denied.
    `wait` is how many seconds a call waits for the person who must approve it; None means the session's.
    `met` are obligations of the bundle that the tools meet themselves.
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
    ) -> None:
        self.tools = tool_table(tools)
        self._session = session
        self.wait = wait
        self._met = met_ids(met)
        self._repeats = Repeats(most_repeats)

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
            question = self._question(call, form)
            if not isinstance(question.session, ClientSession):
                raise ConfigurationError("a door with an `AsyncClientSession` serves coroutines only")
            return self._admission(question, question.session.admit(question.call, **self._options()), form)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            return self._refusal(call, question, error)

    async def ask_async(self, call: FrameworkCall, form: Form[Any] = PLAIN) -> Admission | Refusal:
        """Do as `ask`, without holding up the event loop."""
        question = None
        try:
            question = self._question(call, form)
            admitted = await _awaited(question.session.admit, question.call, **self._options())
            return self._admission(question, admitted, form)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            return self._refusal(call, question, error)

    async def visible(self, run: Any) -> frozenset[str]:  # noqa: ANN401 - whatever a framework knows about a run
        """Return the framework's names of the tools that the session of a run can see; none when that is unknown.

        Being listed gives no authority: each call is asked about.
        """
        try:
            listed = await _awaited(self.session_of(run).list_tools)
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
            result = tool(admission.arguments)
        except form.steering:
            raise
        except Exception as error:
            if refusal := admission.failed(error):
                return refusal
            raise
        return admission.handed_on(result)

    async def run_async(
        self, call: FrameworkCall, tool: Callable[[Any], Awaitable[R]], form: Form[R] = PLAIN
    ) -> R | Refusal:
        """Do as `run`, for a coroutine."""
        admission = await self.ask_async(call, form)
        if isinstance(admission, Refusal):
            return admission
        try:
            result = await tool(admission.arguments)
        except form.steering:
            raise
        except Exception as error:
            if refusal := await admission.failed_async(error):
                return refusal
            raise
        return await admission.handed_on_async(result)

    def _question(self, call: FrameworkCall, form: Form[Any]) -> _Question:
        if call.name not in self.tools:
            raise _UnknownToolError
        server, tool = self.tools[call.name]
        session = self.session_of(call.run)
        arguments, text = form.freeze(call.arguments)
        asked = ToolCall(server=server, tool=tool, arguments=text, tool_call_id=call.tool_call_id)
        return _Question(
            name=call.name,
            session=session,
            call=asked,
            arguments=arguments,
            identity=(call.name, session.handle, text),
        )

    def _options(self) -> dict[str, Any]:
        traceparent, tracestate = current_trace()
        return {"met": self._met, "wait": self.wait, "traceparent": traceparent, "tracestate": tracestate}

    def _admission(self, question: _Question, admitted: AdmittedCall | AsyncAdmittedCall, form: Form[Any]) -> Admission:
        self._repeats.allowed(*question.identity)
        return Admission(question.name, question.arguments, admitted, form)

    def _refusal(self, call: FrameworkCall, question: _Question | None, error: Exception) -> Refusal:
        ends_run = self._repeats.denied(*(question.identity if question else (call.name,)))
        if isinstance(error, ToolCallDenied):
            answer = error.answer
            if answer.basis == ERROR_BASIS:
                _LOG.warning("there is no decision about a call of `%s`: %s", call.name, answer.error)
            text = refusals.denied(answer, call=call.name)
            return Refusal(text=text, waits=answer.waits, ends_run=ends_run)
        if isinstance(error, _UnknownToolError):
            _LOG.warning("a call is denied: the door has no entry for the tool `%s`", one_line(call.name))
            return Refusal(text=refusals.unknown(call.name), ends_run=ends_run)
        _LOG.error("a call of `%s` is denied, because asking about it failed: %s", call.name, _told(error))
        return Refusal(text=refusals.UNDECIDED, ends_run=ends_run)


def _told(error: Exception) -> str:
    """Return what a log may hold of an error. The text of another's can hold arguments."""
    return str(error) if isinstance(error, PDPError) else type(error).__name__


async def _awaited(function: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
    """Call a function of a client for asyncio, or on another thread one of a client for threads."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)
