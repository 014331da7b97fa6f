"""A call of an agent framework that was allowed: what its tool gets, and what the model gets of its result."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from pdp.client import Answer, AsyncCallUnderWay, CallUnderWay, ToolResultWithheld
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.sync.admitted import AdmittedCall
from pdp.doors import refusals
from pdp.doors.observing import NO_RESULT, TOOL_ERROR
from pdp.doors.observing import CallUnderWay as ObservedCall
from pdp.foundation.obligations import REDACT_RESULT
from pdp.observer import CallOutcome

_LOG = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the model gets instead of a result.

    `waits` says that a person can still approve the call, and `ends_run` that the model repeats a denied call again and
    again.
    """

    text: str
    waits: bool = False
    ends_run: bool = False


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
    whether the framework wrote it in place of a tool's error. `bare` leaves out of a result what cannot be redacted
    beside its content. `beside` returns what a tool has told besides its result, which is withheld where that may not
    be handed on. `steering` are exceptions by which the framework pauses a run: they go on, since the call is
    not over, unless `carried`, what such an exception brings along, may not be handed on. None is nothing.
    """

    freeze: Callable[[Any], tuple[Any, bytes]] = frozen
    bare: Callable[[R], R] = lambda result: result
    content: Callable[[R], Any] = lambda result: result
    with_content: Callable[[R, Any], Any] = lambda _, content: content
    failed: Callable[[R], bool] = lambda _: False
    beside: Callable[[], Any] = lambda: None
    steering: tuple[type[Exception], ...] = ()
    carried: Callable[[Any], Any] = lambda pause: pause


PLAIN: Form[Any] = Form()


class Admission:
    """An allowed call: run the tool with `arguments`, which are what was asked about, then hand on its result.

    `under_way` is told what becomes of it. `call_token` is a secret for the tool alone; empty where none is attached.
    """

    def __init__(
        self,
        name: str,
        arguments: Any,  # noqa: ANN401 - in the form of the framework
        admitted: AdmittedCall | AsyncAdmittedCall,
        form: Form[Any],
        under_way: ObservedCall,
        call_token: str = "",
    ) -> None:
        self.arguments = arguments
        self.call_token = call_token
        self.under_way = under_way
        self._name = name
        self._admitted = admitted
        self._form = form

    @property
    def answer(self) -> Answer:
        """Return the answer that allowed the call."""
        return self._admitted.answer

    @property
    def redacts(self) -> bool:
        """Say whether parts of the result must be redacted."""
        return any(one.id == REDACT_RESULT for one in self.answer.obligations)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the tool in the block: what ends it without a result or an error of the tool is the end of the call."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.under_way.over(CallOutcome.ALLOW, NO_RESULT)
            raise

    def handed_on(self, result: R) -> R | Refusal:
        """Report what the tool returned, and return what may be handed on of it."""
        self.under_way.came_back()
        try:
            bare = self._form.bare(result) if self.redacts else result
            content = self._form.content(bare)
            if self._form.failed(bare):
                return self.failed(content) or result
            self._admitted.result = content
            return self._kept(bare, content, self._admitted.handed_on())
        except Exception as error:  # noqa: BLE001 - fails closed: what may not have been reported is not shown
            return self._withheld(error)

    async def handed_on_async(self, result: R) -> R | Refusal:
        """Do as `handed_on`, without holding up the event loop."""
        self.under_way.came_back()
        try:
            bare = self._form.bare(result) if self.redacts else result
            content = self._form.content(bare)
            if self._form.failed(bare):
                return await self.failed_async(content) or result
            self._admitted.result = content
            return self._kept(bare, content, await awaited(self._admitted.handed_on))
        except Exception as error:  # noqa: BLE001 - fails closed: what may not have been reported is not shown
            return self._withheld(error)
        except BaseException:
            self.under_way.over(CallOutcome.WITHHELD)
            raise

    def failed(self, error: Any = None) -> Refusal | None:  # noqa: ANN401 - an exception, or the content of a result
        """Report that the tool failed. Return what the model gets in place of an error that it must not see."""
        try:
            if self._admitted.failed(error):
                self._admitted.handed_on()  # raises what says why
            self._require_quiet()
        except Exception as problem:  # noqa: BLE001 - fails closed: the error may hold what must be redacted
            return self._withheld(problem)
        self.under_way.over(CallOutcome.ALLOW, TOOL_ERROR)
        return None

    async def failed_async(self, error: Any = None) -> Refusal | None:  # noqa: ANN401 - the same
        """Do as `failed`, without holding up the event loop."""
        try:
            if await awaited(self._admitted.failed, error):
                await awaited(self._admitted.handed_on)  # raises what says why
            self._require_quiet()
        except Exception as problem:  # noqa: BLE001 - fails closed: the error may hold what must be redacted
            return self._withheld(problem)
        self.under_way.over(CallOutcome.ALLOW, TOOL_ERROR)
        return None

    def steered(self, pause: Any) -> Refusal | None:  # noqa: ANN401 - in the form of the framework
        """Let the framework pause the run. Return what the model gets where that would tell what it must not see."""
        return self.failed(carried) if self._hides(carried := self._form.carried(pause)) else None

    async def steered_async(self, pause: Any) -> Refusal | None:  # noqa: ANN401 - the same
        """Do as `steered`, without holding up the event loop."""
        return await self.failed_async(carried) if self._hides(carried := self._form.carried(pause)) else None

    def _hides(self, carried: Any) -> bool:  # noqa: ANN401 - whatever the tool says
        hides = carried is not None and self._admitted.hides(carried)
        if not hides:
            self.under_way.over(CallOutcome.ALLOW)
        return hides

    async def until_over(self, pieces: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401 - what a tool yields
        """Yield what a tool yields. Raise `ToolCallStopped`, and stop the tool, when the session is over."""
        async with aclosing(pieces), _followed(self._admitted.under_way()):
            async for piece in pieces:
                yield piece

    def _require_quiet(self) -> None:
        """Raise `ToolResultWithheld` where the tool has told besides what must not be handed on."""
        beside = self._form.beside()
        if beside is not None and self._admitted.hides(beside):
            raise ToolResultWithheld(self.answer, "what it tells besides must not be handed on")

    def _kept(self, result: R, content: Any, kept: Any) -> R:  # noqa: ANN401 - whatever a tool returns
        self._require_quiet()
        shown = result if kept is content else cast("R", self._form.with_content(result, kept))
        self.under_way.over(CallOutcome.ALLOW)
        return shown

    def _withheld(self, error: Exception) -> Refusal:
        self.under_way.over(CallOutcome.WITHHELD)
        if isinstance(error, ToolResultWithheld):
            why = error.why
        else:
            # Without its text, which can hold values of the result.
            _LOG.error("a result of `%s` is withheld, because handling it failed: %s", self._name, type(error).__name__)
            why = "handling it failed"
        return Refusal(text=refusals.withheld(self.answer, why, call=self._name))


@asynccontextmanager
async def _followed(call: CallUnderWay | AsyncCallUnderWay) -> AsyncIterator[None]:
    """Stop what the task does within, when the session of a call is over. The call is one of either client."""
    if isinstance(call, AsyncCallUnderWay):
        async with call:
            yield
        return
    await asyncio.to_thread(call.__enter__)
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    before = task.cancelling()
    call.on_stop(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
    try:
        yield
    except asyncio.CancelledError:
        # As `asyncio.timeout` does: the cancelling of others goes on.
        if not call.why or task.uncancel() > before:
            raise
    finally:
        call.__exit__(None, None, None)


async def awaited(function: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
    """Call a function of a client for asyncio, or on another thread one of a client for threads."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)
