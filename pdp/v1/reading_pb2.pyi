from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_CLASS_UNSPECIFIED: _ClassVar[CacheClass]
    CACHE_CLASS_PURE: _ClassVar[CacheClass]
    CACHE_CLASS_INPUT: _ClassVar[CacheClass]
    CACHE_CLASS_TIMED: _ClassVar[CacheClass]
    CACHE_CLASS_VOLATILE: _ClassVar[CacheClass]
CACHE_CLASS_UNSPECIFIED: CacheClass
CACHE_CLASS_PURE: CacheClass
CACHE_CLASS_INPUT: CacheClass
CACHE_CLASS_TIMED: CacheClass
CACHE_CLASS_VOLATILE: CacheClass

class ReadAttribute(_message.Message):
    __slots__ = ("name", "policy_ids")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., policy_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("cache_class", "remembered", "attributes")
    CACHE_CLASS_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    cache_class: CacheClass
    remembered: bool
    attributes: _containers.RepeatedCompositeFieldContainer[ReadAttribute]
    def __init__(self, cache_class: _Optional[_Union[CacheClass, str]] = ..., remembered: _Optional[bool] = ..., attributes: _Optional[_Iterable[_Union[ReadAttribute, _Mapping]]] = ...) -> None: ...

class ToolReading(_message.Message):
    __slots__ = ("server", "tool", "reading")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    server: str
    tool: str
    reading: Reading
    def __init__(self, server: _Optional[str] = ..., tool: _Optional[str] = ..., reading: _Optional[_Union[Reading, _Mapping]] = ...) -> None: ...
