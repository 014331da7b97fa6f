"""How the client for threads waits: for an answer, for the messages of a stream, for a connection.

`tasks` has the same names, so that `make client` can generate `pdp.client.sync` from `pdp.client.aio`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

import grpc
from google.protobuf.message import Message

from pdp.client.connection import FORKED
from pdp.client.control import UNDECIDED
from pdp.client.errors import deadline_exceeded
from pdp.client.fulfilling import met_ids
from pdp.client.guard import BoundCall, GuardedSignature
from pdp.client.values import ToolCall
from pdp.errors import PDPError
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, AuthorizeStreamResponse

if TYPE_CHECKING:  # A session imports its guard from this module, so a real import would be circular.
    from pdp.client.sync.admitted import AdmittedCall
    from pdp.client.sync.session import ClientSession

P = ParamSpec("P")
R = TypeVar("R")

# How long what was interrupted may take to be undone.
_UNDO_SECONDS: Final = 5.0
# How often the main thread looks whether it is interrupted: on Windows, what waits for a lock does not learn of it.
_LOOK_SECONDS: Final = 0.2

sleep = time.sleep
Lock = threading.Lock
Mutex = threading.Lock
# A sleep of zero seconds gives up the interpreter, but not the core on which another thread would take it. Windows has
# no other way.
_give_way: Final[Callable[[], None]] = getattr(os, "sched_yield", partial(sleep, 0))


class Home:
    """Where a client was made: any thread may use it."""

    def require(self) -> None:
        """Do nothing."""


def closable(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` unchanged: gRPC raises a usual error for a closed channel."""
    return call


def completed(work: Callable[[], object]) -> None:
    """Do `work`: no other thread cancels it."""
    work()


def undone_if_cancelled(work: Callable[[], R], undo: Callable[[R], object]) -> R:
    """Return what `work` returns. If a signal such as Ctrl+C interrupts it, undo it first, within a few seconds."""
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals are handled in the main thread alone
    # INVARIANT: `work` is done on another thread: an interrupt would lose its result.
    results: list[R] = []
    errors: list[BaseException] = []
    over = threading.Lock()
    over.acquire()

    def working() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
        over.release()

    def undoing() -> None:
        worker.join()
        with suppress(Exception):  # what fails was not done, or ends by its own time
            undo(results[0])

    worker = _aside(working)
    try:
        worker.start()
        while not over.acquire(timeout=_LOOK_SECONDS):
            pass
        if not errors:
            return results[0]
    except BaseException:
        last = _aside(undoing)
        last.start()
        last.join(_UNDO_SECONDS)
        raise
    raise errors.pop()


def interrupted(error: BaseException) -> bool:
    """Say whether an error leaves a channel unfit for use: what a signal raises can leave a lock of gRPC held for ever.

    Such as Ctrl+C, or the end of a task's time. Signals are handled in the main thread alone.
    """
    own = isinstance(error, grpc.RpcError | PDPError | ValueError)
    return threading.current_thread() is threading.main_thread() and not own


def abandon(channel: Any, *, after: float) -> None:  # noqa: ANN401 - gRPC has no types
    """Close a channel after some seconds, when the calls of other threads have ended. If that hangs, nothing else does.

    INVARIANT: the thread holds the channel: gRPC closes one that is deleted, and that would hang too.
    """

    def close() -> None:
        time.sleep(after)
        channel.close()

    _aside(close).start()


def turn() -> None:
    """Do nothing: no other thread waits for this one."""


def after_others(work: Callable[[], None]) -> None:
    """Do `work` when the threads that are ready now have had a chance to run."""
    _give_way()
    work()


def reached(channel: Any, seconds: float) -> bool:  # noqa: ANN401 - gRPC has no types
    """Connect, and say whether a server answers within `seconds`."""
    found: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def notice(state: grpc.ChannelConnectivity) -> None:
        if state not in UNDECIDED:
            found.put(state is grpc.ChannelConnectivity.READY)

    channel.subscribe(notice, try_to_connect=True)
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return False
    finally:
        channel.unsubscribe(notice)


class Begun:
    """An RPC that no thread waits for: `done` gets its answer or the error, on a thread of gRPC."""

    def __init__(
        self,
        method: Any,  # noqa: ANN401 - gRPC has no types
        request: Message,
        done: Callable[[Any, BaseException | None], None],
        **options: Any,  # noqa: ANN401 - the same
    ) -> None:
        self._call = method.future(request, **options)
        self._call.add_done_callback(partial(_tell, done))

    def cancel(self) -> None:
        """Have it end, without waiting."""
        self._call.cancel()


