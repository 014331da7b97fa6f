"""A real gRPC server that answers as each test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc

from pdp.foundation import jsontext
from pdp.v1 import decision_pb2
from pdp.v1.authorization_pb2 import (
    AuthorizeRequest,
    AuthorizeResponse,
    AuthorizeStreamRequest,
    AuthorizeStreamResponse,
    BatchAnswer,
    BatchAuthorizeRequest,
    BatchAuthorizeResponse,
    StreamError,
)
from pdp.v1.decision_pb2 import Decision
from tests.machinery.rpcs.services import SERVICES

# Kept as their one message, or as several.
_UPLOADS = ("CheckBundle", "Evaluate")


def fitting_allow(request: AuthorizeRequest) -> Decision:
    """Return the allow that an honest server would give to this request."""
    return Decision(
        decision_id="dec_1",
        outcome=decision_pb2.OUTCOME_ALLOW,
        basis=decision_pb2.BASIS_PERMIT,
        determining_policies=["files/read"],
        session_id="ses_1",
        user="alice",
        agent="coder",
        server=request.call.server,
        tool=request.call.tool,
        arguments_digest=jsontext.digest(request.call.arguments_json),
        bundle_version="sha256:bundle",
        cache_result=decision_pb2.CACHE_RESULT_MISS,
        duration_us=12.5,
        trace_id="0" * 32,
    )


class ScriptedServer:
    """Answers with `decide`, unless a method has a script of its own in `scripts`; keeps what it was sent.

    With a `token` it answers only those who present it, as a real server does. A call for which `refuse` finds an error
    gets that instead, if it is one of a batch of independent calls. Such batches have at most `batch_size` calls; with
    0 it is a server that does not know them.
    """

    honest = staticmethod(fitting_allow)

    def __init__(self) -> None:
        self.decide: Callable[[AuthorizeRequest, Any], Decision] = lambda request, _: fitting_allow(request)
        self.scripts: dict[str, Callable[[Any, Any], Any]] = {
            "Authorize": self._authorize,
            "BatchAuthorize": self._batch,
            "AuthorizeStream": self._stream,
        }
        self.requests: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.token = ""
        self.refuse: Callable[[AuthorizeRequest], StreamError | None] = lambda _: None
        self.batch_size = 100
        self.released = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        for service in SERVICES:
            module = import_module(f"{service.file.package}.{Path(service.file.name).stem}_pb2_grpc")
            register = getattr(module, f"add_{service.name}Servicer_to_server")
            register(self._servicer(getattr(module, f"{service.name}Servicer")), self._server)

    def start(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> str:
        """Listen, and return the address; without `credentials` in plain text."""
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self._server.start()
        return address if address.startswith("unix:") else f"127.0.0.1:{port}"

    def stop(self) -> None:
        """Let go of what hangs, and stop."""
        self.released.set()
        self._server.stop(0).wait()

    def sent(self, method: str) -> list[Any]:
        """Return the requests that came to one method."""
        return [request for name, request in self.requests if name == method]

    def _servicer(self, base: type) -> Any:
        def handler(name: str) -> Callable[[Any, Any, Any], Any]:
            def handle(_: Any, request: Any, context: Any) -> Any:
                self.metadata.append(dict(context.invocation_metadata()))
                if self.token and self.metadata[-1].get("authorization") != f"Bearer {self.token}":
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
                if name in _UPLOADS:
                    messages = tuple(request)
                    request = messages[0] if len(messages) == 1 else messages
                if name != "AuthorizeStream":
                    self.requests.append((name, request))
                if name not in self.scripts:
                    context.abort(grpc.StatusCode.UNIMPLEMENTED, "no script")
                return self.scripts[name](request, context)

            return handle

        names = [name for name in vars(base) if not name.startswith("_")]
        return type(f"Scripted{base.__name__}", (base,), {name: handler(name) for name in names})()

    def _authorize(self, request: AuthorizeRequest, context: Any) -> AuthorizeResponse:
        return AuthorizeResponse(decision=self.decide(request, context), batch_size=self.batch_size)

    def _batch(self, request: BatchAuthorizeRequest, context: Any) -> BatchAuthorizeResponse:
        if request.independent and self.batch_size:
            return BatchAuthorizeResponse(answers=[self._independent(each, context) for each in request.requests])
        return BatchAuthorizeResponse(decisions=[self.decide(each, context) for each in request.requests])

    def _independent(self, request: AuthorizeRequest, context: Any) -> BatchAnswer:
        if (error := self.refuse(request)) is not None:
            return BatchAnswer(request_id=request.request_id, error=error)
        return BatchAnswer(request_id=request.request_id, decision=self.decide(request, context))

    def _stream(self, requests: Iterator[AuthorizeStreamRequest], context: Any) -> Iterator[AuthorizeStreamResponse]:
        for message in requests:
            self.requests.append(("AuthorizeStream", message))
            decision = self.decide(message.request, context)
            yield AuthorizeStreamResponse(request_id=message.request.request_id, decision=decision)
