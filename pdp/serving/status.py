"""The one table of errors and gRPC statuses, and what a refused caller receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from grpc import StatusCode

from pdp import errors

# For `google.rpc.ErrorInfo`: the domain of all reasons, and the reason for an unforeseen error.
DOMAIN = "pdp.v1"
INTERNAL = "INTERNAL"
# The details are in the trailers twice, once encoded: together they stay far below the 8 KiB that clients accept.
_DETAILS_BYTES = 1000
_OVERLOAD_SECONDS = 0.1
_UNAVAILABLE_SECONDS = 0.25


class DeadlinePassedError(errors.PDPError):
    """The caller's own deadline passed before work began: ask again with more time."""


class NotHereError(errors.PDPError):
    """This address does not serve the RPC: ask at the server's main one."""


class MessageLateError(errors.PDPError):
    """The message of a call did not come in time: begin a call only with the message to send."""


class MessageTooLargeError(errors.PDPError):
    """A message is larger than its limit: send less, do not retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A status, and after how many seconds a retry can succeed; None means that the same request never will.

    `kind` is the `reason` of `google.rpc.ErrorInfo`: programs can rely on it, and its meaning never changes.
    """

    kind: str
    code: StatusCode
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a caller receives instead of an answer. `field` names the invalid field, or is empty.

    `kind` is that of the `Rule`. `max_age`, in seconds, is how old a log-in may be that lifts the refusal, or 0.0.
    For a refused credential, `credential` says which and `reason` why: for the log, never for the caller.
    """

    kind: str
    code: StatusCode
    details: str
    retry_seconds: float | None = None
    field: str = ""
    credential: str = ""
    reason: str = ""
    max_age: float = 0.0

    @property
    def number(self) -> int:
        """Return the code as a number."""
        return int(self.code.value[0])

    @property
    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return the details for programs, as gRPC clients of every language read them."""
        details: list[Message] = [
            ErrorInfo(
                reason=self.kind, domain=DOMAIN, metadata={"max_age": f"{self.max_age:.0f}"} if self.max_age else {}
            )
        ]
        if self.retry_seconds is not None:
            details.append(RetryInfo(retry_delay=duration(self.retry_seconds)))
        if self.field:
            violation = BadRequest.FieldViolation(field=self.field, description=self.details)
            details.append(BadRequest(field_violations=[violation]))
        status = Status(code=self.number, message=self.details, details=[_packed(detail) for detail in details])
        return (("grpc-status-details-bin", status.SerializeToString()),)


STATUSES: Mapping[type[errors.PDPError], Rule] = MappingProxyType(
    {
        errors.InvalidRequestError: Rule(kind="INVALID_FIELD", code=StatusCode.INVALID_ARGUMENT),
        errors.UnauthenticatedError: Rule(kind="UNAUTHENTICATED", code=StatusCode.UNAUTHENTICATED),
        errors.PermissionDeniedError: Rule(kind="PERMISSION_DENIED", code=StatusCode.PERMISSION_DENIED),
        errors.NotFoundError: Rule(kind="NOT_FOUND", code=StatusCode.NOT_FOUND),
        errors.WrongStateError: Rule(kind="WRONG_STATE", code=StatusCode.FAILED_PRECONDITION),
        # Another one must be asked with: the store will never have this one, or is not where it was.
        errors.UnknownRevisionError: Rule(kind="UNKNOWN_REVISION", code=StatusCode.FAILED_PRECONDITION),
        # No retry succeeds until people have lifted the freeze.
        errors.FrozenError: Rule(kind="FROZEN", code=StatusCode.FAILED_PRECONDITION),
        # The caller must read again before it retries: no delay makes the same bytes valid.
        errors.ConflictError: Rule(kind="CONFLICT", code=StatusCode.ABORTED),
        errors.RequestIdConflictError: Rule(kind="REQUEST_ID_CONFLICT", code=StatusCode.ALREADY_EXISTS),
        errors.AlreadyReportedError: Rule(kind="ALREADY_REPORTED", code=StatusCode.ALREADY_EXISTS),
        errors.OverloadedError: Rule(
            kind="OVERLOADED", code=StatusCode.RESOURCE_EXHAUSTED, retry_seconds=_OVERLOAD_SECONDS
        ),
        errors.UnavailableError: Rule(
            kind="UNAVAILABLE", code=StatusCode.UNAVAILABLE, retry_seconds=_UNAVAILABLE_SECONDS
        ),
        errors.StoreUnavailableError: Rule(
            kind="STORE_UNAVAILABLE", code=StatusCode.UNAVAILABLE, retry_seconds=_UNAVAILABLE_SECONDS
        ),
        errors.BundleUnavailableError: Rule(
            kind="BUNDLE_UNAVAILABLE", code=StatusCode.UNAVAILABLE, retry_seconds=_UNAVAILABLE_SECONDS
        ),
        errors.EvaluatorUnavailableError: Rule(
            kind="EVALUATOR_UNAVAILABLE", code=StatusCode.UNAVAILABLE, retry_seconds=_UNAVAILABLE_SECONDS
        ),
        # The running bundle is not affected; the folder must be fixed first.
        errors.BundleError: Rule(kind="BUNDLE_INVALID", code=StatusCode.FAILED_PRECONDITION),
        DeadlinePassedError: Rule(kind="DEADLINE_PASSED", code=StatusCode.DEADLINE_EXCEEDED),
        NotHereError: Rule(kind="NOT_SERVED_HERE", code=StatusCode.UNIMPLEMENTED),
        MessageLateError: Rule(kind="MESSAGE_LATE", code=StatusCode.DEADLINE_EXCEEDED),
        MessageTooLargeError: Rule(kind="MESSAGE_TOO_LARGE", code=StatusCode.RESOURCE_EXHAUSTED),
    }
)

# These become something else before they reach a caller; one that does not is our mistake, and reported as internal.
NEVER_SENT: frozenset[type[errors.PDPError]] = frozenset(
    {
        errors.ConfigurationError,
        errors.CannotListenError,
        errors.InvalidArgumentsError,
        errors.InvalidJSONError,
        errors.UnsafePolicyError,
    }
)


def refusal_of(error: Exception) -> Refusal | None:
    """Return what a caller receives for an error, or None for an error that is not for callers."""
    for kind in type(error).__mro__:
        rule = STATUSES.get(kind)
        if rule is not None:
            field = error.attribute if isinstance(error, errors.InvalidRequestError) else ""
            refusal = Refusal(
                kind=rule.kind, code=rule.code, details=_line(str(error)), retry_seconds=rule.retry_seconds, field=field
            )
            if isinstance(error, errors.PermissionDeniedError):
                return replace(refusal, max_age=error.max_age)
            if isinstance(error, errors.UnauthenticatedError):
                return replace(refusal, credential=error.what, reason=error.reason)
            return refusal
    return None


def internal_error(trace_id: str) -> Refusal:
    """Return what a caller receives for an unforeseen error: only where to look."""
    return Refusal(kind=INTERNAL, code=StatusCode.INTERNAL, details=f"internal error (trace id {trace_id})")


def duration(seconds: float) -> Duration:
    """Return seconds as a protobuf duration."""
    return Duration(seconds=int(seconds), nanos=round((seconds - int(seconds)) * 1e9))


def _line(text: str) -> str:
    line = " ".join(errors.one_line(text).split())
    cut = line.encode("utf-8", "replace")[:_DETAILS_BYTES].decode("utf-8", "ignore")
    return line if len(cut) == len(line) else cut + " …"


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