class Exchange:
    """The messages of one stream, opened by `begin`: each request gets one reply within `timeout` seconds.

    Hold `turn` while asking.
    """

    def __init__(
        self,
        begin: Callable[[Iterator[AuthorizeStreamRequest]], Any],
        *,
        timeout: float,
        describe: Callable[[BaseException], str],
    ) -> None:
        self.turn = threading.Lock()
        self._process = os.getpid()
        self._timeout = timeout
        self._describe = describe
        self._outgoing: queue.SimpleQueue[AuthorizeStreamRequest | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[AuthorizeStreamResponse | str] = queue.SimpleQueue()
        self._call = begin(iter(self._outgoing.get, None))
        # gRPC cannot wait for a message with a timeout; a queue can.
        self._reader = threading.Thread(target=self._read, name="pdp-stream", daemon=True)
        self._reader.start()

    def unusable(self) -> str:
        """Return why there can be no answer here; empty otherwise. A process that was forked since has no turn."""
        return FORKED if os.getpid() != self._process else ""

    def ask(self, request: AuthorizeStreamRequest) -> AuthorizeStreamResponse | str:
        """Return the next message, or the reason why there is none."""
        self._outgoing.put(request)
        try:
            return self._incoming.get(timeout=self._timeout)
        except queue.Empty:
            return f"no answer within {self._timeout:g} s"

    def cancel(self) -> None:
        """End the stream: no further message comes."""
        self._outgoing.put(None)
        self._call.cancel()

    def close(self) -> None:
        """End the stream after the question in progress, and wait for its thread to end."""
        if self.unusable():
            return
        with self.turn:
            self.cancel()
        self._reader.join()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._incoming.put(response)
        except grpc.RpcError as error:
            self._incoming.put(self._describe(error))
        else:
            self._incoming.put("the server ended the stream")


class Feed:
    """The messages of one watch, opened by `begin`. A server sends the first one at once: within `first` seconds."""

    def __init__(self, begin: Callable[[], Any], *, first: float) -> None:
        self._late = False
        self._call = begin()
        # gRPC cannot wait for a message with a timeout.
        self._timer = threading.Timer(first, self._give_up)
        self._timer.name, self._timer.daemon = "pdp-first-message", True
        self._timer.start()

    def next(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the next message, or None at the end. Raise `grpc.RpcError` when the watch breaks."""
        try:
            return next(self._call, None)
        except grpc.RpcError:
            if self._late:
                raise deadline_exceeded() from None
            raise
        finally:
            self._timer.cancel()

    def cancel(self) -> None:
        """End the watch."""
        self._timer.cancel()
        self._call.cancel()

    def _give_up(self) -> None:
        self._late = True
        self._call.cancel()


class Signal:
    """What one thread waits for, and others set. Setting it while no thread waits is not lost."""

    def __init__(self) -> None:
        # Not an `Event`: Ctrl+C while it waits could leave its lock held, and then whoever sets it waits for ever.
        self._unset = threading.Lock()
        self._unset.acquire()

    def set(self) -> None:
        """Wake the thread that waits."""
        with suppress(RuntimeError):  # it is set already
            self._unset.release()

    def wait(self, seconds: float) -> None:
        """Return when it is set, or after some seconds."""
        self._unset.acquire(timeout=max(0.0, seconds))


class Background:
    """A thread of the client's own that does `work`."""

    def __init__(self, work: Callable[[Any], None], what: Any) -> None:  # noqa: ANN401 - passed on
        self._thread = threading.Thread(target=work, args=(what,), name="pdp-answers", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Do nothing: what it waits for has been ended."""

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()


class Stopping:
    """How a call that is under way stops: what the gateway has set is called. A thread cannot be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._stopped = False

    def begin(self) -> None:
        """Do nothing: it is the gateway that knows how to stop the call."""

    def set(self, stop: Callable[[], object]) -> None:
        """Set what is called, on a thread of the client; at once if the call is to stop already."""
        with self._lock:
            self._stop = stop
            late = self._stopped
        if late:
            stop()

    def stop(self) -> None:
        """Have the call stop."""
        with self._lock:
            self._stopped = True
            stop = self._stop
        if stop is not None:
            with suppress(BaseException):  # it is up to the gateway, and others must stop too
                stop()

    def interrupted(self, kind: type[BaseException] | None) -> bool:
        """Say whether something else ends the call than its tool or `stop`: such as Ctrl+C."""
        return kind is not None and not issubclass(kind, Exception)


def guard(
    session: ClientSession,
    *,
    server: str,
    tool: str,
    skip: Collection[str] = (),
    met: Collection[str] = (),
    labels: Callable[[Any], Iterable[str]] | None = None,
    report: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that asks before each call of a function.

    It raises `ToolCallDenied` on a deny, and `ToolResultWithheld` for a result that must not be handed on. The question
    has the arguments by the names of the parameters, defaults included, without those in `skip`. Obligations about the
    result are fulfilled, and notices are shown by the client's `on_notice`. `met` are the ids of obligations of the
    bundle that the function meets itself; any other obligation is a deny.
    What came of the call is reported before its result is handed on, if the server wants to know, with the labels that
    `labels` finds for the result; a result that cannot be reported is withheld. `report` False reports nothing. The
    question for an `async def` function is asked on another thread, so that its event loop goes on.
    """
    met = met_ids(met)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = GuardedSignature(function, skip)

        def admit(bound: BoundCall) -> AdmittedCall:
            call = ToolCall(server=server, tool=tool, arguments=bound.arguments)
            return session.admit(call, met=met, labels=labels, report=report)

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(args, kwargs)
            admitted = admit(bound)
            with admitted:
                admitted.result = function(*bound.positional, **bound.named)
            return cast("R", admitted.handed_on())

        @wraps(function)
        async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - what the function gives
            bound = signature.bind(args, kwargs)
            admitted = await asyncio.to_thread(admit, bound)
            try:
                running = cast("Callable[..., Awaitable[Any]]", function)
                admitted.result = await running(*bound.positional, **bound.named)
            except Exception as error:
                if not await asyncio.to_thread(admitted.failed, error):
                    raise
            return await asyncio.to_thread(admitted.handed_on)

        return cast("Callable[P, R]", guarded_async) if inspect.iscoroutinefunction(function) else guarded

    return decorate


def _aside(work: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=copy_context().run, args=(work,), name="pdp-interrupted", daemon=True)


def _tell(done: Callable[[Any, BaseException | None], None], call: Any) -> None:  # noqa: ANN401 - gRPC has no types
    if call.code() is grpc.StatusCode.OK:
        done(call.result(), None)
    else:
        done(None, call)
