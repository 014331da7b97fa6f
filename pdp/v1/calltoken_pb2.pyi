import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallTokenRequest(_message.Message):
    __slots__ = ("audience", "certificate_thumbprint", "key_thumbprint")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_THUMBPRINT_FIELD_NUMBER: _ClassVar[int]
    KEY_THUMBPRINT_FIELD_NUMBER: _ClassVar[int]
    audience: str
    certificate_thumbprint: str
    key_thumbprint: str
    def __init__(self, audience: _Optional[str] = ..., certificate_thumbprint: _Optional[str] = ..., key_thumbprint: _Optional[str] = ...) -> None: ...

class CallToken(_message.Message):
    __slots__ = ("audience", "token", "expire_time", "refusal")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    audience: str
    token: str
    expire_time: _timestamp_pb2.Timestamp
    refusal: str
    def __init__(self, audience: _Optional[str] = ..., token: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refusal: _Optional[str] = ...) -> None: ...

class CallTokenKey(_message.Message):
    __slots__ = ("key_id", "public_key", "publish_time", "expire_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    public_key: bytes
    publish_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., public_key: _Optional[bytes] = ..., publish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetCallTokenKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCallTokenKeysResponse(_message.Message):
    __slots__ = ("issuer", "keys", "jwks_json")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    JWKS_JSON_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    keys: _containers.RepeatedCompositeFieldContainer[CallTokenKey]
    jwks_json: bytes
    def __init__(self, issuer: _Optional[str] = ..., keys: _Optional[_Iterable[_Union[CallTokenKey, _Mapping]]] = ..., jwks_json: _Optional[bytes] = ...) -> None: ...

class CheckCallTokenRequest(_message.Message):
    __slots__ = ("token", "min_revision")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    token: str
    min_revision: str
    def __init__(self, token: _Optional[str] = ..., min_revision: _Optional[str] = ...) -> None: ...

class CheckCallTokenResponse(_message.Message):
    __slots__ = ("valid", "reason", "message", "session_expire_time")
    VALID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    reason: str
    message: str
    session_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, valid: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., session_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WithdrawCallTokenKeyRequest(_message.Message):
    __slots__ = ("key_id", "reason", "request_id")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    reason: str
    request_id: str
    def __init__(self, key_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class WithdrawCallTokenKeyResponse(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: _Optional[bool] = ...) -> None: ...
