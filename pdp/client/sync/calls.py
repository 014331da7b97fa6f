# Generated from pdp/client/aio/calls.py by `make client`; never edited.

"""Send a client's calls and retry where that helps; calls that end authority go to the control address first."""

from __future__ import annotations

from collections.abc import Iterator, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from pdp.client import control, threads
from pdp.client.sync.together import Together
from pdp.client.asking import MANAGEMENT_TRIES, repeat_pause, retry_pause
from pdp.client.connection import Connection, asks_together, checked_timeout, trace_headers
from pdp.client.errors import PDPClientError, from_status
from pdp.client.operations import (
    AUTHORIZE,
    AUTHORIZE_STREAM,
    BATCH_AUTHORIZE,
    Item,
    Method,
    Operation,
    Page,
    Reply,
    Result,
)
from pdp.v1.authorization_pb2 import AuthorizeRequest, BatchAuthorizeRequest


class Calls:
    """The RPCs of one client over its connection; times are seconds, as `Client` explains them."""

    def __init__(
        self,
        connection: Connection,
        control_address: str | None,
        *,
        timeout: float,
        management_timeout: float,
        traceparent: Callable[[], str] | None,
        ask_together: bool | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._control = control.connection_from(connection, control_address)
        self._timeout = checked_timeout("timeout", timeout)
        self._management_timeout = checked_timeout("management_timeout", management_timeout)
        self._traceparent = traceparent
        self._clock = clock
        self._sleep = sleep
        self._closed = False
        self._home = threads.Home()
        # Of the latest answer to a change.
        self.revision = ""
        self._off = not asks_together(ask_together)
        self._connect()

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._channel.close()

    def _connect(self) -> None:
        self._channel = self._connection.open(grpc)
        self._batch_authorize = threads.closable(BATCH_AUTHORIZE.unary(self._channel))
        authorize = threads.closable(AUTHORIZE.unary(self._channel))
        self._together = Together(authorize, self._batch_authorize, clock=self._clock, off=self._off)
        self._authorize_stream = AUTHORIZE_STREAM.stream(self._channel)

    def _connect_anew_after(self, error: BaseException) -> None:
        if threads.interrupted(error):
            threads.abandon(self._channel, after=self._management_timeout)
            self._connect()

    def authorize(self, request: AuthorizeRequest, traceparent: str, tracestate: str) -> Any:  # noqa: ANN401 - what holds the decision
        """Ask about one call, together with others that are asked about now; retry where that helps."""
        credentials, trace = self._credentials(), self._trace(traceparent, tracestate)
        return self._decide(partial(self._together.ask, request, credentials, trace))

    def batch_authorize(self, request: BatchAuthorizeRequest, traceparent: str, tracestate: str) -> Any:  # noqa: ANN401 - gRPC has no types
        """Ask about several calls; retry where that helps."""
        metadata = self._metadata(traceparent, tracestate)

        def ask(deadline: float) -> Any:  # noqa: ANN401 - gRPC has no types
            return self._batch_authorize(request, timeout=deadline - self._clock(), metadata=metadata)

        return self._decide(ask)

    def _decide(self, ask: Callable[[float], Any]) -> Any:  # noqa: ANN401 - gRPC has no types
        """Ask by a deadline, and again where that helps."""
        deadline, retries = self._clock() + self._timeout, 0
        while True:
            try:
                # The same request with the same id: the server answers it once, even if it arrives twice.
                return ask(deadline)
            except grpc.RpcError as error:
                pause = retry_pause(error, deadline - self._clock(), retries=retries)
                if pause is None:
                    raise
            except BaseException as error:
                self._connect_anew_after(error)
                raise
            self._sleep(pause)
            retries += 1

    def exchange(self, traceparent: str, tracestate: str) -> threads.Exchange:
        """Begin a stream of questions about calls."""
        metadata = self._metadata(traceparent, tracestate)
        begin = partial(self._authorize_stream, metadata=metadata)
        return threads.Exchange(begin, timeout=self._timeout, describe=self._connection.describe)

    def feed(self, method: Method[Any], request: Message) -> threads.Feed:
        """Begin a watch. Raise `PDPClientError` when the client is closed."""
        self._require_open()
        begin = partial(method.feed(self._channel), request, metadata=self._metadata("", ""))
        return threads.Feed(begin, first=self._management_timeout)

    def next_of(self, feed: threads.Feed) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the next message of a watch, or None at its end. Raise `PDPClientError` when it breaks."""
        try:
            return feed.next()
        except grpc.RpcError as error:
            raise from_status(error, self._connection.diagnosis) from error

    def pages(self, ask: Callable[[str], Operation[Any, Page[Item]]]) -> Iterator[Item]:
        """Yield the items of all pages; `ask` gets each page's token, empty for the first."""
        token = ""
        while True:
            page = self.manage(ask(token))
            for item in page.items:
                yield item
            token = page.next_token
            if not token:
                return

    def manage(self, operation: Operation[Reply, Result], *, within: float | None = None) -> Result:
        """Return the server's answer to a management call, or raise `PDPClientError`.

        It takes at most `within` seconds, None for the client's usual time.
        """
        self._require_open()
        reply = self._at_control(operation) if operation.method.ends_authority else None
        if reply is None:
            reply = self._at_main(operation, self._management_timeout if within is None else within)
        self.revision = getattr(reply, "revision", "") or self.revision
        return operation.read(reply)

    def _require_open(self) -> None:
        if self._closed:
            raise PDPClientError("the connection was closed")

    def _metadata(self, traceparent: str, tracestate: str) -> tuple[tuple[str, str], ...]:
        return self._credentials() + self._trace(traceparent, tracestate)

    def _credentials(self) -> tuple[tuple[str, str], ...]:
        self._home.require()
        return self._connection.metadata()

    def _trace(self, traceparent: str, tracestate: str) -> tuple[tuple[str, str], ...]:
        if not traceparent and self._traceparent is not None:
            traceparent = self._traceparent()
        return trace_headers(traceparent, tracestate)

    def _at_main(self, operation: Operation[Reply, Result], within: float) -> Reply:
        """Ask at the main address, and retry where that helps."""
        ask = threads.closable(operation.on(self._channel))
        metadata = (*self._metadata("", ""), *operation.metadata)
        deadline = self._clock() + within
        for left in reversed(range(MANAGEMENT_TRIES)):
            try:
                reply: Reply = ask(timeout=deadline - self._clock(), metadata=metadata)
                break
            except grpc.RpcError as error:
                pause = repeat_pause(
                    error,
                    deadline - self._clock(),
                    repeatable=operation.repeatable,
                    told_by_id=operation.told_by_id,
                )
                # Closing cancels the calls in progress, and a closed channel takes no more.
                if pause is None or not left or self._closed:
                    raise from_status(error, self._connection.diagnosis) from error
            except BaseException as error:
                self._connect_anew_after(error)
                raise
            self._sleep(pause)
        return reply

    def _at_control(self, operation: Operation[Reply, Result]) -> Reply | None:
        """Ask at the control address; None means to ask at the main one."""
        if self._control is None or not control.is_there(self._control):
            return None
        with self._control.open(grpc) as channel:
            if not threads.reached(channel, control.REACH_SECONDS):
                return None
            timeout = control.answer_seconds(operation, self._management_timeout)
            ask = threads.closable(operation.on(channel))
            try:
                reply: Reply = ask(timeout=timeout, metadata=self._metadata("", ""))
            except grpc.RpcError as error:
                if control.may_be_asked_elsewhere(error, operation):
                    return None
                raise from_status(error, self._control.diagnosis) from error
        return reply
