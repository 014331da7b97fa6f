import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetExposureRequest(_message.Message):
    __slots__ = ("connection_id", "version", "since_time", "page_size", "page_token")
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    version: int
    since_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, connection_id: _Optional[str] = ..., version: _Optional[int] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetExposureResponse(_message.Message):
    __slots__ = ("uses", "by", "calls", "next_page_token", "answer_count", "answer_bytes", "finding_count", "gap")
    USES_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    uses: Uses
    by: _containers.RepeatedCompositeFieldContainer[UsesBy]
    calls: _containers.RepeatedCompositeFieldContainer[SecretUse]
    next_page_token: str
    answer_count: int
    answer_bytes: int
    finding_count: int
    gap: str
    def __init__(self, uses: _Optional[_Union[Uses, _Mapping]] = ..., by: _Optional[_Iterable[_Union[UsesBy, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[SecretUse, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., answer_count: _Optional[int] = ..., answer_bytes: _Optional[int] = ..., finding_count: _Optional[int] = ..., gap: _Optional[str] = ...) -> None: ...

class Uses(_message.Message):
    __slots__ = ("count", "first_time", "last_time")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    count: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, count: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UsesBy(_message.Message):
    __slots__ = ("what", "values", "others")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    what: str
    values: _containers.RepeatedCompositeFieldContainer[UsesOf]
    others: Uses
    def __init__(self, what: _Optional[str] = ..., values: _Optional[_Iterable[_Union[UsesOf, _Mapping]]] = ..., others: _Optional[_Union[Uses, _Mapping]] = ...) -> None: ...

class UsesOf(_message.Message):
    __slots__ = ("name", "uses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    name: str
    uses: Uses
    def __init__(self, name: _Optional[str] = ..., uses: _Optional[_Union[Uses, _Mapping]] = ...) -> None: ...

class SecretUse(_message.Message):
    __slots__ = ("time", "token_id", "decision_id", "session_id", "user", "agent", "tenant", "action", "version", "mode", "upstream", "presenter")
    TIME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    PRESENTER_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    token_id: str
    decision_id: str
    session_id: str
    user: str
    agent: str
    tenant: str
    action: str
    version: int
    mode: str
    upstream: str
    presenter: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., token_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., tenant: _Optional[str] = ..., action: _Optional[str] = ..., version: _Optional[int] = ..., mode: _Optional[str] = ..., upstream: _Optional[str] = ..., presenter: _Optional[str] = ...) -> None: ...
