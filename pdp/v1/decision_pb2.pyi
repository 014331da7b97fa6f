import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import calltoken_pb2 as _calltoken_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_ALLOW: _ClassVar[Outcome]
    OUTCOME_DENY: _ClassVar[Outcome]

class Basis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BASIS_UNSPECIFIED: _ClassVar[Basis]
    BASIS_PERMIT: _ClassVar[Basis]
    BASIS_FORBID: _ClassVar[Basis]
    BASIS_DEFAULT_DENY: _ClassVar[Basis]
    BASIS_POLICY_ERROR: _ClassVar[Basis]
    BASIS_INVALID_ARGUMENTS: _ClassVar[Basis]
    BASIS_UNKNOWN_TOOL: _ClassVar[Basis]
    BASIS_TOOL_CHANGED: _ClassVar[Basis]
    BASIS_OUT_OF_SCOPE: _ClassVar[Basis]
    BASIS_SESSION_NOT_FOUND: _ClassVar[Basis]
    BASIS_SESSION_NOT_APPROVED: _ClassVar[Basis]
    BASIS_SESSION_EXPIRED: _ClassVar[Basis]
    BASIS_SESSION_REVOKED: _ClassVar[Basis]
    BASIS_SESSION_ENDED: _ClassVar[Basis]
    BASIS_ANCESTOR_DENIED: _ClassVar[Basis]
    BASIS_APPROVAL_REQUIRED: _ClassVar[Basis]
    BASIS_BUDGET_EXHAUSTED: _ClassVar[Basis]
    BASIS_RECORD_UNAVAILABLE: _ClassVar[Basis]
    BASIS_LABEL_NOT_APPROVED: _ClassVar[Basis]
    BASIS_LEDGER_UNAVAILABLE: _ClassVar[Basis]
    BASIS_RESULT_UNSEEN: _ClassVar[Basis]
    BASIS_FROZEN: _ClassVar[Basis]

class CacheResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_RESULT_UNSPECIFIED: _ClassVar[CacheResult]
    CACHE_RESULT_NONE: _ClassVar[CacheResult]
    CACHE_RESULT_HIT: _ClassVar[CacheResult]
    CACHE_RESULT_MISS: _ClassVar[CacheResult]
    CACHE_RESULT_BYPASS: _ClassVar[CacheResult]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_ALLOW: Outcome
OUTCOME_DENY: Outcome
BASIS_UNSPECIFIED: Basis
BASIS_PERMIT: Basis
BASIS_FORBID: Basis
BASIS_DEFAULT_DENY: Basis
BASIS_POLICY_ERROR: Basis
BASIS_INVALID_ARGUMENTS: Basis
BASIS_UNKNOWN_TOOL: Basis
BASIS_TOOL_CHANGED: Basis
BASIS_OUT_OF_SCOPE: Basis
BASIS_SESSION_NOT_FOUND: Basis
BASIS_SESSION_NOT_APPROVED: Basis
BASIS_SESSION_EXPIRED: Basis
BASIS_SESSION_REVOKED: Basis
BASIS_SESSION_ENDED: Basis
BASIS_ANCESTOR_DENIED: Basis
BASIS_APPROVAL_REQUIRED: Basis
BASIS_BUDGET_EXHAUSTED: Basis
BASIS_RECORD_UNAVAILABLE: Basis
BASIS_LABEL_NOT_APPROVED: Basis
BASIS_LEDGER_UNAVAILABLE: Basis
BASIS_RESULT_UNSEEN: Basis
BASIS_FROZEN: Basis
CACHE_RESULT_UNSPECIFIED: CacheResult
CACHE_RESULT_NONE: CacheResult
CACHE_RESULT_HIT: CacheResult
CACHE_RESULT_MISS: CacheResult
CACHE_RESULT_BYPASS: CacheResult

class Call(_message.Message):
    __slots__ = ("session_handle", "server", "tool", "arguments_json", "definition_digest", "facts_json")
    SESSION_HANDLE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FACTS_JSON_FIELD_NUMBER: _ClassVar[int]
    session_handle: str
    server: str
    tool: str
    arguments_json: bytes
    definition_digest: str
    facts_json: bytes
    def __init__(self, session_handle: _Optional[str] = ..., server: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_json: _Optional[bytes] = ..., definition_digest: _Optional[str] = ..., facts_json: _Optional[bytes] = ...) -> None: ...

