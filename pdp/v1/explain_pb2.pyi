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

class ConditionValue(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_VALUE_UNSPECIFIED: _ClassVar[ConditionValue]
    CONDITION_VALUE_TRUE: _ClassVar[ConditionValue]
    CONDITION_VALUE_FALSE: _ClassVar[ConditionValue]
    CONDITION_VALUE_ERROR: _ClassVar[ConditionValue]
    CONDITION_VALUE_NOT_REACHED: _ClassVar[ConditionValue]
CONDITION_VALUE_UNSPECIFIED: ConditionValue
CONDITION_VALUE_TRUE: ConditionValue
CONDITION_VALUE_FALSE: ConditionValue
CONDITION_VALUE_ERROR: ConditionValue
CONDITION_VALUE_NOT_REACHED: ConditionValue

class SupposedSession(_message.Message):
    __slots__ = ("user", "agent", "grants", "labels", "purpose", "environment", "user_attributes_json", "terms_json")
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    USER_ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    user: str
    agent: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    environment: str
    user_attributes_json: bytes
    terms_json: bytes
    def __init__(self, user: _Optional[str] = ..., agent: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., environment: _Optional[str] = ..., user_attributes_json: _Optional[bytes] = ..., terms_json: _Optional[bytes] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("session_id", "supposed", "server", "tool", "arguments_json", "definition_digest", "facts_json", "caller_id", "time")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUPPOSED_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FACTS_JSON_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    supposed: SupposedSession
    server: str
    tool: str
    arguments_json: bytes
    definition_digest: str
    facts_json: bytes
    caller_id: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., supposed: _Optional[_Union[SupposedSession, _Mapping]] = ..., server: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_json: _Optional[bytes] = ..., definition_digest: _Optional[str] = ..., facts_json: _Optional[bytes] = ..., caller_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ConditionExplanation(_message.Message):
    __slots__ = ("kind", "text", "value", "alone", "error", "line", "column", "end_line", "end_column", "within")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    END_LINE_FIELD_NUMBER: _ClassVar[int]
    END_COLUMN_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    value: ConditionValue
    alone: ConditionValue
    error: str
    line: int
    column: int
    end_line: int
    end_column: int
    within: _containers.RepeatedCompositeFieldContainer[ConditionExplanation]
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ..., value: _Optional[_Union[ConditionValue, str]] = ..., alone: _Optional[_Union[ConditionValue, str]] = ..., error: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ..., end_line: _Optional[int] = ..., end_column: _Optional[int] = ..., within: _Optional[_Iterable[_Union[ConditionExplanation, _Mapping]]] = ...) -> None: ...

class PolicyExplanation(_message.Message):
    __slots__ = ("policy_id", "effect", "file", "line", "value", "error", "determining", "conditions", "step_up")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    STEP_UP_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    effect: str
    file: str
    line: int
    value: ConditionValue
    error: str
    determining: bool
    conditions: _containers.RepeatedCompositeFieldContainer[ConditionExplanation]
    step_up: str
    def __init__(self, policy_id: _Optional[str] = ..., effect: _Optional[str] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., value: _Optional[_Union[ConditionValue, str]] = ..., error: _Optional[str] = ..., determining: _Optional[bool] = ..., conditions: _Optional[_Iterable[_Union[ConditionExplanation, _Mapping]]] = ..., step_up: _Optional[str] = ...) -> None: ...

class SessionExplanation(_message.Message):
    __slots__ = ("session_id", "user", "agent", "outcome", "basis", "policies", "nearest_permits", "policies_left_out", "counts", "done")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    NEAREST_PERMITS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    outcome: _decision_pb2.Outcome
    basis: _decision_pb2.Basis
    policies: _containers.RepeatedCompositeFieldContainer[PolicyExplanation]
    nearest_permits: _containers.RepeatedScalarFieldContainer[str]
    policies_left_out: int
    counts: _containers.RepeatedCompositeFieldContainer[CountExplanation]
    done: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., outcome: _Optional[_Union[_decision_pb2.Outcome, str]] = ..., basis: _Optional[_Union[_decision_pb2.Basis, str]] = ..., policies: _Optional[_Iterable[_Union[PolicyExplanation, _Mapping]]] = ..., nearest_permits: _Optional[_Iterable[str]] = ..., policies_left_out: _Optional[int] = ..., counts: _Optional[_Iterable[_Union[CountExplanation, _Mapping]]] = ..., done: _Optional[_Iterable[str]] = ...) -> None: ...

class CountExplanation(_message.Message):
    __slots__ = ("name", "calls")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    calls: int
    def __init__(self, name: _Optional[str] = ..., calls: _Optional[int] = ...) -> None: ...

class TargetExplanation(_message.Message):
    __slots__ = ("path", "provenance")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    path: str
    provenance: str
    def __init__(self, path: _Optional[str] = ..., provenance: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("summary", "outcome", "basis", "refusal", "problem", "sessions", "resource_type", "resource_id", "bundle_version", "explain_time", "opaque", "obligations", "advice", "targets", "values_not_compared")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_TIME_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    VALUES_NOT_COMPARED_FIELD_NUMBER: _ClassVar[int]
    summary: str
    outcome: _decision_pb2.Outcome
    basis: _decision_pb2.Basis
    refusal: str
    problem: str
    sessions: _containers.RepeatedCompositeFieldContainer[SessionExplanation]
    resource_type: str
    resource_id: str
    bundle_version: str
    explain_time: _timestamp_pb2.Timestamp
    opaque: _containers.RepeatedScalarFieldContainer[str]
    obligations: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Obligation]
    advice: _containers.RepeatedScalarFieldContainer[str]
    targets: _containers.RepeatedCompositeFieldContainer[TargetExplanation]
    values_not_compared: int
    def __init__(self, summary: _Optional[str] = ..., outcome: _Optional[_Union[_decision_pb2.Outcome, str]] = ..., basis: _Optional[_Union[_decision_pb2.Basis, str]] = ..., refusal: _Optional[str] = ..., problem: _Optional[str] = ..., sessions: _Optional[_Iterable[_Union[SessionExplanation, _Mapping]]] = ..., resource_type: _Optional[str] = ..., resource_id: _Optional[str] = ..., bundle_version: _Optional[str] = ..., explain_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., opaque: _Optional[_Iterable[str]] = ..., obligations: _Optional[_Iterable[_Union[_decision_pb2.Obligation, _Mapping]]] = ..., advice: _Optional[_Iterable[str]] = ..., targets: _Optional[_Iterable[_Union[TargetExplanation, _Mapping]]] = ..., values_not_compared: _Optional[int] = ...) -> None: ...
