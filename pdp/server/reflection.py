"""Answers the standard service of reflection, for people on a command line."""

from __future__ import annotations

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from pdp.serving.origin import Origin


class ReflectionHandlers:
    """Describes the API to tools without its files, and the reflection service itself in both versions."""

    def __init__(self, services: tuple[str, ...]) -> None:
        _describe_reflection(descriptor_pool.Default())
        self._servicer = ReflectionServicer(services)

    def server_reflection_info(self, request: ServerReflectionRequest, _: Origin) -> ServerReflectionResponse:
        """Answer one question about the API."""
        answer: ServerReflectionResponse = next(self._servicer.ServerReflectionInfo(iter((request,)), None))
        return answer


def _describe_reflection(pool: descriptor_pool.DescriptorPool) -> None:
    """Add reflection v1 to the pool: the library knows only `v1alpha`, which has the same bytes."""
    old = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    new = text_format.Parse(text_format.MessageToString(old).replace("v1alpha", "v1"), FileDescriptorProto())
    pool.AddSerializedFile(new.SerializeToString())
