"""How the client for asyncio waits: for an answer, for the messages of a stream, for a connection.

`threads` has the same names, so that `make client` can generate `pdp.client.sync` from `pdp.client.aio`.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

import grpc
from google.protobuf.message import Message

from pdp.client.control import UNDECIDED
from pdp.client.errors import CallStatusError, PDPClientError, deadline_exceeded
from pdp.client.fulfilling import met_ids
from pdp.client.guard import GuardedSignature
from pdp.client.values import ToolCall
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, AuthorizeStreamResponse

if TYPE_CHECKING:  # A session imports its guard from this module, so a real import would be circular.
    from pdp.client.aio.session import AsyncClientSession

P = ParamSpec("P")
R = TypeVar("R")

# How long what was cancelled may take to be undone.
_UNDO_SECONDS: Final = 5.0

sleep = asyncio.sleep
Lock = asyncio.Lock
# What does not wait is not interrupted by another task.
Mutex = nullcontext


class Home:
    """Where a client was made: gRPC works only in that event loop."""

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def require(self) -> None:
        """Raise `PDPClientError` in another event loop."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise PDPClientError("the client belongs to the event loop in which it was made; make another one here")


def closable(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return `call`, an RPC, so that a closed channel raises `PDPClientError`."""

    async def answer(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        try:
            return await call(*args, **kwargs)
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            raise PDPClientError("the connection was closed") from None

    return answer


async def completed(work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` to its end, however often this task is cancelled meanwhile."""
    task = asyncio.ensure_future(work())
    cancelled: asyncio.CancelledError | None = None
    with _shielded():
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        task.result()
        return
    if not task.cancelled():
        # It counts as seen, so that the loop does not tell of it.
        task.exception()
    raise cancelled


async def undone_if_cancelled(work: Callable[[], Awaitable[R]], undo: Callable[[R], Awaitable[object]]) -> R:
    """Return what `work` returns. If this task is cancelled meanwhile, undo it first, within a few seconds."""
    task = asyncio.ensure_future(work())

    async def undone() -> None:
        with suppress(Exception):  # what fails was not done, or ends by its own time
            async with asyncio.timeout(_UNDO_SECONDS):
                await undo(await task)

    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await completed(undone)
        raise


def interrupted(_: BaseException) -> bool:
    """Say whether an error leaves a channel unfit for use: none does, since no task is interrupted within gRPC."""
    return False


def abandon(channel: Any, *, after: float) -> None:  # noqa: ANN401 - gRPC has no types
    """Do nothing: no channel becomes unfit for use."""


async def turn() -> None:
    """Let the other tasks that are ready go first."""
    await asyncio.sleep(0)


def after_others(work: Callable[[], None]) -> None:
    """Do `work` when the tasks that are ready now have had their turn."""
    asyncio.get_running_loop().call_soon(work)


async def reached(channel: Any, seconds: float) -> bool:  # noqa: ANN401 - gRPC has no types
    """Connect, and say whether a server answers within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while (state := channel.get_state(try_to_connect=True)) in UNDECIDED:
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


class Begun:
    """An RPC that no task waits for: `done` gets its answer or the error."""

    def __init__(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Message,
        done: Callable[[Any, BaseException | None], None],
        **options: Any,  # noqa: ANN401 - gRPC has no types
    ) -> None:
        self._task = asyncio.ensure_future(method(request, **options))
        self._task.add_done_callback(partial(_tell, done))

    def cancel(self) -> None:
        """Have it end, without waiting."""
        self._task.cancel()


class Exchange:
    """The messages of one stream, opened by `begin`: each request gets one reply within `timeout` seconds.

    Hold `turn` while asking.
    """

    def __init__(self, begin: Callable[[], Any], *, timeout: float, describe: Callable[[BaseException], str]) -> None:
        self.turn = asyncio.Lock()
        self._timeout = timeout
        self._describe = describe
        self._call = begin()

    def unusable(self) -> str:
        """Return why there can be no answer here; empty otherwise."""
        return ""

    async def ask(self, request: AuthorizeStreamRequest) -> AuthorizeStreamResponse | str:
        """Return the next message, or the reason why there is none."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._write(request)
                response = await self._call.read()
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            return "the stream was cancelled"
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the answer is a deny
            return self._describe(error)
        return response if isinstance(response, AuthorizeStreamResponse) else "the server ended the stream"

    async def _write(self, request: AuthorizeStreamRequest) -> None:
        try:
            await self._call.write(request)
        except asyncio.InvalidStateError:
            return  # the stream is over, and reading says why
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise
            # gRPC says so when the server is gone, and forgets the status that comes after it.
            raise CallStatusError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream") from None

    def cancel(self) -> None:
        """End the stream: no further message comes."""
        self._call.cancel()

    async def close(self) -> None:
        """End the stream, and with it any question in progress."""
        self.cancel()


class Feed:
    """The messages of one watch, opened by `begin`. A server sends the first one at once: within `first` seconds."""

    def __init__(self, begin: Callable[[], Any], *, first: float) -> None:
        self._first: float | None = first
        self._call = begin()

    async def next(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the next message, or None at the end. Raise `grpc.RpcError` when the watch breaks."""
        try:
            async with asyncio.timeout(self._first):
                message = await self._call.read()
        except TimeoutError:
            raise deadline_exceeded() from None
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            raise PDPClientError("the connection was closed") from None
        self._first = None
        return None if message is grpc.aio.EOF else message

    def cancel(self) -> None:
        """End the watch."""
        self._call.cancel()


class Signal:
    """What one task waits for, and others set. Setting it while no task waits is not lost."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the task that waits."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when it is set, or after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class Background:
    """A task of the client's own that does `work`."""

    def __init__(self, work: Callable[[Any], Awaitable[None]], what: Any) -> None:  # noqa: ANN401 - passed on
        self._task = asyncio.ensure_future(work(what))

    def cancel(self) -> None:
        """Have it end, without waiting."""
        self._task.cancel()

    async def join(self) -> None:
        """Wait until it has ended."""
        await asyncio.wait([self._task])


class Stopping:
    """How a call that is under way stops: what the gateway has set is called, or else its task is cancelled."""

    def __init__(self) -> None:
        self._stop: Callable[[], object] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._before, self._cancelled, self._stopped = 0, False, False

    def begin(self) -> None:
        """Take note of the task of the call."""
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0

    def set(self, stop: Callable[[], object]) -> None:
        """Set what is called; at once if the call is to stop already."""
        self._stop = stop
        if self._stopped:
            stop()

    def stop(self) -> None:
        """Have the call stop."""
        self._stopped = True
        if self._stop is not None:
            with suppress(Exception):  # it is up to the gateway, and others must stop too
                self._stop()
        elif self._task is not None:
            self._cancelled = self._task.cancel()

    def interrupted(self, kind: type[BaseException] | None) -> bool:
        """Say whether something else ends the call than its tool or `stop`: such as who waits for it."""
        if self._cancelled and self._task is not None:
            # As `asyncio.timeout` does: the cancelling of others goes on.
            others = self._task.uncancel() > self._before
            return others and kind is not None
        return kind is not None and not issubclass(kind, Exception)


def guard(
    session: AsyncClientSession,
    *,
    server: str,
    tool: str,
    skip: Collection[str] = (),
    met: Collection[str] = (),
    labels: Callable[[Any], Iterable[str]] | None = None,
    report: bool = True,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Make a decorator that asks before each call of an async function.

    It raises `ToolCallDenied` on a deny, and `ToolResultWithheld` for a result that must not be handed on. The question
    has the arguments by the names of the parameters, defaults included, without those in `skip`. Obligations about the
    result are fulfilled, and notices are shown by the client's `on_notice`. `met` are the ids of obligations of the
    bundle that the function meets itself; any other obligation is a deny.
    What came of the call is reported before its result is handed on, if the server wants to know, with the labels that
    `labels` finds for the result; a result that cannot be reported is withheld. `report` False reports nothing.
    """
    met = met_ids(met)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError("a session of `AsyncClient` guards `async def` functions only")
        signature = GuardedSignature(function, skip)

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(args, kwargs)
            call = ToolCall(server=server, tool=tool, arguments=bound.arguments)
            admitted = await session.admit(call, met=met, labels=labels, report=report)
            async with admitted:
                admitted.result = await function(*bound.positional, **bound.named)
            return cast("R", await admitted.handed_on())

        return guarded

    return decorate


def _tell(done: Callable[[Any, BaseException | None], None], task: asyncio.Future[Any]) -> None:
    if task.cancelled():
        done(None, PDPClientError("the call was cancelled"))
    elif (error := task.exception()) is not None:
        done(None, error)
    else:
        done(task.result(), None)


def _shielded() -> AbstractContextManager[object]:
    """Keep a scope of anyio that is cancelled from cancelling this task at each turn of the event loop meanwhile."""
    scope: Any = getattr(sys.modules.get("anyio"), "CancelScope", None)
    return nullcontext() if scope is None else scope(shield=True)


def _cancelled_by_caller() -> bool:
    """Say whether the running task is being cancelled.

    gRPC raises the same error when its channel closes.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
