import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import authorization_pb2 as _authorization_pb2
from pdp.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetReachRequest(_message.Message):
    __slots__ = ("session_id", "user", "agent", "asked_now", "used_days", "page_size", "page_token", "terms_json", "former_version")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ASKED_NOW_FIELD_NUMBER: _ClassVar[int]
    USED_DAYS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TERMS_JSON_FIELD_NUMBER: _ClassVar[int]
    FORMER_VERSION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user: str
    agent: str
    asked_now: bool
    used_days: int
    page_size: int
    page_token: str
    terms_json: bytes
    former_version: str
    def __init__(self, session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., asked_now: _Optional[bool] = ..., used_days: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., terms_json: _Optional[bytes] = ..., former_version: _Optional[str] = ...) -> None: ...

class ReachedTool(_message.Message):
    __slots__ = ("tool", "visibility", "policy_ids", "policies_left_out", "opened_by", "session_count", "session_ids", "last_allow_time", "former_visibility", "former_policy_ids")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    LAST_ALLOW_TIME_FIELD_NUMBER: _ClassVar[int]
    FORMER_VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    FORMER_POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    tool: _session_pb2.ScopedTool
    visibility: _authorization_pb2.Visibility
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    policies_left_out: int
    opened_by: _containers.RepeatedScalarFieldContainer[str]
    session_count: int
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    last_allow_time: _timestamp_pb2.Timestamp
    former_visibility: _authorization_pb2.Visibility
    former_policy_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tool: _Optional[_Union[_session_pb2.ScopedTool, _Mapping]] = ..., visibility: _Optional[_Union[_authorization_pb2.Visibility, str]] = ..., policy_ids: _Optional[_Iterable[str]] = ..., policies_left_out: _Optional[int] = ..., opened_by: _Optional[_Iterable[str]] = ..., session_count: _Optional[int] = ..., session_ids: _Optional[_Iterable[str]] = ..., last_allow_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., former_visibility: _Optional[_Union[_authorization_pb2.Visibility, str]] = ..., former_policy_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetReachResponse(_message.Message):
    __slots__ = ("tools", "next_page_token", "bundle_version", "session_count", "sessions_left_out", "used_since_time", "use_unknown", "freeze_id")
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    USED_SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    USE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    FREEZE_ID_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[ReachedTool]
    next_page_token: str
    bundle_version: str
    session_count: int
    sessions_left_out: bool
    used_since_time: _timestamp_pb2.Timestamp
    use_unknown: str
    freeze_id: str
    def __init__(self, tools: _Optional[_Iterable[_Union[ReachedTool, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., bundle_version: _Optional[str] = ..., session_count: _Optional[int] = ..., sessions_left_out: _Optional[bool] = ..., used_since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., use_unknown: _Optional[str] = ..., freeze_id: _Optional[str] = ...) -> None: ...