class Obligation(_message.Message):
    __slots__ = ("id", "parameters_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    parameters_json: bytes
    def __init__(self, id: _Optional[str] = ..., parameters_json: _Optional[bytes] = ...) -> None: ...

class AccessRequest(_message.Message):
    __slots__ = ("id", "expire_time", "link")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    id: str
    expire_time: _timestamp_pb2.Timestamp
    link: str
    def __init__(self, id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., link: _Optional[str] = ...) -> None: ...

class ResultReading(_message.Message):
    __slots__ = ("key", "trusted", "issues", "kinds")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_FIELD_NUMBER: _ClassVar[int]
    ISSUES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    trusted: bool
    issues: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[bytes] = ..., trusted: _Optional[bool] = ..., issues: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision_id", "outcome", "basis", "determining_policies", "session_id", "user", "agent", "server", "tool", "arguments_digest", "bundle_version", "session_epoch", "cache_result", "ancestor_session_id", "ancestor_basis", "decide_time", "trace_id", "span_id", "obligations", "advice", "access_request", "expire_time", "tenant", "duration_us", "policies_left_out", "labels_added", "outcome_token", "policies_lifted", "result_reading", "call_tokens")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_POLICIES_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CACHE_RESULT_FIELD_NUMBER: _ClassVar[int]
    ANCESTOR_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ANCESTOR_BASIS_FIELD_NUMBER: _ClassVar[int]
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    ACCESS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_ADDED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LIFTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_READING_FIELD_NUMBER: _ClassVar[int]
    CALL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    outcome: Outcome
    basis: Basis
    determining_policies: _containers.RepeatedScalarFieldContainer[str]
    session_id: str
    user: str
    agent: str
    server: str
    tool: str
    arguments_digest: str
    bundle_version: str
    session_epoch: int
    cache_result: CacheResult
    ancestor_session_id: str
    ancestor_basis: Basis
    decide_time: _timestamp_pb2.Timestamp
    trace_id: str
    span_id: str
    obligations: _containers.RepeatedCompositeFieldContainer[Obligation]
    advice: _containers.RepeatedScalarFieldContainer[str]
    access_request: AccessRequest
    expire_time: _timestamp_pb2.Timestamp
    tenant: str
    duration_us: float
    policies_left_out: int
    labels_added: _containers.RepeatedScalarFieldContainer[str]
    outcome_token: str
    policies_lifted: _containers.RepeatedScalarFieldContainer[str]
    result_reading: ResultReading
    call_tokens: _containers.RepeatedCompositeFieldContainer[_calltoken_pb2.CallToken]
    def __init__(self, decision_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., basis: _Optional[_Union[Basis, str]] = ..., determining_policies: _Optional[_Iterable[str]] = ..., session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., server: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_digest: _Optional[str] = ..., bundle_version: _Optional[str] = ..., session_epoch: _Optional[int] = ..., cache_result: _Optional[_Union[CacheResult, str]] = ..., ancestor_session_id: _Optional[str] = ..., ancestor_basis: _Optional[_Union[Basis, str]] = ..., decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., trace_id: _Optional[str] = ..., span_id: _Optional[str] = ..., obligations: _Optional[_Iterable[_Union[Obligation, _Mapping]]] = ..., advice: _Optional[_Iterable[str]] = ..., access_request: _Optional[_Union[AccessRequest, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., duration_us: _Optional[float] = ..., policies_left_out: _Optional[int] = ..., labels_added: _Optional[_Iterable[str]] = ..., outcome_token: _Optional[str] = ..., policies_lifted: _Optional[_Iterable[str]] = ..., result_reading: _Optional[_Union[ResultReading, _Mapping]] = ..., call_tokens: _Optional[_Iterable[_Union[_calltoken_pb2.CallToken, _Mapping]]] = ...) -> None: ...
