"""What a slice says that its policies read, and how an answer can be remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.policy.reading import CacheClass, Reading
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import opened

SCHEMA = """
entity UserGroup in [UserGroup];
entity User in [UserGroup];
entity AgentGroup in [AgentGroup];
entity Agent in [AgentGroup];
entity Grant;
entity Session in [Grant] = {
  purpose: String, tenant: String, environment: String, opened_by: String, depth: Long, labels: Set<String>,
};
entity Server;
entity Folder in [Server, Folder];
entity Account in [Server] = { owner?: User };
"""
PARAMETERS = {"id": {"type": "string"}, "n": {"type": "integer"}, "note": {"type": "string"}, "any": {"type": "object"}}
TOOLS = [tool(name, PARAMETERS, ["id"]) for name in ("plain", "folder", "account")]
OVERLAY = """
risk: read_only
tools:
  folder: {resource: {type: Folder, id: "{id}"}}
  account: {resource: {type: Account, id: "{id}"}}
"""


def reading(tmp_path: Path, policies: str, action: str = "shop/plain", directory: str = "") -> Reading:
    """Return what the policies of an action read."""
    files = bundle_files(
        policies={"p": policies},
        tools={"shop": TOOLS, "other": [tool("thing")]},
        overlays={"shop": OVERLAY, "other": "risk: read_only"},
        schema=SCHEMA,
        directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}" + directory + "}",
    )
    with opened(tmp_path, files) as pdp:
        return pdp.embedded.keeper.current().slice(action).reading


WHEN = """
@id("p/a") permit (principal, action in [Action::"shop/plain", Action::"shop/folder", Action::"shop/account"], resource)
when {{ {} }};
"""


@pytest.mark.parametrize(
    ("condition", "kind", "readers", "cacheable"),
    [
        ("true", CacheClass.PURE, [], True),
        ('context.session.purpose == "x" && context.agent == Agent::"coder"', CacheClass.PURE, [], True),
        ("context.input has n && context.input.n > 1", CacheClass.INPUT, ["context.input.n"], True),
        ("[context.input].isEmpty()", CacheClass.INPUT, ["context.input"], True),
        ('context.opaque.contains("any")', CacheClass.INPUT, ["context.opaque"], True),
        ('context.caller.id == "x"', CacheClass.INPUT, ["context.caller"], True),
        ('context.now < datetime("2026-01-01")', CacheClass.TIMED, ["context.now"], True),
        ("context.now == context.now", CacheClass.TIMED, ["context.now"], False),
        ("[context].isEmpty()", CacheClass.VOLATILE, ["context"], False),
    ],
)
def test_class(tmp_path: Path, condition: str, kind: CacheClass, readers: list[str], cacheable: bool) -> None:  # noqa: FBT001
    """The class is that of the dearest thing that is read; each thing names the policies that read it."""
    found = reading(tmp_path, WHEN.format(condition))

    assert (kind, dict.fromkeys(readers, ("p/a",)), cacheable) == (found.kind, dict(found.readers), found.cacheable)


def test_another_action_is_not_concerned(tmp_path: Path) -> None:
    """What policies of other actions read plays no part."""
    whole = '@id("p/b") forbid (principal, action == Action::"shop/folder", resource) when { [context].isEmpty() };'

    assert CacheClass.PURE is reading(tmp_path, WHEN.format("true") + whole).kind
    assert CacheClass.VOLATILE is reading(tmp_path, WHEN.format("true") + whole, "shop/folder").kind


PART = {"input": {"id": "x", "n": 1, "note": "y"}, "opaque": ["any"], "caller": {"id": "gateway"}}


@pytest.mark.parametrize(
    ("condition", "action", "expected"),
    [
        ("true", "shop/plain", b"[{},null,null,null]"),
        ("context.input has n && context.input.n > 1", "shop/plain", b'[{"n":1},null,null,null]'),
        ('context.input.id == "x" && context.input has n', "shop/plain", b'[{"id":"x","n":1},null,null,null]'),
        ("[context.input].isEmpty()", "shop/plain", b'[{"id":"x","n":1,"note":"y"},null,null,null]'),
        ('context.opaque.contains("any")', "shop/plain", b'[{},["any"],null,null]'),
        ('context.caller.id == "x"', "shop/plain", b'[{},null,{"id":"gateway"},null]'),
        ('resource == Folder::"x"', "shop/folder", b'[{},null,null,["Folder","x"]]'),
        ("true", "shop/folder", b"[{},null,null,null]"),
        ("resource has owner", "shop/account", b'[{},null,null,["Account","x"]]'),
    ],
)
def test_part(tmp_path: Path, condition: str, action: str, expected: bytes) -> None:
    """What stands for a call holds what is read of it and nothing else."""
    kind = {"shop/folder": "Folder", "shop/account": "Account"}.get(action, "Server")

    assert expected == reading(tmp_path, WHEN.format(condition), action).part((kind, "x"), PART)


IN_Y, OTHER = "{type: Folder, id: y}", "{type: Server, id: other}"


@pytest.mark.parametrize(
    ("server", "directory", "expected"),
    [
        ("shop", "", False),
        ("other", "", False),
        ("shop", f", entities: [{{type: Folder, id: x, parents: [{OTHER}]}}]", False),
        ("other", f", entities: [{{type: Folder, id: x, parents: [{OTHER}]}}]", True),
        (
            "other",
            f", entities: [{{type: Folder, id: x, parents: [{IN_Y}]}}, {{{IN_Y[1:-1]}, parents: [{OTHER}]}}]",
            True,
        ),
        ("other", ", entities: [{type: Account, id: x, attributes: {owner: {type: User, id: alice}}}]", False),
    ],
)
def test_scope_below_a_server(tmp_path: Path, server: str, directory: str, expected: bool) -> None:  # noqa: FBT001
    """What is below the call's own server is known beforehand; below another one only what the directory puts there."""
    policy = f'@id("p/a") permit (principal, action, resource in Server::"{server}");'

    assert expected == reading(tmp_path, policy, "shop/folder", directory).resource


def test_values_of_different_types_are_written_differently() -> None:
    """1, true, "1", a list and a record of one: no two parts are equal."""
    whole = Reading.of([("p", frozenset({"context.input"}), ())])
    values = (1, True, "1", ["1"], {"1": 1}, "true", ["a,b"], ["a", "b"], {"__extn": {"fn": "decimal", "arg": "1.0"}})
    parts = {whole.part(("Server", "s"), {**PART, "input": {"x": value}}) for value in values}

    assert len(values) == len(parts)


def test_the_words_of_classes() -> None:
    """`pdp check --reads` and the API call each class by its name."""
    assert {kind: kind.name.lower() for kind in CacheClass} == {kind: kind.value for kind in CacheClass}
