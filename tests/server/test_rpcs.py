"""The table of RPCs against the API as it is described, and against callers of every role."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from pdp.model import Role
from pdp.server.rpcs import RPCS
from pdp.server.service import PDPServer
from pdp.serving.rpc import PUBLIC, RPC, Shape
from pdp.serving.transports import LOOP
from tests.machinery.rpcs.table import ALL
from tests.machinery.servers.running import PATIENCE, Running, Serve
from tests.machinery.servers.twotenants import METHODS


def test_every_rpc_has_a_row() -> None:
    """An RPC that nobody gave roles to cannot be forgotten, and a row without RPC neither."""
    # The standard health service lists the state of all services, which nobody asked for.
    unserved = {"/grpc.health.v1.Health/List"}

    # The library describes reflection under its former name alone; the server describes it itself.
    itself = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}

    assert METHODS.keys() - unserved == set(RPCS) - itself


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method in METHODS.items() if path in RPCS])
def test_rows_have_the_shape_of_their_rpc(path: str, method: MethodDescriptor) -> None:
    """The message and the direction of streams are those of the API."""
    row = RPCS[path]

    assert method.input_type.full_name == row.request.DESCRIPTOR.full_name
    assert {
        (False, False): Shape.UNARY,
        (True, True): Shape.EXCHANGE,
        (False, True): Shape.FEED,
        (True, False): Shape.UPLOAD,
    }[method.client_streaming, method.server_streaming] is (Shape.FEED if row.shape is Shape.WATCH else row.shape)


def test_roles_are_as_decided() -> None:
    """Who may call what is stated a second time, in the table for tests; only health is open to everyone."""
    roles = {path: set(row.roles) for path, row in RPCS.items() if row.roles != PUBLIC}
    public = {path for path, row in RPCS.items() if row.roles == PUBLIC}

    assert roles == {path: {Role(role) for role in ALL[RPCS[path].method].roles} for path in roles}
    assert public == {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}


@pytest.mark.parametrize("role", [*Role, None], ids=lambda role: role.value if role else "nobody")
def test_every_role_on_every_rpc(serve: Serve, role: Role | None) -> None:
    """Each caller gets through to the RPCs of its role and to no other, on the real server."""
    running = serve(reflection=True)

    answers = {path: code_for(running, row, role) for path, row in RPCS.items()}

    for path, row in RPCS.items():
        if row.roles == PUBLIC or (role is not None and role in row.roles):
            assert answers[path] in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, path
        elif role is None:
            assert answers[path] is grpc.StatusCode.UNAUTHENTICATED, path
        else:
            assert answers[path] is grpc.StatusCode.PERMISSION_DENIED, path


def code_for(running: Running, row: RPC, role: Role | None) -> grpc.StatusCode:
    """Call an RPC with an empty message and return its status."""
    metadata = running.credentials(role.value) if role else ()
    # An upload of one message is the same as a call with one.
    kinds = {Shape.EXCHANGE: "stream_stream", Shape.FEED: "unary_stream", Shape.WATCH: "unary_stream"}
    message = iter([b""]) if row.shape is Shape.EXCHANGE else b""
    call = getattr(running.channel, kinds.get(row.shape, "unary_unary"))(row.path)
    try:
        if row.shape not in kinds:
            call(message, metadata=metadata, timeout=PATIENCE)
        else:
            answers = call(message, metadata=metadata, timeout=PATIENCE)
            next(answers)
            answers.cancel()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    "path",
    [
        "/pdp.v1.AuthorizationService/Nothing",
        "/pdp.v1.AuthorizationService/authorize",
        "/pdp.v1.AuthorizationService/Authorize/",
        "//pdp.v1.AuthorizationService/Authorize",
        "/pdp.v1.AuthorizationService/../AuthorizationService/Authorize",
        "/PDP.V1.AuthorizationService/Authorize",
        "/pdp.v1.AuthorizationService/Authorize?x=1",
        "/pdp.v1.AuthorizationService%2FAuthorize",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/List",
        "pdp.v1.AuthorizationService/Authorize",
    ],
)
def test_odd_paths_are_not_served(running: Running, transport: str, path: str) -> None:
    """Only the exact paths of the table lead anywhere; reflection is off unless it is asked for."""
    # Without a slash it is no path of HTTP/2, which the loop's library says by itself.
    unclean = transport == LOOP and not path.startswith("/")

    error = running.refused(path, b"")

    assert error.code() is (grpc.StatusCode.INTERNAL if unclean else grpc.StatusCode.UNIMPLEMENTED)
    assert running.notes.decisions == []


def test_a_handler_stands_behind_every_row(serve: Serve) -> None:
    """The server cannot be built when a row names a function that does not exist."""
    server: PDPServer = serve(reflection=True).server

    assert server.port > 0


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(serve: Serve, version: str) -> None:
    """Both versions of reflection answer alike, and each service that they list is described, with themselves."""
    running = serve(reflection=True)
    call = running.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")

    def ask(**question: str) -> reflection_pb2.ServerReflectionResponse:
        message = reflection_pb2.ServerReflectionRequest(**question).SerializeToString()
        answers = call(iter([message]), metadata=running.credentials("pep"), timeout=PATIENCE)
        return reflection_pb2.ServerReflectionResponse.FromString(next(answers))

    services = [one.name for one in ask(list_services="").list_services_response.service]
    described = {one: ask(file_containing_symbol=one).file_descriptor_response for one in services}

    assert sorted({row.service for row in RPCS.values()}) == services
    for name, answer in described.items():
        files = [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_proto]
        assert name in {f"{file.package}.{one.name}" for file in files for one in file.service}
    assert b"v1alpha" not in described["grpc.reflection.v1.ServerReflection"].SerializeToString()
