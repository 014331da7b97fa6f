import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from pdp.v1 import calltoken_pb2 as _calltoken_pb2
from pdp.v1 import decision_pb2 as _decision_pb2
from pdp.v1 import reading_pb2 as _reading_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_STATUS_UNSPECIFIED: _ClassVar[CallStatus]
    CALL_STATUS_SUCCEEDED: _ClassVar[CallStatus]
    CALL_STATUS_FAILED: _ClassVar[CallStatus]

class Visibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VISIBILITY_UNSPECIFIED: _ClassVar[Visibility]
    VISIBILITY_NEVER: _ClassVar[Visibility]
    VISIBILITY_DEPENDS: _ClassVar[Visibility]
    VISIBILITY_ALWAYS: _ClassVar[Visibility]
CALL_STATUS_UNSPECIFIED: CallStatus
CALL_STATUS_SUCCEEDED: CallStatus
CALL_STATUS_FAILED: CallStatus
VISIBILITY_UNSPECIFIED: Visibility
VISIBILITY_NEVER: Visibility
VISIBILITY_DEPENDS: Visibility
VISIBILITY_ALWAYS: Visibility

class AuthorizeRequest(_message.Message):
    __slots__ = ("call", "request_id", "tool_call_id", "call_tokens", "traceparent", "tracestate", "min_revision")
    CALL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    call: _decision_pb2.Call
    request_id: str
    tool_call_id: str
    call_tokens: _containers.RepeatedCompositeFieldContainer[_calltoken_pb2.CallTokenRequest]
    traceparent: str
    tracestate: str
    min_revision: str
    def __init__(self, call: _Optional[_Union[_decision_pb2.Call, _Mapping]] = ..., request_id: _Optional[str] = ..., tool_call_id: _Optional[str] = ..., call_tokens: _Optional[_Iterable[_Union[_calltoken_pb2.CallTokenRequest, _Mapping]]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., min_revision: _Optional[str] = ...) -> None: ...

class AuthorizeResponse(_message.Message):
    __slots__ = ("decision", "batch_size")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    batch_size: int
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...

class BatchAuthorizeRequest(_message.Message):
    __slots__ = ("requests", "independent")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENT_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AuthorizeRequest]
    independent: bool
    def __init__(self, requests: _Optional[_Iterable[_Union[AuthorizeRequest, _Mapping]]] = ..., independent: _Optional[bool] = ...) -> None: ...

class BatchAuthorizeResponse(_message.Message):
    __slots__ = ("decisions", "answers")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Decision]
    answers: _containers.RepeatedCompositeFieldContainer[BatchAnswer]
    def __init__(self, decisions: _Optional[_Iterable[_Union[_decision_pb2.Decision, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[BatchAnswer, _Mapping]]] = ...) -> None: ...

class BatchAnswer(_message.Message):
    __slots__ = ("request_id", "decision", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    decision: _decision_pb2.Decision
    error: StreamError
    def __init__(self, request_id: _Optional[str] = ..., decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ...) -> None: ...

class AuthorizeStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: AuthorizeRequest
    def __init__(self, request: _Optional[_Union[AuthorizeRequest, _Mapping]] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "retry_delay", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_delay: _duration_pb2.Duration
    reason: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class AuthorizeStreamResponse(_message.Message):
    __slots__ = ("request_id", "decision", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    decision: _decision_pb2.Decision
    error: StreamError
    def __init__(self, request_id: _Optional[str] = ..., decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ...) -> None: ...

class ReportedValues(_message.Message):
    __slots__ = ("issued", "others")
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    issued: _containers.RepeatedScalarFieldContainer[bytes]
    others: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, issued: _Optional[_Iterable[bytes]] = ..., others: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("outcome_token", "status", "labels", "values")
    OUTCOME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    outcome_token: str
    status: CallStatus
    labels: _containers.RepeatedScalarFieldContainer[str]
    values: ReportedValues
    def __init__(self, outcome_token: _Optional[str] = ..., status: _Optional[_Union[CallStatus, str]] = ..., labels: _Optional[_Iterable[str]] = ..., values: _Optional[_Union[ReportedValues, _Mapping]] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("decision_id",)
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    def __init__(self, decision_id: _Optional[str] = ...) -> None: ...

class ListToolsRequest(_message.Message):
    __slots__ = ("session_handle", "with_readings")
    SESSION_HANDLE_FIELD_NUMBER: _ClassVar[int]
    WITH_READINGS_FIELD_NUMBER: _ClassVar[int]
    session_handle: str
    with_readings: bool
    def __init__(self, session_handle: _Optional[str] = ..., with_readings: _Optional[bool] = ...) -> None: ...

class ToolVisibility(_message.Message):
    __slots__ = ("server", "tool", "visibility", "definition_digest", "reading")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    server: str
    tool: str
    visibility: Visibility
    definition_digest: str
    reading: _reading_pb2.Reading
    def __init__(self, server: _Optional[str] = ..., tool: _Optional[str] = ..., visibility: _Optional[_Union[Visibility, str]] = ..., definition_digest: _Optional[str] = ..., reading: _Optional[_Union[_reading_pb2.Reading, _Mapping]] = ...) -> None: ...

class ListToolsResponse(_message.Message):
    __slots__ = ("tools", "bundle_version", "session_id")
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[ToolVisibility]
    bundle_version: str
    session_id: str
    def __init__(self, tools: _Optional[_Iterable[_Union[ToolVisibility, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...
