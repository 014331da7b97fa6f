"""The exceptions of management calls: those of `pdp.errors` as a server reports them, each with its status.

Asking about a tool call raises none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp import errors
from pdp.client.diagnosis import TOO_LARGE, Diagnosis, is_too_large
from pdp.v1.authorization_pb2 import StreamError

_DOMAIN = "pdp.v1"


class PDPClientError(errors.PDPError):
    """A management call failed; `code` is the gRPC status, or None when the error is not from the server.

    `reason` lets programs distinguish errors with the same status, such as `STORE_UNAVAILABLE`; empty when the server
    gave none. `proto/README.md` lists all of them. `max_age`, in seconds, is how old a log-in may be that lifts the
    refusal; 0.0 where a log-in changes nothing.
    """

    def __init__(
        self, message: str, code: grpc.StatusCode | None = None, reason: str = "", max_age: float = 0.0
    ) -> None:
        Exception.__init__(self, message)  # The classes below are the core's too; some take more arguments.
        self.code = code
        self.reason = reason
        self.max_age = max_age


class InvalidRequestError(PDPClientError, errors.InvalidRequestError):
    """A field is wrong: correct the one that the message names, do not retry."""

    attribute = problem = ""  # The message has both.


class UnauthenticatedError(PDPClientError, errors.UnauthenticatedError):
    """The server does not know this caller: present valid credentials."""

    what = ""  # A server writes the reason only to its own log.


class PermissionDeniedError(PDPClientError, errors.PermissionDeniedError):
    """This caller may not do this: use another identity."""


class NotFoundError(PDPClientError, errors.NotFoundError):
    """Nothing with this id exists for this caller: check the id."""


class UnknownRevisionError(PDPClientError, errors.UnknownRevisionError):
    """The server's store does not have a revision: forget it, and read again what rests on it."""


class WrongStateError(PDPClientError, errors.WrongStateError):
    """The state, or what was shown, does not allow this: read it again and decide anew."""


class FrozenError(PDPClientError, errors.FrozenError):
    """The tenant is frozen: nothing is opened or approved; ask again when the freeze is lifted."""


class ConflictError(PDPClientError, errors.ConflictError):
    """Another caller changed the same thing first: read it again and retry."""


class RequestIdConflictError(PDPClientError, errors.RequestIdConflictError):
    """The request id was used for another request: use a fresh id."""


class AlreadyReportedError(PDPClientError, errors.AlreadyReportedError):
    """The call was reported already, and otherwise: keep to the first report."""


class OverloadedError(PDPClientError, errors.OverloadedError):
    """The server is overloaded: retry after a pause."""


class UnavailableError(PDPClientError, errors.UnavailableError):
    """The server cannot be reached or cannot answer now: retry after a pause."""


class SessionNotApprovedError(PDPClientError):
    """The requested session is not live: ask for another one, or tell the user why."""


class CallStatusError(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    """The status of one call that was asked about with others, as gRPC raises it for a call alone."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[Message] = ()) -> None:
        super().__init__(message)
        self._code, self._message, self._details = code, message, details

    @classmethod
    def of(cls, error: StreamError) -> CallStatusError:
        """Return the status that a server gives in an answer."""
        details: list[Message] = [ErrorInfo(reason=error.reason, domain=_DOMAIN)] if error.reason else []
        if error.HasField("retry_delay"):
            details.append(RetryInfo(retry_delay=error.retry_delay))
        return cls(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message, details)

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return self._code

    def details(self) -> str:
        """Return what is wrong, in one line."""
        return self._message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return the details for programs, where gRPC has them."""
        status = Status(code=self._code.value[0], message=self._message)
        for detail in self._details:
            status.details.add().Pack(detail)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def deadline_exceeded() -> CallStatusError:
    """Return the error for a call whose own deadline has passed, in gRPC's words."""
    return CallStatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_CLASSES: dict[grpc.StatusCode, type[PDPClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: WrongStateError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: RequestIdConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}


# Where a status has several meanings, the server's reason tells them apart.
_CLASSES_BY_REASON: dict[str, type[PDPClientError]] = {
    "ALREADY_REPORTED": AlreadyReportedError,
    "FROZEN": FrozenError,
    "UNKNOWN_REVISION": UnknownRevisionError,
}


def from_status(error: grpc.RpcError, diagnosis: Diagnosis) -> PDPClientError:
    """Return the exception for a failed management call.

    A status without a class of its own gets the base class.
    """
    code, info = error.code(), _info_of(error)
    kind = _CLASSES_BY_REASON.get(info.reason) or _CLASSES.get(code, PDPClientError)
    return kind(describe(error, diagnosis), code, info.reason, _seconds(info.metadata.get("max_age", "")))


def reason_of(error: BaseException) -> str:
    """Return the reason that the server gave with a status (`google.rpc.ErrorInfo`); empty without one."""
    return str(_info_of(error).reason)


def _info_of(error: BaseException) -> ErrorInfo:
    """Return what the server says with a status for programs; an empty message without it."""
    info = ErrorInfo()
    if not isinstance(error, grpc.RpcError):
        return info
    if any(detail.Unpack(info) for detail in details_of(error)):
        return info if info.domain == _DOMAIN else ErrorInfo()
    # gRPC refuses by itself what is too large to be read.
    return ErrorInfo(reason=TOO_LARGE) if is_too_large(error.details() or "") else info


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def details_of(error: grpc.RpcError) -> tuple[Any, ...]:
    """Return a status's details for programs; none when they cannot be read."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return tuple(Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()


def describe(error: BaseException, diagnosis: Diagnosis) -> str:
    """Return one line about a failure: a gRPC status with details, or another message.

    `diagnosis` knows the connection that was tried.
    """
    if isinstance(error, grpc.RpcError):
        return one_line(f"{error.code().name.lower()}: {diagnosis.explain(error.details() or '')}")
    return one_line(f"the call could not be made: {error}")


def one_line(text: str) -> str:
    """Return the text without control characters and line ends, cut to 512 characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text[:512]).split())
