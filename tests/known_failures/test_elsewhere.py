"""Rules of the table that belong to no other folder: what must not exist, and a definition changed by one byte."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import click
import pytest
from google.protobuf.descriptor import Descriptor

from pdp.cli.root import root
from pdp.config import reading
from pdp.errors import ConfigurationError
from pdp.model import Basis, Outcome
from pdp.testing.bundles import bundle_files, tool
from pdp.v1 import audit_pb2, authorization_pb2, decision_pb2, policy_pb2, session_pb2
from tests.machinery.oracle.opened import opened, write

# What such options are called elsewhere.
PROMISES = re.compile(
    r"fail[-_ ]?(ure)?[-_ ]?(open|mode)|(allow|permit)[-_ ]?(on|all|by[-_ ]?default|unknown|any|anonymous|insecure)"
    r"|(default|error|timeout|fallback)[-_ ]?(allow|permit|decision|effect|outcome|action)"
    r"|(skip|no|without|disable)[-_ ]?(auth|check|gate|polic|tls|verif|sign|deny|record)"
    r"|insecure|permissive|dry[-_ ]?run|shadow|audit[-_ ]?only|monitor|bypass|best[-_ ]?effort|superuser",
    re.IGNORECASE,
)


def options(command: click.Command, path: str) -> Iterator[str]:
    """Yield every option of a command and of those below it."""
    for parameter in command.params:
        yield from (f"{path} {option}" for option in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (inner := command.get_command(context, name)) is not None:
                yield from options(inner, f"{path} {name}")


def fields(message: Descriptor) -> Iterator[str]:
    """Yield the name of every field of a message and of those within it."""
    yield from (f"{message.full_name}.{field.name}" for field in message.fields)
    for inner in message.nested_types:
        yield from fields(inner)


def names() -> Iterator[str]:
    """Yield every name by which somebody can change what the server does: settings, options, fields, variables."""
    for row in reading.describe():
        yield from (row.name, row.environment, row.flag)
    yield from reading.OTHER_VARIABLES
    yield from options(root, "pdp")
    for module in (authorization_pb2, decision_pb2, session_pb2, policy_pb2, audit_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            if message.name.endswith("Request") or message.name == "Call":
                yield from fields(message)


def test_no_name_promises_an_allow_without_a_decision() -> None:
    """No setting, option, variable or field of a request lets calls through when nothing has been decided."""
    assert [] == [name for name in names() if PROMISES.search(name)]


@pytest.mark.parametrize(
    "name",
    ["failure_mode_allow", "--fail-open", "PDP_FAIL_OPEN", "server.allow_insecure", "allow_on_error", "--skip-verify"],
)
def test_the_search_finds_what_it_looks_for(name: str) -> None:
    """Names from other systems are found, so that finding none says something."""
    assert PROMISES.search(name)


def test_only_the_engine_makes_an_allow(project_root: Path) -> None:
    """`Outcome.ALLOW` is given in one place of the server; all others compare with it."""
    makers = set()
    for path in sorted((project_root / "pdp").rglob("*.py")):
        name = path.relative_to(project_root / "pdp").as_posix()
        # The client writes down what it was told, the workbench runs cases on the engine, `bench` holds a control that
        # decides nothing, and `testing` is for tests. No server imports any of them.
        if name.startswith(("v1/", "client/", "workbench/", "bench/", "testing/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "outcome" and "DENY" not in ast.unparse(node.value):
                makers.add(f"{name}: {ast.unparse(node.value)}")

    assert {"policy/answers.py: Outcome.ALLOW"} == {one for one in makers if "ALLOW" in one}


def test_no_outcome_is_an_allow_by_default() -> None:
    """The zero of the API is no allow, a message that says nothing says no, and no word of ours stands for nothing."""
    assert 0 == decision_pb2.OUTCOME_UNSPECIFIED == decision_pb2.Decision().outcome
    assert decision_pb2.OUTCOME_ALLOW != 0
    for kind in (Outcome, Basis):
        assert issubclass(kind, Enum)
        assert "_missing_" not in vars(kind)
        assert all(kind.__members__[name].value for name in kind.__members__)


@pytest.mark.parametrize("place", range(0, 32, 3))
def test_one_changed_byte_of_a_definition_denies(tmp_path: Path, place: int) -> None:
    """One byte of what a tool says of itself, changed after the approval, at any place: its calls are denied."""
    text = "Send a message to somebody else."
    changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]

    def files(description: str) -> dict[str, bytes]:
        return bundle_files(
            policies={"mail": '@id("mail/all") permit (principal, action, resource);\n'},
            tools={"mail": [{**tool("send"), "description": description}]},
            directory="{users: {alice: {}}, agents: {coder: {ceiling: [mail/*]}}}",
        )

    with opened(tmp_path, files(text)) as pdp:
        _, handle = pdp.session("mail/send")
        before = pdp.ask(handle, "mail/send").ruling.basis
        write(tmp_path, files(changed))
        pdp.embedded.keeper.reload(by="test")
        after = pdp.ask(handle, "mail/send").ruling.basis

    assert (Basis.PERMIT, Basis.TOOL_CHANGED) == (before, after)


def test_an_issuer_without_an_audience_does_not_start() -> None:
    """An issuer with keys and no audience, or an empty one, is no configuration."""
    flags = {"jwt.issuer": "https://i.example", "jwt.keys_file": "keys.json"}

    for more in ({}, {"jwt.audience": ""}):
        with pytest.raises(ConfigurationError, match=r"`jwt\.issuer` needs `jwt\.audience`"):
            reading.load(environ={}, flags={**flags, **more})
