"""Cerbos, another decision point, with equivalent policies: its start, its questions and the check of its answers.

Only the used fields are described here; the field numbers are those of `cerbos.request.v1`, `cerbos.response.v1` and
`cerbos.engine.v1`. A `map` is sent as repeated entries of key and value.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import DecodeError

from benchmarks.cerbospolicies import policy_files
from pdp.bench.dialects import Metadata
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import Shape
from pdp.bench.processes import running
from pdp.bench.questions import Question, Workload
from pdp.bench.servers import Target
from pdp.errors import UnavailableError

CERBOS = "Cerbos"

_NAMES = ("cerbos", "cerbos-linux-x64")
_CHECK = "/cerbos.svc.v1.CerbosService/CheckResources"
_STARTING_SECONDS = 20.0
_ALLOW = 1

# Message → field → number and type; a type of ours is a message, and `*` repeats.
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Entry": {"key": (1, "string"), "value": (2, "google.protobuf.Value")},
    "Principal": {"id": (1, "string"), "roles": (3, "string*"), "attr": (4, "Entry*")},
    "Resource": {"kind": (1, "string"), "id": (3, "string"), "attr": (4, "Entry*")},
    "Asked": {"actions": (1, "string*"), "resource": (2, "Resource")},
    "Request": {"principal": (3, "Principal"), "resources": (4, "Asked*")},
    "Effect": {"key": (1, "string"), "value": (2, "int32")},
    "Result": {"actions": (2, "Effect*")},
    "Response": {"results": (2, "Result*")},
}


class CerbosDialect:
    """Asks Cerbos. The user is the principal; agent and session are its attributes, arguments those of a resource."""

    cached = False
    metadata: Metadata = ()
    id_field = 1  # `request_id`, which the answer repeats

    def __init__(self, workload: Workload) -> None:
        self._askers = workload.askers
        messages = _messages()
        self._request, self._response, self._entry = (messages[name] for name in ("Request", "Response", "Entry"))

    def path(self, shape: Shape) -> str | None:
        """Return the one method: it takes one call or several, and there are no streams."""
        return _CHECK if shape in (Shape.UNARY, Shape.BATCH, Shape.FRAMES) else None

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:  # noqa: ARG002 - one message for all shapes
        """Return the message; all questions of a batch are those of the first one's asker."""
        asker = self._askers[questions[0].asker]
        request = self._request(
            principal={
                "id": asker.user,
                "roles": ["staff"],
                "attr": self._entries({"agent": asker.agent, "session": asker.name, "purpose": "benchmark"}),
            },
            resources=[
                {
                    "actions": [one.tool],
                    "resource": {
                        "kind": one.server,
                        "id": f"{one.server}-{index}",
                        "attr": self._entries(json.loads(one.arguments_json)),
                    },
                }
                for index, one in enumerate(questions)
            ],
        )
        return bytes(request.SerializeToString())

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:  # noqa: ARG002 - see above
        """Compare each effect; Cerbos never remembers an answer."""
        try:
            results = self._response.FromString(answer).results
        except DecodeError:
            raise WrongAnswerError("the answer is not a message of Cerbos") from None
        if len(results) != len(questions):
            raise WrongAnswerError(f"{len(questions)} answers were due and {len(results)} came")
        for result, question in zip(results, questions, strict=True):
            effects = {effect.key: effect.value for effect in result.actions}
            if effects.keys() != {question.tool} or (effects[question.tool] == _ALLOW) is not question.allowed:
                wanted = "allowed" if question.allowed else "denied"
                raise WrongAnswerError(f"`{question.server}/{question.tool}` must be {wanted}, and it is not")
        return 0

    def _entries(self, attributes: Mapping[str, Any]) -> list[Any]:
        return [self._entry(key=key, value=_value(value)) for key, value in attributes.items()]


def find_cerbos(named: str | None) -> Path | None:
    """Return the named program, or else the one on the PATH; None without any.

    Raise `UnavailableError` when the named one is not a program.
    """
    for name in (named,) if named else _NAMES:
        if found := shutil.which(name):
            return Path(found)
    if named:
        raise UnavailableError(f"`{named}` is not a program that runs")
    return None


def version_of(program: Path) -> str:
    """Return the version in the first line of a program's output."""
    command = [str(program), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_STARTING_SECONDS)
    return (done.stdout.splitlines() or ["unknown"])[0]


@contextmanager
def cerbos_server(program: Path, workload: Workload, parent: Path, core: int | None) -> Iterator[Target]:
    """Run Cerbos on equivalent policies, as one process on a core.

    Audit log, traces and telemetry are off.
    """
    folder = parent / "cerbos"
    folder.mkdir()
    for name, content in policy_files(workload).items():
        (folder / name).write_bytes(content)
    grpc_port, http_port = _free_port(), _free_port()
    settings = {
        "server": {"grpcListenAddr": f"127.0.0.1:{grpc_port}", "httpListenAddr": f"127.0.0.1:{http_port}"},
        "storage": {"driver": "disk", "disk": {"directory": str(folder), "watchForChanges": False}},
        "telemetry": {"disabled": True},
        "audit": {"enabled": False},
    }
    # JSON is YAML.
    configuration = parent / "cerbos.yaml"
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    command = [str(program), "server", "--log-level=ERROR", f"--config={configuration}"]
    with running(command, core=core, environment={"OTEL_SDK_DISABLED": "true"}) as process:
        address = f"127.0.0.1:{grpc_port}"
        _wait_for(address)
        yield Target(name=CERBOS, address=address, pid=process.pid, core=core, dialect=CerbosDialect(workload))


def _wait_for(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_STARTING_SECONDS)
        except grpc.FutureTimeoutError:
            raise UnavailableError(f"Cerbos did not listen within {_STARTING_SECONDS:g} s") from None


def _free_port() -> int:
    # It does not choose one itself.
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        return int(unused.getsockname()[1])


def _value(value: object) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, list):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=map(_value, value)))
    if isinstance(value, dict):
        fields = {name: _value(one) for name, one in value.items()}
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
    return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)


def _messages() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="benchmarks/cerbos.proto",
        package="benchmarks.cerbos",
        syntax="proto3",
        dependency=["google/protobuf/struct.proto"],
        message_type=[
            descriptor_pb2.DescriptorProto(
                name=name, field=[_field(one, *described) for one, described in fields.items()]
            )
            for name, fields in _FIELDS.items()
        ],
    )
    # The pool that knows `Value`; adding the same file again changes nothing.
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmarks.cerbos.{name}"))
        for name in _FIELDS
    }


def _field(name: str, number: int, kind: str) -> descriptor_pb2.FieldDescriptorProto:
    field = descriptor_pb2.FieldDescriptorProto
    plain, repeated = kind.removesuffix("*"), kind.endswith("*")
    label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    scalar = {"string": field.TYPE_STRING, "int32": field.TYPE_INT32}.get(plain)
    if scalar is not None:
        return field(name=name, number=number, label=label, type=scalar)
    return field(
        name=name,
        number=number,
        label=label,
        type=field.TYPE_MESSAGE,
        type_name=f".{plain}" if "." in plain else f".benchmarks.cerbos.{plain}",
    )
