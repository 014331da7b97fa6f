import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import fence_pb2 as _fence_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Freeze(_message.Message):
    __slots__ = ("freeze_id", "tenant", "all_tenants", "reason", "set_by", "set_time", "confirmed_by", "confirm_time", "confirm_expire_time")
    FREEZE_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ALL_TENANTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SET_BY_FIELD_NUMBER: _ClassVar[int]
    SET_TIME_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_BY_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_TIME_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    freeze_id: str
    tenant: str
    all_tenants: bool
    reason: str
    set_by: str
    set_time: _timestamp_pb2.Timestamp
    confirmed_by: str
    confirm_time: _timestamp_pb2.Timestamp
    confirm_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, freeze_id: _Optional[str] = ..., tenant: _Optional[str] = ..., all_tenants: _Optional[bool] = ..., reason: _Optional[str] = ..., set_by: _Optional[str] = ..., set_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confirmed_by: _Optional[str] = ..., confirm_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confirm_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SetFreezeRequest(_message.Message):
    __slots__ = ("tenant", "all_tenants", "reason", "validate_only", "request_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ALL_TENANTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    all_tenants: bool
    reason: str
    validate_only: bool
    request_id: str
    def __init__(self, tenant: _Optional[str] = ..., all_tenants: _Optional[bool] = ..., reason: _Optional[str] = ..., validate_only: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetFreezeResponse(_message.Message):
    __slots__ = ("freeze", "session_count", "fenced_by", "fence_duration", "revision")
    FREEZE_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    freeze: Freeze
    session_count: int
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, freeze: _Optional[_Union[Freeze, _Mapping]] = ..., session_count: _Optional[int] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class LiftFreezeRequest(_message.Message):
    __slots__ = ("freeze_id", "request_id")
    FREEZE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    freeze_id: str
    request_id: str
    def __init__(self, freeze_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class LiftFreezeResponse(_message.Message):
    __slots__ = ("lifted", "freeze", "fenced_by", "fence_duration", "revision")
    LIFTED_FIELD_NUMBER: _ClassVar[int]
    FREEZE_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    lifted: bool
    freeze: Freeze
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    def __init__(self, lifted: _Optional[bool] = ..., freeze: _Optional[_Union[Freeze, _Mapping]] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class ListFreezesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFreezesResponse(_message.Message):
    __slots__ = ("freezes",)
    FREEZES_FIELD_NUMBER: _ClassVar[int]
    freezes: _containers.RepeatedCompositeFieldContainer[Freeze]
    def __init__(self, freezes: _Optional[_Iterable[_Union[Freeze, _Mapping]]] = ...) -> None: ...
