import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordedState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECORDED_STATE_UNSPECIFIED: _ClassVar[RecordedState]
    RECORDED_STATE_REQUESTED: _ClassVar[RecordedState]
    RECORDED_STATE_ACTIVE: _ClassVar[RecordedState]
    RECORDED_STATE_DENIED: _ClassVar[RecordedState]
    RECORDED_STATE_ENDED: _ClassVar[RecordedState]
    RECORDED_STATE_EXPIRED: _ClassVar[RecordedState]
    RECORDED_STATE_REVOKED: _ClassVar[RecordedState]
    RECORDED_STATE_UNKNOWN: _ClassVar[RecordedState]
RECORDED_STATE_UNSPECIFIED: RecordedState
RECORDED_STATE_REQUESTED: RecordedState
RECORDED_STATE_ACTIVE: RecordedState
RECORDED_STATE_DENIED: RecordedState
RECORDED_STATE_ENDED: RecordedState
RECORDED_STATE_EXPIRED: RecordedState
RECORDED_STATE_REVOKED: RecordedState
RECORDED_STATE_UNKNOWN: RecordedState

class RecordFilter(_message.Message):
    __slots__ = ("session_id", "delegated", "user", "agent", "caller_id", "outcome", "kind", "since_time", "until_time", "arguments", "server", "tool", "resource", "basis")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DELEGATED_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    delegated: bool
    user: str
    agent: str
    caller_id: str
    outcome: _decision_pb2.Outcome
    kind: str
    since_time: _timestamp_pb2.Timestamp
    until_time: _timestamp_pb2.Timestamp
    arguments: _containers.RepeatedScalarFieldContainer[str]
    server: str
    tool: str
    resource: str
    basis: _decision_pb2.Basis
    def __init__(self, session_id: _Optional[str] = ..., delegated: _Optional[bool] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., caller_id: _Optional[str] = ..., outcome: _Optional[_Union[_decision_pb2.Outcome, str]] = ..., kind: _Optional[str] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., arguments: _Optional[_Iterable[str]] = ..., server: _Optional[str] = ..., tool: _Optional[str] = ..., resource: _Optional[str] = ..., basis: _Optional[_Union[_decision_pb2.Basis, str]] = ...) -> None: ...

class AuditRecord(_message.Message):
    __slots__ = ("record_json", "segment", "place")
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    record_json: bytes
    segment: str
    place: int
    def __init__(self, record_json: _Optional[bytes] = ..., segment: _Optional[str] = ..., place: _Optional[int] = ...) -> None: ...

class Lacking(_message.Message):
    __slots__ = ("parts", "unknown")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[LackingPart]
    unknown: bool
    def __init__(self, parts: _Optional[_Iterable[_Union[LackingPart, _Mapping]]] = ..., unknown: _Optional[bool] = ...) -> None: ...

