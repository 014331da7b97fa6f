"""The API's files: generated code is current, names follow buf's STANDARD rules, every element has a comment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

_ROOT = Path(__file__).parents[2] / "proto"
# All there are, so that a new one cannot be forgotten; by the folder of their package.
FILES = tuple(sorted(path.relative_to(_ROOT).with_suffix("").as_posix() for path in _ROOT.rglob("*.proto")))
# Those of Java whose file is named by two words.
CLASSES = {"calltoken": "CallToken"}
PACKAGES = ("pdp.v1", "pdp.broker.v1")
BROKER = ("pdp.broker.v1", True)
PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")


@pytest.fixture(scope="module")
def files(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """Return the descriptors of our files, with comments."""
    out = tmp_path_factory.mktemp("descriptors") / "set"
    arguments = [f"{name}.proto" for name in FILES]
    include = [f"-I{project_root / 'proto'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    command = ["protoc", *include, "--include_source_info", f"--descriptor_set_out={out}", *arguments]
    assert 0 == protoc.main(command)
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def test_generated_code_is_current(project_root: Path, tmp_path: Path) -> None:
    """Generating again gives the committed files, byte for byte."""
    names = [f"proto/{name}.proto" for name in FILES]
    outs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *outs, *names], cwd=project_root, check=True, timeout=60
    )

    made = {path.relative_to(tmp_path): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*_pb2*")}
    kept = {name: (project_root / name).read_text(encoding="utf-8") for name in made}
    assert kept == made


def test_every_element_has_a_comment(files: list[FileDescriptorProto]) -> None:
    """Whoever reads the API finds a sentence at every message, field, enum, value, service, method and oneof."""
    silent = [
        f"{file.name}: {name}"
        for file in files
        for path, name in _elements(file)
        if not any(list(one.path) == path and one.leading_comments.strip() for one in file.source_code_info.location)
    ]

    assert silent == []


def test_names_follow_the_standard(files: list[FileDescriptorProto]) -> None:
    """Packages, services, messages, fields and enum values are named by buf's STANDARD rules."""
    wrong = [f"{file.name}: {problem}" for file in files for problem in _problems(file)]

    assert wrong == []


def _elements(file: FileDescriptorProto) -> Iterator[tuple[list[int], str]]:
    for m, message in enumerate(file.message_type):
        yield [4, m], message.name
        yield from (([4, m, 2, f], f"{message.name}.{one.name}") for f, one in enumerate(message.field))
        yield from (([4, m, 8, o], f"{message.name}.{one.name}") for o, one in enumerate(message.oneof_decl))
        assert not message.nested_type, "messages stand at the top"
    for e, enum in enumerate(file.enum_type):
        yield [5, e], enum.name
        yield from (([5, e, 2, v], one.name) for v, one in enumerate(enum.value))
    for s, service in enumerate(file.service):
        yield [6, s], service.name
        yield from (([6, s, 2, m], f"{service.name}.{one.name}") for m, one in enumerate(service.method))


def _problems(file: FileDescriptorProto) -> Iterator[str]:
    folder = file.name.rpartition("/")[0]
    if file.package not in PACKAGES or folder != file.package.replace(".", "/") or file.syntax != "proto3":
        yield "package, folder or syntax"
    for message in file.message_type:
        yield from _named(message, PASCAL)
        for one in message.field:
            yield from _named(one, SNAKE)
    for enum in file.enum_type:
        yield from _enum_problems(enum)
    for service in file.service:
        yield from _service_problems(service, file.package)


def _enum_problems(enum: Any) -> Iterator[str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    yield from (f"{value.name} lacks {prefix}" for value in enum.value if not value.name.startswith(prefix))
    if enum.value[0].number != 0 or enum.value[0].name != prefix + "UNSPECIFIED":
        yield f"{enum.name} does not begin with UNSPECIFIED"


def _service_problems(service: Any, package: str) -> Iterator[str]:
    if not service.name.endswith("Service"):
        yield f"{service.name} does not end in Service"
    for method in service.method:
        if method.input_type != f".{package}.{method.name}Request":
            yield f"{method.name} takes {method.input_type}"
        if method.output_type != f".{package}.{method.name}Response":
            yield f"{method.name} returns {method.output_type}"


def _named(element: Any, pattern: re.Pattern[str]) -> Iterator[str]:
    if not pattern.match(element.name):
        yield f"{element.name} is not named as it should be"


def test_other_languages_need_no_flags(files: list[FileDescriptorProto]) -> None:
    """Each file names its package for Go, Java and C#, the same in all files."""
    options = [file.options for file in files]

    assert {("pdp/v1;pdpv1", "pdp.v1", True, "Pdp.V1"), ("pdp/broker/v1;pdpbrokerv1", *BROKER, "Pdp.Broker.V1")} == {
        (one.go_package, one.java_package, one.java_multiple_files, one.csharp_namespace) for one in options
    }
    names = {name.rpartition("/")[2] for name in FILES}
    assert {f"{CLASSES.get(name, name.capitalize())}Proto" for name in names} == {
        one.java_outer_classname for one in options
    }


@pytest.mark.parametrize("name", ["pdp/doors/agentgateway/extmcp", "pdp/doors/envoy/extauthz"])
def test_what_doors_of_gateways_speak_is_current(project_root: Path, tmp_path: Path, name: str) -> None:
    """Generating their messages again gives the committed files, byte for byte."""
    outs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]

    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, f"{name}.proto"]
    subprocess.run(command, cwd=project_root, check=True)

    made = {one: (tmp_path / f"{name}{one}").read_text(encoding="utf-8") for one in ("_pb2.py", "_pb2.pyi")}
    assert {one: (project_root / f"{name}{one}").read_text(encoding="utf-8") for one in made} == made
