import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import authorization_pb2 as _authorization_pb2
from pdp.v1 import fence_pb2 as _fence_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_REQUESTED: _ClassVar[SessionState]
    SESSION_STATE_ACTIVE: _ClassVar[SessionState]
    SESSION_STATE_DENIED: _ClassVar[SessionState]
    SESSION_STATE_ENDED: _ClassVar[SessionState]
    SESSION_STATE_EXPIRED: _ClassVar[SessionState]
    SESSION_STATE_REVOKED: _ClassVar[SessionState]
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_REQUESTED: SessionState
SESSION_STATE_ACTIVE: SessionState
SESSION_STATE_DENIED: SessionState
SESSION_STATE_ENDED: SessionState
SESSION_STATE_EXPIRED: SessionState
SESSION_STATE_REVOKED: SessionState

class ScopedTool(_message.Message):
    __slots__ = ("server", "tool", "definition_digest", "risk", "groups", "adds_labels", "connection_kind", "connection_scopes")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ADDS_LABELS_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_KIND_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_SCOPES_FIELD_NUMBER: _ClassVar[int]
    server: str
    tool: str
    definition_digest: str
    risk: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    adds_labels: _containers.RepeatedScalarFieldContainer[str]
    connection_kind: str
    connection_scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, server: _Optional[str] = ..., tool: _Optional[str] = ..., definition_digest: _Optional[str] = ..., risk: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., adds_labels: _Optional[_Iterable[str]] = ..., connection_kind: _Optional[str] = ..., connection_scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("session_id", "state", "user", "agent", "purpose", "tool_patterns", "tools", "request_digest", "duration", "request_time", "approve_time", "expire_time", "end_time", "parent_session_id", "depth", "may_delegate", "grants", "labels", "tenant", "environment", "opened_by", "approved_by", "epoch", "reason", "ended_by", "user_attributes_json", "label_origins", "terms_json", "budgets", "values_kept", "tool_count", "user_groups")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TOOL_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    APPROVE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAY_DELEGATE_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_FIELD_NUMBER: _ClassVar[int]
    USER_ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    LABEL_ORIGINS_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    VALUES_KEPT_FIELD_NUMBER: _ClassVar[int]
    TOOL_COUNT_FIELD_NUMBER: _ClassVar[int]
    USER_GROUPS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: SessionState
    user: str
    agent: str
    purpose: str
    tool_patterns: _containers.RepeatedScalarFieldContainer[str]
    tools: _containers.RepeatedCompositeFieldContainer[ScopedTool]
    request_digest: str
    duration: _duration_pb2.Duration
    request_time: _timestamp_pb2.Timestamp
    approve_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    parent_session_id: str
    depth: int
    may_delegate: bool
    grants: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    tenant: str
    environment: str
    opened_by: str
    approved_by: str
    epoch: int
    reason: str
    ended_by: str
    user_attributes_json: bytes
    label_origins: _containers.RepeatedCompositeFieldContainer[LabelOrigin]
    terms_json: bytes
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    values_kept: int
    tool_count: int
    user_groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[SessionState, str]] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., purpose: _Optional[str] = ..., tool_patterns: _Optional[_Iterable[str]] = ..., tools: _Optional[_Iterable[_Union[ScopedTool, _Mapping]]] = ..., request_digest: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., approve_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., parent_session_id: _Optional[str] = ..., depth: _Optional[int] = ..., may_delegate: _Optional[bool] = ..., grants: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ..., tenant: _Optional[str] = ..., environment: _Optional[str] = ..., opened_by: _Optional[str] = ..., approved_by: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ..., ended_by: _Optional[str] = ..., user_attributes_json: _Optional[bytes] = ..., label_origins: _Optional[_Iterable[_Union[LabelOrigin, _Mapping]]] = ..., terms_json: _Optional[bytes] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., values_kept: _Optional[int] = ..., tool_count: _Optional[int] = ..., user_groups: _Optional[_Iterable[str]] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("name", "most", "left", "spent", "held")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    name: str
    most: str
    left: str
    spent: str
    held: str
    def __init__(self, name: _Optional[str] = ..., most: _Optional[str] = ..., left: _Optional[str] = ..., spent: _Optional[str] = ..., held: _Optional[str] = ...) -> None: ...

