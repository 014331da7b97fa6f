"""agentgateway as its contract has it: what it asks the door, and what it does with each answer.

Written after the contract of 2026-08-21 and what its source says about it; it is not the program. It splits a merged
name at the first `_`, writes parameters anew, applies the changes to headers, and never asks about an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from pdp.client import AsyncClient
from pdp.doors.agentgateway.door import AgentgatewayDoor
from pdp.doors.agentgateway.exchanges import RESULT_SECONDS, Exchanges
from pdp.doors.agentgateway.extmcp_pb2 import RequestAnswer, RequestQuestion, ResponseAnswer, ResponseQuestion
from pdp.doors.agentgateway.targets import Prefix, Targets
from pdp.doors.asking import Asking
from pdp.observer import DoorObserver
from pdp.testing.inprocess import RunningServer
from tests.doors.loop import LOOP, SECONDS

SERVICE = "/agentgateway.dev.ext_mcp.ExtMcp/"
HANDLE = "x-pdp-session"
FULL = {"*": "full"}
CODES = {0: -32603, 1: -32001, 2: -32003, 3: -32600}
# What a target does: it returns a result, or raises `UpstreamError`.
Target = Callable[[str, Mapping[str, Any], Mapping[str, str]], Mapping[str, Any]]


class UpstreamError(Exception):
    """A target answers with an error of the protocol, which has these words."""


@dataclass(kw_only=True)
class Context:
    """What the gateway knows about one request of an agent."""

    headers: dict[str, str] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)


class Rejected(Exception):  # noqa: N818 - the gateway's word
    """The agent gets this error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error


