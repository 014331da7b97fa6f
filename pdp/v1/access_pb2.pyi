import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccessState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_STATE_UNSPECIFIED: _ClassVar[AccessState]
    ACCESS_STATE_OPEN: _ClassVar[AccessState]
    ACCESS_STATE_APPROVED: _ClassVar[AccessState]
    ACCESS_STATE_DENIED: _ClassVar[AccessState]
    ACCESS_STATE_USED: _ClassVar[AccessState]
    ACCESS_STATE_REVOKED: _ClassVar[AccessState]
    ACCESS_STATE_EXPIRED: _ClassVar[AccessState]

class ArgumentChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARGUMENT_CHANGE_UNSPECIFIED: _ClassVar[ArgumentChange]
    ARGUMENT_CHANGE_SAME: _ClassVar[ArgumentChange]
    ARGUMENT_CHANGE_CHANGED: _ClassVar[ArgumentChange]
    ARGUMENT_CHANGE_ADDED: _ClassVar[ArgumentChange]
    ARGUMENT_CHANGE_REMOVED: _ClassVar[ArgumentChange]
    ARGUMENT_CHANGE_UNKNOWN: _ClassVar[ArgumentChange]
ACCESS_STATE_UNSPECIFIED: AccessState
ACCESS_STATE_OPEN: AccessState
ACCESS_STATE_APPROVED: AccessState
ACCESS_STATE_DENIED: AccessState
ACCESS_STATE_USED: AccessState
ACCESS_STATE_REVOKED: AccessState
ACCESS_STATE_EXPIRED: AccessState
ARGUMENT_CHANGE_UNSPECIFIED: ArgumentChange
ARGUMENT_CHANGE_SAME: ArgumentChange
ARGUMENT_CHANGE_CHANGED: ArgumentChange
ARGUMENT_CHANGE_ADDED: ArgumentChange
ARGUMENT_CHANGE_REMOVED: ArgumentChange
ARGUMENT_CHANGE_UNKNOWN: ArgumentChange

class AccessQuestion(_message.Message):
    __slots__ = ("session_id", "policy_id", "policy_digest", "text", "most_calls")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MOST_CALLS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    policy_id: str
    policy_digest: str
    text: str
    most_calls: int
    def __init__(self, session_id: _Optional[str] = ..., policy_id: _Optional[str] = ..., policy_digest: _Optional[str] = ..., text: _Optional[str] = ..., most_calls: _Optional[int] = ...) -> None: ...

class RequestedAccess(_message.Message):
    __slots__ = ("access_request_id", "state", "session_id", "user", "agent", "server", "tool", "questions", "asked_by", "decision_id", "request_time", "expire_time", "answer_time", "answered_by", "reason", "approved_calls", "used_calls", "bundle_version", "tenant")
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    ASKED_BY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TIME_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPROVED_CALLS_FIELD_NUMBER: _ClassVar[int]
    USED_CALLS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    state: AccessState
    session_id: str
    user: str
    agent: str
    server: str
    tool: str
    questions: _containers.RepeatedCompositeFieldContainer[AccessQuestion]
    asked_by: str
    decision_id: str
    request_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    answer_time: _timestamp_pb2.Timestamp
    answered_by: str
    reason: str
    approved_calls: int
    used_calls: int
    bundle_version: str
    tenant: str
    def __init__(self, access_request_id: _Optional[str] = ..., state: _Optional[_Union[AccessState, str]] = ..., session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., server: _Optional[str] = ..., tool: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[AccessQuestion, _Mapping]]] = ..., asked_by: _Optional[str] = ..., decision_id: _Optional[str] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., answer_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., answered_by: _Optional[str] = ..., reason: _Optional[str] = ..., approved_calls: _Optional[int] = ..., used_calls: _Optional[int] = ..., bundle_version: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class AccessTarget(_message.Message):
    __slots__ = ("path", "provenance")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    path: str
    provenance: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., provenance: _Optional[_Iterable[str]] = ...) -> None: ...