class LackingPart(_message.Message):
    __slots__ = ("replica", "chain", "since_time", "until_time")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    replica: str
    chain: str
    since_time: _timestamp_pb2.Timestamp
    until_time: _timestamp_pb2.Timestamp
    def __init__(self, replica: _Optional[str] = ..., chain: _Optional[str] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetRecordRequest(_message.Message):
    __slots__ = ("decision_id",)
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    def __init__(self, decision_id: _Optional[str] = ...) -> None: ...

class GetRecordResponse(_message.Message):
    __slots__ = ("record", "records", "lacking")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    record: AuditRecord
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    lacking: Lacking
    def __init__(self, record: _Optional[_Union[AuditRecord, _Mapping]] = ..., records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...

class ListRecordsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: RecordFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[RecordFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRecordsResponse(_message.Message):
    __slots__ = ("records", "next_page_token", "lacking")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    next_page_token: str
    lacking: Lacking
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("session_id", "decision_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    decision_id: str
    def __init__(self, session_id: _Optional[str] = ..., decision_id: _Optional[str] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("session_id", "user", "agent", "state", "parent_session_id", "requested_by", "request_time", "approved_by", "approve_time", "delegated", "grants", "expire_time", "purpose", "environment", "labels", "tool_patterns", "tools", "attributes_json", "attribute_digests_json", "terms_json", "term_digests_json")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELEGATED_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TOOL_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_DIGESTS_JSON_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    TERM_DIGESTS_JSON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    state: RecordedState
    parent_session_id: str
    requested_by: str
    request_time: _timestamp_pb2.Timestamp
    approved_by: str
    approve_time: _timestamp_pb2.Timestamp
    delegated: bool
    grants: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    purpose: str
    environment: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    tool_patterns: _containers.RepeatedScalarFieldContainer[str]
    tools: _containers.RepeatedScalarFieldContainer[str]
    attributes_json: bytes
    attribute_digests_json: bytes
    terms_json: bytes
    term_digests_json: bytes
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., state: _Optional[_Union[RecordedState, str]] = ..., parent_session_id: _Optional[str] = ..., requested_by: _Optional[str] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., approved_by: _Optional[str] = ..., approve_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delegated: _Optional[bool] = ..., grants: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., purpose: _Optional[str] = ..., environment: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., tool_patterns: _Optional[_Iterable[str]] = ..., tools: _Optional[_Iterable[str]] = ..., attributes_json: _Optional[bytes] = ..., attribute_digests_json: _Optional[bytes] = ..., terms_json: _Optional[bytes] = ..., term_digests_json: _Optional[bytes] = ...) -> None: ...

class ListApprovalsResponse(_message.Message):
    __slots__ = ("approvals", "lacking")
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    lacking: Lacking
    def __init__(self, approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...

class ListTouchedRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: RecordFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[RecordFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class Touch(_message.Message):
    __slots__ = ("server", "tool", "resource_type", "resource_id", "allowed", "denied", "first_time", "last_time")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    server: str
    tool: str
    resource_type: str
    resource_id: str
    allowed: int
    denied: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, server: _Optional[str] = ..., tool: _Optional[str] = ..., resource_type: _Optional[str] = ..., resource_id: _Optional[str] = ..., allowed: _Optional[int] = ..., denied: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListTouchedResponse(_message.Message):
    __slots__ = ("touched", "next_page_token", "lacking")
    TOUCHED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    touched: _containers.RepeatedCompositeFieldContainer[Touch]
    next_page_token: str
    lacking: Lacking
    def __init__(self, touched: _Optional[_Iterable[_Union[Touch, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...

class PlanRevocationRequest(_message.Message):
    __slots__ = ("session_id", "user", "agent", "pep", "approver", "tool", "server", "resource", "bundle_version", "tried", "since_time", "until_time", "page_size", "page_token", "argument")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PEP_FIELD_NUMBER: _ClassVar[int]
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    pep: str
    approver: str
    tool: str
    server: str
    resource: str
    bundle_version: str
    tried: bool
    since_time: _timestamp_pb2.Timestamp
    until_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    argument: str
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., pep: _Optional[str] = ..., approver: _Optional[str] = ..., tool: _Optional[str] = ..., server: _Optional[str] = ..., resource: _Optional[str] = ..., bundle_version: _Optional[str] = ..., tried: _Optional[bool] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., argument: _Optional[str] = ...) -> None: ...

class PlannedRevocation(_message.Message):
    __slots__ = ("session_id", "user", "agent", "state", "matched", "parent_session_id", "expire_time", "allowed", "denied", "last_call_time")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    LAST_CALL_TIME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    state: RecordedState
    matched: bool
    parent_session_id: str
    expire_time: _timestamp_pb2.Timestamp
    allowed: int
    denied: int
    last_call_time: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., state: _Optional[_Union[RecordedState, str]] = ..., matched: _Optional[bool] = ..., parent_session_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., allowed: _Optional[int] = ..., denied: _Optional[int] = ..., last_call_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PlanRevocationResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token", "lacking")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[PlannedRevocation]
    next_page_token: str
    lacking: Lacking
    def __init__(self, sessions: _Optional[_Iterable[_Union[PlannedRevocation, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...

class VerifySegmentRequest(_message.Message):
    __slots__ = ("segment",)
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    segment: str
    def __init__(self, segment: _Optional[str] = ...) -> None: ...

class VerifySegmentResponse(_message.Message):
    __slots__ = ("findings", "findings_left_out", "record_count", "last_number", "read_bytes", "size_bytes", "unsigned_count", "sign_time", "joined", "verify_time", "lacking")
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIGN_TIME_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TIME_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedScalarFieldContainer[str]
    findings_left_out: int
    record_count: int
    last_number: int
    read_bytes: int
    size_bytes: int
    unsigned_count: int
    sign_time: _timestamp_pb2.Timestamp
    joined: bool
    verify_time: _timestamp_pb2.Timestamp
    lacking: Lacking
    def __init__(self, findings: _Optional[_Iterable[str]] = ..., findings_left_out: _Optional[int] = ..., record_count: _Optional[int] = ..., last_number: _Optional[int] = ..., read_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ..., unsigned_count: _Optional[int] = ..., sign_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., joined: _Optional[bool] = ..., verify_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lacking: _Optional[_Union[Lacking, _Mapping]] = ...) -> None: ...