class Gateway:
    """Asks a door at an address. `methods` are the phases in which it does; `expressions` its `metadata`."""

    def __init__(
        self,
        address: str,
        targets: Mapping[str, Target],
        *,
        methods: Mapping[str, str] | None = None,
        expressions: Mapping[str, Callable[[Context], str | None]] | None = None,
        shows: bool = True,
        channel: Any = None,
    ) -> None:
        self._targets = targets
        self._methods = FULL if methods is None else methods
        self._expressions = EXPRESSIONS if expressions is None else expressions
        self._shows = shows
        self._channel = channel or grpc.insecure_channel(address)
        self.request = self._channel.unary_unary(
            f"{SERVICE}CheckRequest",
            request_serializer=RequestQuestion.SerializeToString,
            response_deserializer=RequestAnswer.FromString,
        )
        self.response = self._channel.unary_unary(
            f"{SERVICE}CheckResponse",
            request_serializer=ResponseQuestion.SerializeToString,
            response_deserializer=ResponseAnswer.FromString,
        )
        # Everything that the agent was told, and the contexts of its requests.
        self.shown: list[str] = []
        self.contexts: list[Context] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, handle: str, name: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
        """Send a call of a tool for an agent; return the answer."""
        return self.send(handle, "tools/call", {"name": name, "arguments": arguments or {}, **more})

    def send(
        self,
        handle: str,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request for an agent, and return the answer."""
        context = Context(headers={**({HANDLE: handle} if handle else {}), **(headers or {})}, trace=trace or {})
        self.contexts.append(context)
        try:
            answer: dict[str, Any] = {"result": self._sent(context, method, dict(params or {}))}
        except Rejected as rejected:
            answer = {"error": dict(rejected.error)}
        except UpstreamError as failed:
            answer = {"error": {"code": -32603, "message": str(failed)}}
        self.shown.append(json.dumps(answer))
        return answer

    def _sent(self, context: Context, method: str, params: dict[str, Any]) -> Any:
        fans_out = not ("name" in params or "uri" in params or "taskId" in params)
        if fans_out:
            names = list(self._targets)
            self._check_request(context, method, names, None)
            results = [(name, self._targets[name](method, params, context.headers)) for name in names]
            result = self._merged(method, results)
        else:
            names = [next(iter(self._targets))]
            if len(self._targets) > 1:
                target, _, params["name"] = params["name"].partition("_")
                names = [target]
            params = self._check_request(context, method, names, params)
            result = dict(self._targets[names[0]](method, params, context.headers))
        return self._check_response(context, method, names, result)

    def _merged(self, method: str, results: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        if len(results) == 1 or method != "tools/list":
            return dict(results[0][1])
        tools = [{**tool, "name": f"{name}_{tool['name']}"} for name, result in results for tool in result["tools"]]
        return {"tools": tools, "ttlMs": 0, "cacheScope": "private"}

    def _check_request(
        self, context: Context, method: str, names: list[str], params: dict[str, Any] | None
    ) -> dict[str, Any]:
        if self._phase(method) not in ("request", "full") or method == "completion/complete":
            return params or {}
        question = RequestQuestion(service_names=names, method=method)
        if params is not None:
            question.mcp_request = written(params)
        for name, value in context.headers.items() if self._shows else ():
            question.headers.add(key=name, value=value.encode())
        self._describe(question, context)
        answer = self._asked(self.request, question, context)
        if answer.HasField("error"):
            raise self._rejected(answer.error)
        for name in answer.header_mutation.remove:
            context.headers.pop(name, None)
        context.metadata |= {name: value.string_value for name, value in answer.metadata.fields.items()}
        return json.loads(answer.mutated) if answer.HasField("mutated") and params is not None else params or {}

    def _check_response(self, context: Context, method: str, names: list[str], result: Any) -> Any:
        if self._phase(method) not in ("response", "full"):
            return result
        question = ResponseQuestion(service_names=names, method=method, mcp_response=written(result))
        self._describe(question, context)
        answer = self._asked(self.response, question, context)
        if answer.HasField("error"):
            raise self._rejected(answer.error)
        return json.loads(answer.mutated) if answer.HasField("mutated") else result

    def _asked(self, ask: Any, question: Any, context: Context) -> Any:
        try:
            return ask(question, timeout=SECONDS, metadata=tuple(context.trace.items()))
        except grpc.RpcError as error:
            # `failureMode: failClosed`.
            raise Rejected({"code": -32603, "message": f"mcpGuardrails failed: {error.details()}"}) from None

    def _describe(self, question: Any, context: Context) -> None:
        for name, expression in self._expressions.items():
            if (value := expression(context)) is not None:
                question.metadata_context.fields[name].string_value = value

    def _phase(self, method: str) -> str:
        return self._methods.get(method, self._methods.get("*", "off"))

    @staticmethod
    def _rejected(error: Any) -> Rejected:
        told = {"code": CODES[error.code], "message": error.reason}
        if error.HasField("mcp_error"):
            told["data"] = json.loads(error.mcp_error)
        return Rejected(told)


def _exchange(context: Context) -> str:
    """Do as `default(mcpGuardrails.pdp_exchange, "")`."""
    return context.metadata.get("pdp_exchange", "")


def session(context: Context) -> str | None:
    """Do as `request.headers["x-pdp-session"]`: what cannot be evaluated is left out."""
    return context.headers.get(HANDLE)


EXPRESSIONS: dict[str, Callable[[Context], str | None]] = {"pdp_exchange": _exchange}


def written(value: Any) -> bytes:
    """Return JSON as the gateway writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@contextmanager
def door(
    address: str,
    token: str,
    *,
    targets: Mapping[str, str] | None = None,
    prefix: Prefix = Prefix.CONDITIONAL,
    audiences: Mapping[str, str] | None = None,
    passes: frozenset[str] = frozenset(),
    unseen_errors: bool = True,
    timeout: float = SECONDS,
    lasting: float = RESULT_SECONDS,
    observer: DoorObserver | None = None,
) -> Iterator[str]:
    """Run the door before a PDP, and provide where the gateway asks."""

    async def begin() -> tuple[AsyncExitStack, str]:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(AsyncClient(address, token=token, plaintext=True, timeout=timeout))
        exchanges = Exchanges(lasting)
        stack.push_async_callback(exchanges.close)
        app = AgentgatewayDoor(
            asking=Asking(client=client, observer=observer),
            targets=Targets(servers=targets or {"desk": "desk"}, prefix=prefix, audiences=audiences or {}),
            exchanges=exchanges,
            passes=passes,
            unseen_errors=unseen_errors,
        )
        return stack, await stack.enter_async_context(app.serving("127.0.0.1:0"))

    stack, listens = LOOP.run(begin())
    try:
        yield listens
    finally:
        LOOP.run(stack.aclose())


def door_of(server: RunningServer, **options: Any) -> Any:
    """Run the door before a server of this process."""
    return door(server.address, server.token("pep"), **options)