class ApproveCallRequest(_message.Message):
    __slots__ = ("access_request_id", "request_digest", "calls", "request_id")
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    request_digest: str
    calls: int
    request_id: str
    def __init__(self, access_request_id: _Optional[str] = ..., request_digest: _Optional[str] = ..., calls: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class ApproveCallResponse(_message.Message):
    __slots__ = ("access_request",)
    ACCESS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    access_request: RequestedAccess
    def __init__(self, access_request: _Optional[_Union[RequestedAccess, _Mapping]] = ...) -> None: ...

class DenyCallRequest(_message.Message):
    __slots__ = ("access_request_id", "reason", "request_id")
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    reason: str
    request_id: str
    def __init__(self, access_request_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DenyCallResponse(_message.Message):
    __slots__ = ("access_request",)
    ACCESS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    access_request: RequestedAccess
    def __init__(self, access_request: _Optional[_Union[RequestedAccess, _Mapping]] = ...) -> None: ...

class RevokeAccessRequest(_message.Message):
    __slots__ = ("access_request_id", "session_id", "reason", "request_id")
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    session_id: str
    reason: str
    request_id: str
    def __init__(self, access_request_id: _Optional[str] = ..., session_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RevokeAccessResponse(_message.Message):
    __slots__ = ("access_request_ids",)
    ACCESS_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    access_request_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, access_request_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAccessRequestRequest(_message.Message):
    __slots__ = ("access_request_id",)
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    def __init__(self, access_request_id: _Optional[str] = ...) -> None: ...

class GetAccessRequestResponse(_message.Message):
    __slots__ = ("access_request", "session", "arguments_json", "targets", "risk", "groups", "definition_digest", "critical", "most_calls", "request_digest", "connection_kind", "connection_scopes")
    ACCESS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    MOST_CALLS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_KIND_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_SCOPES_FIELD_NUMBER: _ClassVar[int]
    access_request: RequestedAccess
    session: _session_pb2.Session
    arguments_json: bytes
    targets: _containers.RepeatedCompositeFieldContainer[AccessTarget]
    risk: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    definition_digest: str
    critical: bool
    most_calls: int
    request_digest: str
    connection_kind: str
    connection_scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, access_request: _Optional[_Union[RequestedAccess, _Mapping]] = ..., session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., arguments_json: _Optional[bytes] = ..., targets: _Optional[_Iterable[_Union[AccessTarget, _Mapping]]] = ..., risk: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., definition_digest: _Optional[str] = ..., critical: _Optional[bool] = ..., most_calls: _Optional[int] = ..., request_digest: _Optional[str] = ..., connection_kind: _Optional[str] = ..., connection_scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class CompareCallRequest(_message.Message):
    __slots__ = ("access_request_id",)
    ACCESS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    access_request_id: str
    def __init__(self, access_request_id: _Optional[str] = ...) -> None: ...

class ComparedArgument(_message.Message):
    __slots__ = ("name", "change", "earlier_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    EARLIER_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    change: ArgumentChange
    earlier_json: bytes
    def __init__(self, name: _Optional[str] = ..., change: _Optional[_Union[ArgumentChange, str]] = ..., earlier_json: _Optional[bytes] = ...) -> None: ...

class CompareCallResponse(_message.Message):
    __slots__ = ("not_compared", "earlier_decision_id", "earlier_session_id", "earlier_time", "identical", "arguments")
    NOT_COMPARED_FIELD_NUMBER: _ClassVar[int]
    EARLIER_DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    EARLIER_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EARLIER_TIME_FIELD_NUMBER: _ClassVar[int]
    IDENTICAL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    not_compared: str
    earlier_decision_id: str
    earlier_session_id: str
    earlier_time: _timestamp_pb2.Timestamp
    identical: bool
    arguments: _containers.RepeatedCompositeFieldContainer[ComparedArgument]
    def __init__(self, not_compared: _Optional[str] = ..., earlier_decision_id: _Optional[str] = ..., earlier_session_id: _Optional[str] = ..., earlier_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., identical: _Optional[bool] = ..., arguments: _Optional[_Iterable[_Union[ComparedArgument, _Mapping]]] = ...) -> None: ...

class ListAccessRequestsRequest(_message.Message):
    __slots__ = ("state", "session_id", "user", "page_size", "page_token")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    state: AccessState
    session_id: str
    user: str
    page_size: int
    page_token: str
    def __init__(self, state: _Optional[_Union[AccessState, str]] = ..., session_id: _Optional[str] = ..., user: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAccessRequestsResponse(_message.Message):
    __slots__ = ("access_requests", "next_page_token")
    ACCESS_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    access_requests: _containers.RepeatedCompositeFieldContainer[RequestedAccess]
    next_page_token: str
    def __init__(self, access_requests: _Optional[_Iterable[_Union[RequestedAccess, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchAccessRequestsRequest(_message.Message):
    __slots__ = ("session_id", "user")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class WatchAccessRequestsResponse(_message.Message):
    __slots__ = ("access_requests", "complete")
    ACCESS_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    access_requests: _containers.RepeatedCompositeFieldContainer[RequestedAccess]
    complete: bool
    def __init__(self, access_requests: _Optional[_Iterable[_Union[RequestedAccess, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...