class LabelOrigin(_message.Message):
    __slots__ = ("label", "decision_id")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    label: str
    decision_id: str
    def __init__(self, label: _Optional[str] = ..., decision_id: _Optional[str] = ...) -> None: ...

class RequestSessionRequest(_message.Message):
    __slots__ = ("user", "agent", "purpose", "tool_patterns", "duration", "parent_session_handle", "environment", "user_attributes_json", "labels", "may_delegate", "terms_json", "request_id")
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TOOL_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_HANDLE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    USER_ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MAY_DELEGATE_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    user: str
    agent: str
    purpose: str
    tool_patterns: _containers.RepeatedScalarFieldContainer[str]
    duration: _duration_pb2.Duration
    parent_session_handle: str
    environment: str
    user_attributes_json: bytes
    labels: _containers.RepeatedScalarFieldContainer[str]
    may_delegate: bool
    terms_json: bytes
    request_id: str
    def __init__(self, user: _Optional[str] = ..., agent: _Optional[str] = ..., purpose: _Optional[str] = ..., tool_patterns: _Optional[_Iterable[str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., parent_session_handle: _Optional[str] = ..., environment: _Optional[str] = ..., user_attributes_json: _Optional[bytes] = ..., labels: _Optional[_Iterable[str]] = ..., may_delegate: _Optional[bool] = ..., terms_json: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class RequestSessionResponse(_message.Message):
    __slots__ = ("session", "session_handle", "link")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_HANDLE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    session: Session
    session_handle: str
    link: str
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., session_handle: _Optional[str] = ..., link: _Optional[str] = ...) -> None: ...

class ApproveSessionRequest(_message.Message):
    __slots__ = ("session_id", "request_digest", "grants", "narrowing", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    NARROWING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    request_digest: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    narrowing: Narrowing
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., request_digest: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ..., narrowing: _Optional[_Union[Narrowing, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Narrowing(_message.Message):
    __slots__ = ("tool_patterns", "duration", "terms_json")
    TOOL_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    tool_patterns: _containers.RepeatedScalarFieldContainer[str]
    duration: _duration_pb2.Duration
    terms_json: bytes
    def __init__(self, tool_patterns: _Optional[_Iterable[str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., terms_json: _Optional[bytes] = ...) -> None: ...

class ApproveSessionResponse(_message.Message):
    __slots__ = ("session", "fenced_by", "fence_duration", "revision")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class DenySessionRequest(_message.Message):
    __slots__ = ("session_id", "reason", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DenySessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class EndSessionRequest(_message.Message):
    __slots__ = ("session_handle", "request_id")
    SESSION_HANDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_handle: str
    request_id: str
    def __init__(self, session_handle: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class EndSessionResponse(_message.Message):
    __slots__ = ("session", "fenced_by", "fence_duration", "revision")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class RevokeSessionsRequest(_message.Message):
    __slots__ = ("session_id", "user", "agent", "tenant", "reason", "validate_only", "of_tenant", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    OF_TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    tenant: str
    reason: str
    validate_only: bool
    of_tenant: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., tenant: _Optional[str] = ..., reason: _Optional[str] = ..., validate_only: _Optional[bool] = ..., of_tenant: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RevokeSessionsResponse(_message.Message):
    __slots__ = ("session_ids", "session_count", "sessions", "fenced_by", "fence_duration", "revision")
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    session_count: int
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, session_ids: _Optional[_Iterable[str]] = ..., session_count: _Optional[int] = ..., sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id", "min_revision")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    min_revision: str
    def __init__(self, session_id: _Optional[str] = ..., min_revision: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class ReviewSessionRequest(_message.Message):
    __slots__ = ("session_id", "grants", "narrowing")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    NARROWING_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    narrowing: Narrowing
    def __init__(self, session_id: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ..., narrowing: _Optional[_Union[Narrowing, _Mapping]] = ...) -> None: ...

class ReviewedTool(_message.Message):
    __slots__ = ("tool", "visibility", "opened_by", "policy_ids", "policies_left_out")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    tool: ScopedTool
    visibility: _authorization_pb2.Visibility
    opened_by: _containers.RepeatedScalarFieldContainer[str]
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    policies_left_out: int
    def __init__(self, tool: _Optional[_Union[ScopedTool, _Mapping]] = ..., visibility: _Optional[_Union[_authorization_pb2.Visibility, str]] = ..., opened_by: _Optional[_Iterable[str]] = ..., policy_ids: _Optional[_Iterable[str]] = ..., policies_left_out: _Optional[int] = ...) -> None: ...

class GrantUse(_message.Message):
    __slots__ = ("grant", "policy_ids")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    grant: str
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grant: _Optional[str] = ..., policy_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Unusual(_message.Message):
    __slots__ = ("rule", "sentence", "window", "session_count", "minimum_count")
    RULE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COUNT_FIELD_NUMBER: _ClassVar[int]
    rule: str
    sentence: str
    window: _duration_pb2.Duration
    session_count: int
    minimum_count: int
    def __init__(self, rule: _Optional[str] = ..., sentence: _Optional[str] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., session_count: _Optional[int] = ..., minimum_count: _Optional[int] = ...) -> None: ...

class ReviewSessionResponse(_message.Message):
    __slots__ = ("session", "tools", "known_grants", "bundle_version", "grant_uses", "unusual")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_GRANTS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    GRANT_USES_FIELD_NUMBER: _ClassVar[int]
    UNUSUAL_FIELD_NUMBER: _ClassVar[int]
    session: Session
    tools: _containers.RepeatedCompositeFieldContainer[ReviewedTool]
    known_grants: _containers.RepeatedScalarFieldContainer[str]
    bundle_version: str
    grant_uses: _containers.RepeatedCompositeFieldContainer[GrantUse]
    unusual: _containers.RepeatedCompositeFieldContainer[Unusual]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[ReviewedTool, _Mapping]]] = ..., known_grants: _Optional[_Iterable[str]] = ..., bundle_version: _Optional[str] = ..., grant_uses: _Optional[_Iterable[_Union[GrantUse, _Mapping]]] = ..., unusual: _Optional[_Iterable[_Union[Unusual, _Mapping]]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("state", "user", "agent", "page_size", "page_token", "tenant", "summaries")
    STATE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    state: SessionState
    user: str
    agent: str
    page_size: int
    page_token: str
    tenant: str
    summaries: bool
    def __init__(self, state: _Optional[_Union[SessionState, str]] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tenant: _Optional[str] = ..., summaries: _Optional[bool] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class NarrowSessionRequest(_message.Message):
    __slots__ = ("session_id", "tool_patterns", "expire_time", "labels", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    tool_patterns: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    labels: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., tool_patterns: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class NarrowSessionResponse(_message.Message):
    __slots__ = ("session", "fenced_by", "fence_duration", "revision")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class WatchSessionsRequest(_message.Message):
    __slots__ = ("since_revision", "session_id", "heartbeat")
    SINCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    since_revision: str
    session_id: str
    heartbeat: _duration_pb2.Duration
    def __init__(self, since_revision: _Optional[str] = ..., session_id: _Optional[str] = ..., heartbeat: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchSessionsResponse(_message.Message):
    __slots__ = ("changes", "revision", "reset", "bundle_version", "frozen_tenants", "age")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FROZEN_TENANTS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[SessionChange]
    revision: str
    reset: bool
    bundle_version: str
    frozen_tenants: _containers.RepeatedScalarFieldContainer[str]
    age: _duration_pb2.Duration
    def __init__(self, changes: _Optional[_Iterable[_Union[SessionChange, _Mapping]]] = ..., revision: _Optional[str] = ..., reset: _Optional[bool] = ..., bundle_version: _Optional[str] = ..., frozen_tenants: _Optional[_Iterable[str]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionChange(_message.Message):
    __slots__ = ("session_id", "state", "epoch", "expire_time", "user", "agent", "parent_session_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: SessionState
    epoch: int
    expire_time: _timestamp_pb2.Timestamp
    user: str
    agent: str
    parent_session_id: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[SessionState, str]] = ..., epoch: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., parent_session_id: _Optional[str] = ...) -> None: ...
