import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Replacement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLACEMENT_UNSPECIFIED: _ClassVar[Replacement]
    REPLACEMENT_REPLACED: _ClassVar[Replacement]
    REPLACEMENT_DISCONNECTED: _ClassVar[Replacement]
    REPLACEMENT_EXPIRES: _ClassVar[Replacement]
    REPLACEMENT_FAILED: _ClassVar[Replacement]
    REPLACEMENT_FORMER: _ClassVar[Replacement]
    REPLACEMENT_BY_HAND: _ClassVar[Replacement]
REPLACEMENT_UNSPECIFIED: Replacement
REPLACEMENT_REPLACED: Replacement
REPLACEMENT_DISCONNECTED: Replacement
REPLACEMENT_EXPIRES: Replacement
REPLACEMENT_FAILED: Replacement
REPLACEMENT_FORMER: Replacement
REPLACEMENT_BY_HAND: Replacement

class ReplaceSecretRequest(_message.Message):
    __slots__ = ("connection_id", "version")
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    version: int
    def __init__(self, connection_id: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class CredentialLeft(_message.Message):
    __slots__ = ("checkout_id", "session_id", "expire_time", "problem")
    CHECKOUT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    checkout_id: str
    session_id: str
    expire_time: _timestamp_pb2.Timestamp
    problem: str
    def __init__(self, checkout_id: _Optional[str] = ..., session_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., problem: _Optional[str] = ...) -> None: ...

class ReplaceSecretResponse(_message.Message):
    __slots__ = ("replacement", "version", "expire_time", "ended_count", "left")
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ENDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    replacement: Replacement
    version: int
    expire_time: _timestamp_pb2.Timestamp
    ended_count: int
    left: _containers.RepeatedCompositeFieldContainer[CredentialLeft]
    def __init__(self, replacement: _Optional[_Union[Replacement, str]] = ..., version: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_count: _Optional[int] = ..., left: _Optional[_Iterable[_Union[CredentialLeft, _Mapping]]] = ...) -> None: ...
