import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONNECTION_STATE_UNSPECIFIED: _ClassVar[ConnectionState]
    CONNECTION_STATE_CONNECTED: _ClassVar[ConnectionState]
    CONNECTION_STATE_NEEDS_PERSON: _ClassVar[ConnectionState]
    CONNECTION_STATE_ENDING: _ClassVar[ConnectionState]

class EndOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_OUTCOME_UNSPECIFIED: _ClassVar[EndOutcome]
    END_OUTCOME_REVOKED: _ClassVar[EndOutcome]
    END_OUTCOME_EXPIRES: _ClassVar[EndOutcome]
    END_OUTCOME_FAILED: _ClassVar[EndOutcome]
CONNECTION_STATE_UNSPECIFIED: ConnectionState
CONNECTION_STATE_CONNECTED: ConnectionState
CONNECTION_STATE_NEEDS_PERSON: ConnectionState
CONNECTION_STATE_ENDING: ConnectionState
END_OUTCOME_UNSPECIFIED: EndOutcome
END_OUTCOME_REVOKED: EndOutcome
END_OUTCOME_EXPIRES: EndOutcome
END_OUTCOME_FAILED: EndOutcome

class PersonalConnection(_message.Message):
    __slots__ = ("connection_id", "kind", "tenant", "compartment", "user", "account", "scopes", "state", "upstream", "create_time", "use_time")
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    COMPARTMENT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    USE_TIME_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    kind: str
    tenant: str
    compartment: str
    user: str
    account: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    state: ConnectionState
    upstream: str
    create_time: _timestamp_pb2.Timestamp
    use_time: _timestamp_pb2.Timestamp
    def __init__(self, connection_id: _Optional[str] = ..., kind: _Optional[str] = ..., tenant: _Optional[str] = ..., compartment: _Optional[str] = ..., user: _Optional[str] = ..., account: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[ConnectionState, str]] = ..., upstream: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Connectable(_message.Message):
    __slots__ = ("kind", "tenant", "compartment", "provider", "scopes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    COMPARTMENT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    tenant: str
    compartment: str
    provider: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., tenant: _Optional[str] = ..., compartment: _Optional[str] = ..., provider: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListConnectionsRequest(_message.Message):
    __slots__ = ("of_others",)
    OF_OTHERS_FIELD_NUMBER: _ClassVar[int]
    of_others: bool
    def __init__(self, of_others: _Optional[bool] = ...) -> None: ...

class ListConnectionsResponse(_message.Message):
    __slots__ = ("connections", "connectable")
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CONNECTABLE_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[PersonalConnection]
    connectable: _containers.RepeatedCompositeFieldContainer[Connectable]
    def __init__(self, connections: _Optional[_Iterable[_Union[PersonalConnection, _Mapping]]] = ..., connectable: _Optional[_Iterable[_Union[Connectable, _Mapping]]] = ...) -> None: ...

class BeginConnectionRequest(_message.Message):
    __slots__ = ("kind", "tenant", "compartment")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    COMPARTMENT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    tenant: str
    compartment: str
    def __init__(self, kind: _Optional[str] = ..., tenant: _Optional[str] = ..., compartment: _Optional[str] = ...) -> None: ...

class BeginConnectionResponse(_message.Message):
    __slots__ = ("authorization_url", "expire_time", "former_outcome")
    AUTHORIZATION_URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    FORMER_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    authorization_url: str
    expire_time: _timestamp_pb2.Timestamp
    former_outcome: EndOutcome
    def __init__(self, authorization_url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., former_outcome: _Optional[_Union[EndOutcome, str]] = ...) -> None: ...

class FinishConnectionRequest(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: str
    def __init__(self, ticket: _Optional[str] = ...) -> None: ...

class FinishConnectionResponse(_message.Message):
    __slots__ = ("connection",)
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    connection: PersonalConnection
    def __init__(self, connection: _Optional[_Union[PersonalConnection, _Mapping]] = ...) -> None: ...

class EndConnectionRequest(_message.Message):
    __slots__ = ("connection_id",)
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    def __init__(self, connection_id: _Optional[str] = ...) -> None: ...

class EndConnectionResponse(_message.Message):
    __slots__ = ("outcome", "expire_time")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    outcome: EndOutcome
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, outcome: _Optional[_Union[EndOutcome, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
