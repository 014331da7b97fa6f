"""The broker over gRPC: it builds the requests of tools from templates, or hands out credentials for them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp.broker.admitting import Presented
from pdp.broker.checkouts.desk import CheckoutDesk
from pdp.broker.observing import Observed
from pdp.broker.sending import Answer, UpstreamFailedError
from pdp.broker.shares import OfTenant, Room, Shares
from pdp.broker.templates import Template, UnfitArgumentsError
from pdp.broker.using import Asked, Broker
from pdp.broker.v1 import broker_pb2
from pdp.broker.words import Mode
from pdp.calltokens.canonical import parse
from pdp.calltokens.claims import Presenter
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.errors import InvalidRequestError, PDPError
from pdp.observer import DoorObserver
from pdp.serving.decoding import read
from pdp.serving.listener import Listener
from pdp.serving.status import refusal_of

_LOG = logging.getLogger("pdp.broker")

SERVICE: Final = "pdp.broker.v1.BrokerService"
_DOMAIN: Final = "pdp.broker.v1"
_MOST_OPEN, _MOST_BYTES = 128, 4 * 1024 * 1024
# Calls leave room for people, who can end what is misused, and people for calls: so many at each of their services.
_MOST_CALLS: Final = 96
MOST_OF_PEOPLE: Final = 10
_END_SECONDS: Final = 5.0
# An answer is held whole, and copied on its way. Small ones always have room.
_FREE_BYTES, _MOST_HELD = 256 * 1024, 64 * 1024 * 1024


class CallFace:
    """Answers `Call` and `Checkout`. Safe for threads."""

    def __init__(self, broker: Broker, desk: CheckoutDesk, *, observer: DoorObserver | None = None) -> None:
        self._broker, self._desk = broker, desk
        self._observer = observer
        self._open = Shares(_MOST_CALLS)
        # One that the rules allow has room when it is alone.
        most = max((one.answer_bytes for one in broker.rules.values()), default=0)
        self._room = Room(free=_FREE_BYTES, most=max(_MOST_HELD, most))

    def call(self, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        """Make one call, or end the RPC with a status."""
        with ending_on_error(context), self._open.taken(presenter_of(context)) as of_tenant:
            return self._called(read(broker_pb2.CallRequest, wire), context, of_tenant)

    def checkout(self, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        """Hand out one credential, or end the RPC with a status."""
        with ending_on_error(context), self._open.taken(presenter_of(context)) as of_tenant:
            return self._checked_out(read(broker_pb2.CheckoutRequest, wire), context, of_tenant)

    def close(self) -> None:
        """End all requests to upstreams."""
        self._broker.under_way.close()

    def _called(self, message: broker_pb2.CallRequest, context: Any, of_tenant: OfTenant) -> bytes:  # noqa: ANN401 - gRPC has no types
        template = self._template(message.server, message.tool)
        arguments = parse(message.arguments_json)
        if not isinstance(arguments, dict):
            raise InvalidRequestError("arguments_json", "must be a JSON object")
        asked = Asked(
            server=message.server,
            token=message.call_token,
            presenter=presenter_of(context),
            request=template.filled(arguments),
            mode=Mode.CONNECTOR,
            tool=message.tool,
            arguments=arguments,
        )
        with Observed(self._observer, asked, _trace(context), of_tenant) as seen:
            return self._broker.use(seen.placed(asked), self._response, verified=seen.verified)

    def _checked_out(self, message: broker_pb2.CheckoutRequest, context: Any, of_tenant: OfTenant) -> bytes:  # noqa: ANN401 - gRPC has no types
        if message.server not in self._broker.rules:
            raise InvalidRequestError("server", "the rules do not have it")
        presenter = presenter_of(context)
        asked = Presented(server=message.server, token=message.call_token, presenter=presenter, mode=Mode.CHECKOUT)
        with Observed(self._observer, asked, _trace(context), of_tenant) as seen:
            out = self._desk.check_out(asked, verified=seen.verified)
        answer = broker_pb2.CheckoutResponse(checkout_id=out.id, sealed=out.sealed)
        answer.expire_time.FromMicroseconds(int(out.ends_at * 1e6))
        return answer.SerializeToString()

    def _response(self, answer: Answer) -> bytes:
        headers = [broker_pb2.Header(name=name, value=value) for name, value in answer.headers]
        with self._room.whole(answer.pieces) as body:
            return broker_pb2.CallResponse(status=answer.status, headers=headers, body=body).SerializeToString()

    def _template(self, server: str, tool: str) -> Template:
        rules = self._broker.rules.get(server)
        template = rules.templates.get(tool) if rules else None
        if template is None:
            raise InvalidRequestError("tool", "the rules have no template for it")
        return template


@contextmanager
def ending_on_error(context: Any) -> Iterator[None]:  # noqa: ANN401 - gRPC has no types
    """End an RPC with a status when the block raises one of our errors."""
    try:
        yield
    except CallTokenRefusedError as error:
        away = error.reason is Reason.UNAVAILABLE
        code = grpc.StatusCode.UNAVAILABLE if away else grpc.StatusCode.PERMISSION_DENIED
        _end(context, code, f"call token refused: {error}", error.reason.value)
    except UnfitArgumentsError as error:
        _end(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except UpstreamFailedError as error:
        text = f"the upstream {error}; whether it did what was asked is unknown"
        _end(context, grpc.StatusCode.UNKNOWN, text)
    except PDPError as error:
        refusal = refusal_of(error)
        if refusal is None:
            # It is about the broker's own configuration, or what it keeps.
            _LOG.error("a call could not be answered: %s", error)
            _end(context, grpc.StatusCode.INTERNAL, "the broker failed; its log says more")
        context.set_trailing_metadata(refusal.trailing_metadata)
        context.abort(refusal.code, refusal.details)


@contextmanager
def serving(
    face: CallFace, listener: Listener, services: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[int]:
    """Answer at an address while the block runs, and provide the port. Raise `ConfigurationError`.

    `services` are further ones with their handlers.
    """
    threads = ThreadPoolExecutor(_MOST_OPEN, thread_name_prefix="pdp-broker-call")
    options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MOST_BYTES))
    server = grpc.server(threads, options=options, maximum_concurrent_rpcs=_MOST_OPEN)
    methods = {"Call": face.call, "Checkout": face.checkout}
    own = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    every = {SERVICE: own, **(services or {})}
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, dict(handlers)) for name, handlers in every.items())
    )
    port = listener.bind(server)
    server.start()
    try:
        yield port
    finally:
        server.stop(_END_SECONDS).wait()
        # An answer may take long, and nobody waits for it any more.
        face.close()
        threads.shutdown()


def presenter_of(context: Any) -> Presenter | None:  # noqa: ANN401 - gRPC has no types
    """Return the presenter by the client's certificate, or a process of the same machine; None for any other."""
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return Presenter.of_certificate(ssl.PEM_cert_to_DER_cert(pem.decode()))
    return Presenter() if context.peer().startswith("unix:") else None


def _trace(context: Any) -> dict[str, str]:  # noqa: ANN401 - gRPC has no types
    metadata = dict(context.invocation_metadata() or ())
    return {name: str(metadata.get(name, "")) for name in ("traceparent", "tracestate")}


def _end(context: Any, code: grpc.StatusCode, text: str, reason: str = "") -> NoReturn:  # noqa: ANN401 - gRPC has no types
    if reason:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(reason=reason.upper(), domain=_DOMAIN))
        status = Status(code=code.value[0], message=text, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, text)
    raise AssertionError("gRPC's abort returned")
