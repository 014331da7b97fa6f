from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class FencedBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FENCED_BY_UNSPECIFIED: _ClassVar[FencedBy]
    FENCED_BY_CONFIRMED: _ClassVar[FencedBy]
    FENCED_BY_WAITED: _ClassVar[FencedBy]
FENCED_BY_UNSPECIFIED: FencedBy
FENCED_BY_CONFIRMED: FencedBy
FENCED_BY_WAITED: FencedBy
